"""A decoder whose state stays where it is: tokens over two actors, with the KV cache bound by IOBinding.

    python benchmarks/residency.py --model DIR [--tokens 64] [--rounds 5] [--quick]

DIR holds model.onnx with inputs.npz (llama_kv is the one meant): inputs ``past.…`` and outputs ``present.…``, which are
bound and fed back. One loop, written for onnxruntime, decodes greedily with each side in turn: distort on two actors of
one thread, distort in this process, onnxruntime. Printed: milliseconds a token (medians), and the bytes that crossed a
token, by edge, as ``get_transfer_stats()`` counts them. It fails where a byte of the state crosses, or where the sides
decode different tokens. Every process has one BLAS thread (OMP_NUM_THREADS=1, set below).
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import argparse
import statistics
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from side_by_side import load_feeds, open_rival, open_session, print_machine, print_table


def decode(runtime: Any, session: Any, feeds: dict[str, np.ndarray], n_tokens: int) -> tuple[list[int], float]:
    """Tokens, and the seconds that they took after the first, which brings the state to where it stays."""
    state = {name: runtime.OrtValue.ortvalue_from_numpy(feeds[name]) for name in feeds if name.startswith("past.")}
    outputs = [output.name for output in session.get_outputs()]
    ids, mask, position = feeds["input_ids"], feeds["attention_mask"], feeds["position_ids"]
    tokens: list[int] = []
    begin = time.perf_counter()
    for step in range(n_tokens + 1):
        if step == 1:
            begin = time.perf_counter()
        binding = session.io_binding()
        for name, value in (("input_ids", ids), ("attention_mask", mask), ("position_ids", position)):
            binding.bind_cpu_input(name, value)
        for name, value in state.items():
            binding.bind_ortvalue_input(name, value)
        for name in outputs:
            binding.bind_output(name, "cpu")
        session.run_with_iobinding(binding)
        found = dict(zip(outputs, binding.get_outputs(), strict=True))
        state = {name: found[name.replace("past.", "present.")] for name in state}
        token = int(found["logits"].numpy()[0, -1].argmax())
        tokens.append(token)
        ids = np.array([[token]], ids.dtype)
        mask = np.concatenate([mask, np.ones((1, 1), mask.dtype)], axis=1)
        position = position[:, -1:] + 1
    return tokens, time.perf_counter() - begin


def crossings(session: Any) -> dict[tuple[str, int, int], int]:
    return {(e["value"], e["producer"], e["consumer"]): e["nbytes"] for e in session.get_transfer_stats()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a folder with model.onnx and inputs.npz")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one short round: to see that it works")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.tokens, arguments.rounds = min(arguments.tokens, 8), 1
    import distort

    print_machine()
    path, feeds = str(arguments.model / "model.onnx"), load_feeds(arguments.model)
    with ExitStack() as stack:
        actors = stack.enter_context(open_session(path, actors=2))
        here = stack.enter_context(open_session(path))
        sides: dict[str, tuple[Any, Any]] = {
            "distort, 2 actors": (distort, actors),
            "distort, this process": (distort, here),
        }
        rival = open_rival(path)
        if rival is not None:
            import onnxruntime

            sides["onnxruntime, this process"] = (onnxruntime, rival)
        decoded = {name: decode(*side, feeds, 2)[0] for name, side in sides.items()}  # warm
        assert len({tuple(tokens) for tokens in decoded.values()}) == 1, decoded
        times: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(arguments.rounds):
            for name, side in sides.items():
                decoded[name], seconds = decode(*side, feeds, arguments.tokens)
                times[name].append(seconds / arguments.tokens * 1e3)
        assert len({tuple(tokens) for tokens in decoded.values()}) == 1, decoded
        before = crossings(actors)
        decode(distort, actors, feeds, 1)
        first = crossings(actors)
        decode(distort, actors, feeds, 1 + arguments.tokens)
        after = crossings(actors)
        n_stages = len(actors.plan.stages)
    # two decodings that differ by so many tokens: what both do once goes out of the difference
    a_token = {
        edge: ((after[edge] - first.get(edge, 0)) - (first.get(edge, 0) - before.get(edge, 0))) / arguments.tokens
        for edge in after
    }
    ms = {name: statistics.median(of) for name, of in times.items()}
    one = ms["distort, this process"]
    print_table(
        ("side", "ms a token", "÷ distort in this process"),
        [(name, f"{of:.2f}", f"{of / one:.2f}") for name, of in ms.items()],
    )
    print(f"\n{arguments.tokens} tokens, {n_stages} stages; the sides decode the same ones\n")
    rows = [
        (value, end_name(producer), end_name(consumer), f"{nbytes:,.0f}")
        for (value, producer, consumer), nbytes in a_token.items()
        if nbytes > 0
    ]
    print_table(("value", "from", "to", "bytes a token"), rows)
    state = {edge: nbytes for edge, nbytes in a_token.items() if edge[0].startswith(("past.", "present."))}
    moved = {edge: nbytes for edge, nbytes in state.items() if nbytes}
    assert not moved, f"the state moved: {moved}"
    kept = sum(value.nbytes for name, value in feeds.items() if name.startswith("past."))
    print(f"\nthe state stayed: {kept:,} bytes of it at the start, none of which crossed again")


def end_name(stage: int) -> str:
    return "caller" if stage < 0 else f"stage{stage}"


if __name__ == "__main__":
    main()
