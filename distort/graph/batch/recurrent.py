"""LSTM, GRU and RNN: samples lie along axis 1 of the input and of the states, along axis 0 with ``layout`` 1."""

from __future__ import annotations

from collections.abc import Sequence

from .rules import Site, rule
from .values import Tensor, Value


@rule("LSTM", "GRU", "RNN", samples=(0, 4, 5, 6))
def recurrent(site: Site) -> Sequence[Value]:
    value, weights = site.tensor(), site.tensor(2)  # weights R: [directions, gates * H, H]
    by_sample = bool(site.attribute("layout", 0))
    place, state_place = (0, 0) if by_sample else (1, 1)
    if value.rank != 3:
        site.refuse("its input doesn't have three dimensions")
    directions = 2 if site.attribute("direction", "forward") == "bidirectional" else 1
    hidden = site.attribute("hidden_size") or (weights.dims[-1] if weights.shape is not None else None)
    length, count = (value.dims[1], value.dims[0]) if by_sample else (value.dims[0], value.dims[1])
    if value.axis is not None and value.axis != place:
        site.refuse("it recurs along the batch axis, or adds up over it")
    for position, where, what in ((4, 0, "lengths"), (5, state_place, "state"), (6, state_place, "cell state")):
        given = site.optional(position)
        if given is None:
            continue
        if value.axis is None and given.axis is None:
            continue
        if value.axis is None or given.axis != where or given.rows != value.rows:
            site.refuse(f"its initial {what} or its input isn't made of the same samples")
    batched = value.axis is not None
    if by_sample:
        every = Tensor((count, length, directions, hidden), 0 if batched else None)
        last = Tensor((count, directions, hidden), 0 if batched else None)
    else:
        every = Tensor((length, directions, count, hidden), 2 if batched else None)
        last = Tensor((directions, count, hidden), 1 if batched else None)
    return [every, last, last][: len(site.node.outputs)]
