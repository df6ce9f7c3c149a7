"""What a run of a session on a GPU was fed and made: counted, and brought to the host where it isn't to stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from distort.kernels.cuda import copies
from distort.native.devices import any_on_gpu, on_gpu
from distort.native.values import OrtValue

if TYPE_CHECKING:
    from distort.engine import Engine
    from distort.loading import Loaded


def settle(
    engine: Engine, names: Sequence[str], feeds: Mapping[str, Any], results: Sequence[Any], keep: frozenset[str]
) -> list[Any]:
    """Results of a run: those of ``keep`` where they are, and nobody else's; others as arrays of this process."""
    types = engine.model.graph.types
    found = [_items_home(engine, name, value) for name, value in zip(names, results, strict=True)]
    home = [i for i, name in enumerate(names) if on_gpu(found[i]) and name not in keep]
    if home:
        engine.synchronize_pending()
        values = [OrtValue._of(found[i], types.get(names[i])) for i in home]
        for i in home:
            engine.copies.count(names[i], "d2h", int(found[i].nbytes))
            found[i] = None
        dtypes = [value._dtype() for value in values]
        arrays = copies.to_host([value._value for value in values], dtypes)
        while arrays:
            found[home.pop()] = arrays.pop()  # nothing but the list holds them: they are the caller's own
    seen = {id(value.data.mem) for value in feeds.values() if on_gpu(value)}
    for i, name in enumerate(names):
        if name in keep and on_gpu(found[i]):
            if id(found[i].data.mem) in seen:  # a feed itself, or another result
                engine.synchronize_pending()  # the copy is made in another stream than the run is in
                found[i] = copies.moved(found[i], int(found[i].device.id))
            seen.add(id(found[i].data.mem))
    return found


def _items_home(engine: Engine, name: str, value: Any) -> Any:
    """A sequence with its tensors as arrays of this process; other values as they are."""
    if not isinstance(value, (list, tuple)) or not any_on_gpu(value):
        return value
    engine.synchronize_pending()
    there = [item for item in value if on_gpu(item)]
    for item in there:
        engine.copies.count(name, copies.TO_HOST, int(item.nbytes))
    home = iter(copies.to_host(there, [item.dtype for item in there]))
    return [next(home) if on_gpu(item) else item for item in value]


def from_gpus(loaded: Loaded, feeds: Mapping[str, Any]) -> dict[str, Any]:
    """Feeds of a session that isn't on a GPU, with those that are brought here."""
    found = dict(feeds)
    for name, value in feeds.items():
        if on_gpu(value):
            engine = loaded.engine
            array = OrtValue._of(value, loaded.specs[name].type)._from_gpu()
            engine.copies.count(name, "d2h", array.nbytes)
            found[name] = array
    return found
