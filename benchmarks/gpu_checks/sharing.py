"""Memory shared with other libraries: IOBinding's five scenarios with nothing copied, addresses inside tensors, DLPack.

Tensors are torch's where it has the GPU, else CuPy's.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np

from gpu_checks import programs
from gpu_checks.arrays import Array, kind, random_of, to_host, torch_on
from gpu_checks.report import Report, Skipped
from gpu_checks.sketch import Sketch

_SHAPE = (64, 48)


def run(report: Report) -> None:
    theirs = _Torch() if _torch_has_a_gpu() else _CuPy()
    for what, check in {
        "scenario 1: input and output on the CPU": _first,
        "scenario 2: input on the GPU by address": _second,
        "scenario 3: both on the GPU by address": _third,
        "scenario 4: the run allocates the output": _fourth,
        "scenario 5: OrtValues on both sides": _fifth,
        "addresses inside tensors, guards around": _offsets,
        "an output is the next run's input": _loop,
        "a run in the caller's stream": _stream,
    }.items():
        with report.part(what):
            right, figure = check(theirs)
            report.judge(what, right, f"{figure} ({theirs.name})")
    for name in ("float32", "float16", "bfloat16", "int64", "int32", "uint8", "bool", "float64"):
        with report.part(f"DLPack with torch {name}"):
            report.judge(f"DLPack with torch {name}", *_with_torch(name))
    with report.part("DLPack with jax"):
        report.judge("DLPack with jax", *_with_jax())


def _torch_has_a_gpu() -> bool:
    if importlib.util.find_spec("torch") is None:
        return False
    torch, device = torch_on()
    del torch
    return device == "cuda"


class _Torch:
    name = "torch"

    def __init__(self) -> None:
        self._torch, _ = torch_on()

    def of(self, array: Array) -> Any:
        return self._torch.from_numpy(array).cuda()

    def address(self, tensor: Any) -> int:
        return int(tensor.data_ptr())

    def home(self, tensor: Any) -> Array:
        self._torch.cuda.synchronize()
        found: Array = tensor.cpu().numpy()
        return found

    def stream(self) -> tuple[Any, int]:
        made = self._torch.cuda.Stream()
        return made, int(made.cuda_stream)

    def in_stream(self, stream: Any) -> Any:
        return self._torch.cuda.stream(stream)

    def double(self, tensor: Any) -> None:
        """In the current stream, and not at once: behind work that takes a while."""
        busy = self._torch.ones((2048, 2048), device="cuda")
        for _ in range(20):
            busy = busy @ busy * 1e-4
        tensor.mul_(2)


class _CuPy:
    name = "CuPy"

    def __init__(self) -> None:
        import cupy

        self._cupy: Any = cupy

    def of(self, array: Array) -> Any:
        return self._cupy.asarray(array)

    def address(self, tensor: Any) -> int:
        return int(tensor.data.ptr)

    def home(self, tensor: Any) -> Array:
        return to_host(tensor, np.dtype(tensor.dtype))

    def stream(self) -> tuple[Any, int]:
        made = self._cupy.cuda.Stream(non_blocking=True)
        return made, int(made.ptr)

    def in_stream(self, stream: Any) -> Any:
        return stream

    def double(self, tensor: Any) -> None:
        tensor *= np.float32(2)


def _session(**options: Any) -> Any:
    made = Sketch()
    y = made.node("Mul", made.input("x", *_SHAPE), made.constant(np.arange(_SHAPE[1]), np.float32))
    return programs.session_of(made.model(y=(made.node("Relu", y), _SHAPE)), **options)


def _x(seed: int = 0) -> Array:
    return random_of(_SHAPE, np.dtype(np.float32), np.random.default_rng(seed))


def _want(x: Array) -> Array:
    return np.maximum(x * np.arange(_SHAPE[1], dtype=np.float32), 0)


def _crossed(session: Any) -> dict[tuple[str, str], int]:
    return {(row["value"], row["transport"]): row["nbytes"] for row in session.get_transfer_stats()}


def _on(array: Array) -> Any:
    import distort

    return distort.OrtValue.ortvalue_from_numpy(array, "cuda", 0)


def _outcome(session: Any, got: Array, want: Array, allowed: dict[tuple[str, str], int]) -> tuple[bool, str]:
    """Right, and that nothing but ``allowed`` has crossed."""
    crossed = _crossed(session)
    same = bool(np.array_equal(got, want))
    told = ", ".join(f"{value} {way} {nbytes} B" for (value, way), nbytes in crossed.items()) or "nothing crossed"
    return same and crossed == allowed, told if same else f"wrong results; {told}"


def _first(theirs: Any) -> tuple[bool, str]:
    session, x = _session(), _x()
    binding = session.io_binding()
    binding.bind_cpu_input("x", x)
    binding.bind_output("y")
    for _ in range(2):
        session.run_with_iobinding(binding)
    return _outcome(
        session, binding.copy_outputs_to_cpu()[0], _want(x), {("x", "h2d"): x.nbytes, ("y", "d2h"): 2 * x.nbytes}
    )


def _second(theirs: Any) -> tuple[bool, str]:
    session, x = _session(), _x()
    tensor = theirs.of(x)
    binding = session.io_binding()
    binding.bind_input("x", "cuda", 0, np.float32, _SHAPE, theirs.address(tensor))
    binding.bind_output("y")
    session.run_with_iobinding(binding)
    return _outcome(session, binding.copy_outputs_to_cpu()[0], _want(x), {("y", "d2h"): x.nbytes})


def _third(theirs: Any) -> tuple[bool, str]:
    session, x = _session(), _x()
    tensor, made = theirs.of(x), theirs.of(np.full(_SHAPE, np.nan, np.float32))
    binding = session.io_binding()
    binding.bind_input("x", "cuda", 0, np.float32, _SHAPE, theirs.address(tensor))
    binding.bind_output("y", "cuda", 0, np.float32, _SHAPE, theirs.address(made))
    for _ in range(5):
        session.run_with_iobinding(binding)
    return _outcome(session, theirs.home(made), _want(x), {})


def _fourth(theirs: Any) -> tuple[bool, str]:
    session, x = _session(), _x()
    tensor = theirs.of(x)
    binding = session.io_binding()
    binding.bind_input("x", "cuda", 0, np.float32, _SHAPE, theirs.address(tensor))
    binding.bind_output("y", "cuda")
    addresses = set()
    for _ in range(4):
        session.run_with_iobinding(binding)
        addresses.add(binding.get_outputs()[0].data_ptr())
    right, told = _outcome(session, binding.get_outputs()[0].numpy(), _want(x), {("y", "d2h"): x.nbytes})
    return right and len(addresses) == 1, f"{told}, {len(addresses)} address for 4 runs"


def _fifth(theirs: Any) -> tuple[bool, str]:
    session, x = _session(), _x()
    y = _on(np.full(_SHAPE, np.nan, np.float32))
    binding = session.io_binding()
    binding.bind_ortvalue_input("x", _on(x))
    binding.bind_ortvalue_output("y", y)
    session.run_with_iobinding(binding)
    crossed = _crossed(session)
    right, told = _outcome(session, y.numpy(), _want(x), _crossed(session))
    return right and not crossed, "nothing crossed in the run" if not crossed else told


def _offsets(theirs: Any) -> tuple[bool, str]:
    """Aligned to 4, 8, 16, 64 and 256 bytes: kernels may count on no more than there is."""
    session, n = _session(), int(np.prod(_SHAPE))
    binding = session.io_binding()
    wrong = []
    for seed, (skip_x, skip_y) in enumerate([(1, 0), (0, 1), (2, 3), (4, 2), (16, 1), (64, 64), (1, 1)]):
        x = _x(seed)
        source, made = np.full(n + 128, np.nan, np.float32), theirs.of(np.full(n + 128, -7, np.float32))
        source[skip_x : skip_x + n] = x.reshape(-1)
        tensor = theirs.of(source)
        binding.bind_input("x", "cuda", 0, np.float32, _SHAPE, theirs.address(tensor) + 4 * skip_x)
        binding.bind_output("y", "cuda", 0, np.float32, _SHAPE, theirs.address(made) + 4 * skip_y)
        session.run_with_iobinding(binding)
        whole = theirs.home(made)
        inside = np.array_equal(whole[skip_y : skip_y + n].reshape(_SHAPE), _want(x))
        if not inside or (whole[:skip_y] != -7).any() or (whole[skip_y + n :] != -7).any():
            wrong.append((skip_x, skip_y))
    crossed = _crossed(session)
    return (
        not wrong and not crossed,
        f"wrong at {wrong}" if wrong else f"7 pairs of offsets, crossed: {crossed or 'nothing'}",
    )


def _loop(theirs: Any) -> tuple[bool, str]:
    made = Sketch()
    s = made.input("s", 16)
    session = programs.session_of(made.model(t=(made.node("Add", s, s), (16,))))
    binding = session.io_binding()
    binding.bind_cpu_input("s", np.ones(16, np.float32))
    for _ in range(10):
        binding.bind_output("t", "cuda")
        session.run_with_iobinding(binding)
        binding.bind_ortvalue_input("s", binding.get_outputs()[0])
    crossed = _crossed(session)
    right = binding.copy_outputs_to_cpu()[0].tolist() == [1024.0] * 16
    return right and crossed == {("s", "h2d"): 64}, f"crossed in 10 runs: {crossed}"


def _stream(theirs: Any) -> tuple[bool, str]:
    """The session's run comes after work that was given to the same stream, and before what is given it later."""
    stream, address = theirs.stream()
    session, x = _session(user_compute_stream=address), _x()
    with theirs.in_stream(stream):
        tensor, made = theirs.of(x), theirs.of(np.full(_SHAPE, np.nan, np.float32))
        binding = session.io_binding()
        binding.bind_input("x", "cuda", 0, np.float32, _SHAPE, theirs.address(tensor))
        binding.bind_output("y", "cuda", 0, np.float32, _SHAPE, theirs.address(made))
        theirs.double(tensor)
        session.run_with_iobinding(binding)
        got = theirs.home(made)
    return _outcome(session, got, _want(2 * x), {})


