"""Read handwritten digits, in this process and on two actors, and compare.

A small convolutional network classifies digits that its training has not seen: once as one program in this process,
once cut into two stages, each on a Ray actor of its own. Needs no network, and takes seconds.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distort.cli import console, digits
from distort.cli.errors import FAILED, OK

if TYPE_CHECKING:
    import numpy as np

    from distort.scheduler.plan import Plan

    Array = np.ndarray[Any, Any]

_BATCH = 50
_DRAWN = 8
#: the two ways may differ where their matrix products sum in another order; more than this is an error
_TOLERANCE = 1e-5


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one way of running the network went."""

    probabilities: Array  # [N, 10] float32
    plan: Plan
    transfers: list[dict[str, Any]]
    open_s: float
    first_s: float  # the first batch
    rest_s: float  # all others
    n_batches: int

    def images_per_s(self) -> float:
        return (self.n_batches - 1) * _BATCH / self.rest_s


@dataclass(frozen=True, slots=True)
class Agreement:
    identical: bool  # to the last bit
    largest_difference: float
    same_digits: bool

    @property
    def good(self) -> bool:
        return self.same_digits and self.largest_difference <= _TOLERANCE

    @property
    def text(self) -> str:
        if self.identical:
            return "Both ways agree to the last bit."
        digits_text = "read the same digits" if self.same_digits else "read different digits"
        return f"The two ways {digits_text}; probabilities differ by {self.largest_difference:.3g} at most."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print what was found as JSON")


def run(arguments: argparse.Namespace) -> int:
    data = digits.held_out()
    content = digits.model()
    here = classify(content, data.images, parallel=False)
    actors = classify(content, data.images, parallel=True)
    agreement = compare(here.probabilities, actors.probabilities)
    if arguments.json:
        console.print_json(_as_dict(data, here, actors, agreement))
    else:
        _show(data, here, actors, agreement)
    return OK if agreement.good else FAILED


def classify(content: bytes, images: Array, *, parallel: bool) -> Outcome:
    """Run the network over ``images`` in batches of ``_BATCH``; the last one is filled up with blank images."""
    import numpy as np

    from distort.enums import ExecutionMode
    from distort.options import SessionOptions
    from distort.session import InferenceSession

    options = SessionOptions()
    options.intra_op_num_threads = 1  # the same sums in the same order, in this process and on actors
    options.add_free_dimension_override_by_name("batch", _BATCH)
    if parallel:
        options.execution_mode = ExecutionMode.ORT_PARALLEL
        options.add_session_config_entry("distort.start", "wait")
        options.inter_op_num_threads = 2
    n_batches = -(-len(images) // _BATCH)
    padded = np.concatenate([images, np.zeros((n_batches * _BATCH - len(images), *images.shape[1:]), images.dtype)])
    began = time.perf_counter()
    with console.progress("starting two actors" if parallel else "opening the model"):
        session = InferenceSession(content, options)
    with session:
        opened = time.perf_counter()
        batches, ends = [], []
        with console.progress("reading digits " + ("on actors" if parallel else "here"), n_batches) as advance:
            for batch in np.split(padded, n_batches):
                batches.append(session.run(["probabilities"], {"image": batch})[0])
                ends.append(time.perf_counter())
                advance()
        probabilities = np.concatenate(batches)[: len(images)]
        transfers = session.get_transfer_stats()
        return Outcome(
            probabilities, session.plan, transfers, opened - began, ends[0] - opened, ends[-1] - ends[0], n_batches
        )


def compare(one: Array, other: Array) -> Agreement:
    """Two arrays of probabilities [N, 10], bit by bit."""
    import numpy as np

    return Agreement(
        identical=one.tobytes() == other.tobytes(),
        largest_difference=float(np.abs(one - other).max()),
        same_digits=bool((one.argmax(axis=1) == other.argmax(axis=1)).all()),
    )


def _accuracy(outcome: Outcome, data: digits.Digits) -> float:
    return float((outcome.probabilities.argmax(axis=1) == data.labels).mean())


def _as_dict(data: digits.Digits, here: Outcome, actors: Outcome, agreement: Agreement) -> dict[str, Any]:
    def told(outcome: Outcome) -> dict[str, Any]:
        return {
            "accuracy": _accuracy(outcome, data),
            "open_s": outcome.open_s,
            "first_batch_s": outcome.first_s,
            "images_per_s": outcome.images_per_s(),
            "n_stages": len(outcome.plan.stages),
        }

    return {
        "n_images": len(data.labels),
        "in_process": told(here),
        "on_actors": {**told(actors), "plan": actors.plan.as_dict(), "transfers": actors.transfers},
        "identical": agreement.identical,
        "largest_difference": agreement.largest_difference,
        "same_digits": agreement.same_digits,
    }


def _show(data: digits.Digits, here: Outcome, actors: Outcome, agreement: Agreement) -> None:
    from distort.cli.plan import show
    from distort.scheduler.device import format_nbytes, format_us

    screen = console.Screen()
    read = actors.probabilities.argmax(axis=1)
    chosen = digits.examples(read, data.labels, _DRAWN)
    captions = [
        f"{read[i]} ({actors.probabilities[i, read[i]]:.0%})"
        + ("" if read[i] == data.labels[i] else f", is {data.labels[i]}")
        for i in chosen
    ]
    ascii_only = not console.drawable("░▒▓█", sys.stdout)
    for text in digits.draw([data.images[i, 0] for i in chosen], captions, screen.width, ascii_only):
        screen.line(text)
    screen.heading(f"{len(data.labels)} digits that training did not see, in batches of {_BATCH}")
    rows = [
        (
            name,
            str(len(outcome.plan.stages)),
            format_us(outcome.open_s * 1e6),
            format_us(outcome.first_s * 1e6),
            f"{outcome.images_per_s():.0f}",
            f"{_accuracy(outcome, data):.2%}",
        )
        for name, outcome in (("in this process", here), ("on two actors", actors))
    ]
    screen.table(("run", "stages", "start", "first batch", "digits/s", "accuracy"), rows, frozenset(range(1, 6)))
    screen.line()
    screen.line(agreement.text, "bold" if agreement.good else "bold red")
    moved = {
        (edge["value"], edge["producer"], edge["consumer"]): format_nbytes(edge["nbytes"] / edge["messages"])
        for edge in actors.transfers
        if edge["messages"]
    }
    show(screen, actors.plan, moved)
    screen.line()
    if actors.images_per_s() < here.images_per_s():
        screen.line(
            "A network this small gains nothing from actors: each call between processes costs more than it computes. "
            "`distort plan MODEL` tells where that is otherwise."
        )
    screen.line(f"Data: {data.source}")
