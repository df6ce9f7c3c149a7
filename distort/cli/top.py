"""Show what the actors of a running session do.

The session is one with distort.metrics=HOST:PORT, anywhere; ADDRESS is that HOST:PORT.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import TYPE_CHECKING, Any

from distort.cli import console
from distort.cli.arguments import count, seconds
from distort.cli.errors import OK, TaskFailed

if TYPE_CHECKING:
    from distort.cluster.activity import Snapshot

_TIMEOUT_S = 10.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("address", metavar="ADDRESS", help="HOST:PORT")
    parser.add_argument("--every", type=seconds, default=1.0, metavar="S", help="seconds from table to table (1)")
    parser.add_argument(
        "--times", type=count, metavar="N", help="tables to show (until interrupted; 1 where there is no terminal)"
    )
    parser.add_argument("--json", action="store_true", help="print one table as JSON")


def run(arguments: argparse.Namespace) -> int:
    from distort.cli import activity

    plain = arguments.json or console.is_plain(sys.stdout)
    left = (1 if plain else 0) if arguments.times is None else arguments.times
    endless = left == 0
    screen = console.Screen()
    model, before = _read(arguments.address)
    with screen.live() as show:
        while endless or left > 0:
            time.sleep(arguments.every)
            model, now = _read(arguments.address)
            period = now.since(before)
            if arguments.json:
                told = {"model": model, "runs_per_s": period.runs_per_s, **activity.as_dict(period)}
                console.print_json(told)
                return OK
            heading = f"{model}: {now.done} runs, {now.in_flight} in flight"
            blocks = activity.blocks(heading, period, now.recent_s)
            if plain:
                screen.show(blocks)
            else:
                show(blocks)
            before = now
            left -= 1
    if not plain:
        screen.show(blocks)
    return OK


def _read(address: str) -> tuple[str, Snapshot]:
    """The session's model, and what its actors have done. Raises TaskFailed."""
    import urllib.error
    import urllib.request

    from distort.cluster.activity import Snapshot

    base = address if "://" in address else f"http://{address}"
    if not base.startswith(("http://", "https://")):
        raise TaskFailed(f"{address}: not an address. Write HOST:PORT")
    try:
        with urllib.request.urlopen(f"{base.rstrip('/')}/activity", timeout=_TIMEOUT_S) as answer:
            told: Any = json.load(answer)
        return str(told["model"]), Snapshot.from_dict(told["snapshot"])
    except urllib.error.HTTPError as error:
        raise TaskFailed(f"{address}: {error.code} {error.reason}") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise TaskFailed(f"{address}: no session answers there (distort.metrics=HOST:PORT): {reason}") from error
    except (KeyError, TypeError) as error:
        raise TaskFailed(f"{address}: what answers there is no session of this version of distort") from error