# -- DLPack


def _with_torch(name: str) -> tuple[bool, str]:
    """Both ways, each seeing what the other writes."""
    import distort

    torch, device = torch_on()
    if device != "cuda":
        raise Skipped("torch has no GPU here")
    array = random_of((5, 7), kind(name), np.random.default_rng(1))
    value = _on(array)
    tensor = torch.from_dlpack(value)
    if tensor.data_ptr() != value.data_ptr() or str(tensor.dtype) != f"torch.{name}":
        return False, f"torch has {tensor.dtype} at another address"
    tensor[0] = 3 if name != "bool" else True
    torch.cuda.synchronize()
    array[0] = 3 if name != "bool" else True
    if value.numpy().tobytes() != array.tobytes():
        return False, "what torch wrote isn't seen"
    back = distort.OrtValue.from_dlpack(tensor)
    same = back.data_ptr() == tensor.data_ptr() and back.numpy().tobytes() == array.tobytes()
    return same and back.data_type() == value.data_type(), f"{back.data_type()}, shared both ways"


def _with_jax() -> tuple[bool, str]:
    import os

    import distort

    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if importlib.util.find_spec("jax") is None:
        raise Skipped("jax isn't installed")
    import jax

    if jax.default_backend() != "gpu":
        raise Skipped(f"jax is on {jax.default_backend()}")
    array = _x()
    taken = jax.dlpack.from_dlpack(_on(array))
    doubled = (taken * 2).block_until_ready()
    value = distort.OrtValue.from_dlpack(doubled)
    return bool(np.array_equal(value.numpy(), 2 * array)), "taken and given back"
