"""The Python frontend of cuDNN, as much as is used: graphs are checked as cuDNN checks them, and computed by NumPy.

Addresses are of host memory. Tensors have no number until they are given one, results no dimensions that the caller may
leave to cuDNN; a result whose dimensions don't follow from the graph is refused. There are always the same plans.
"""

from __future__ import annotations

import enum
import sys
from typing import Any, NamedTuple

from . import arithmetic
from .arithmetic import Tensor

__version__ = "1.18.0"


def _enum(name: str, members: str) -> Any:
    return enum.Enum(name, members)


data_type = _enum("data_type", "NOT_SET FLOAT DOUBLE HALF BFLOAT16 INT32 INT64 BOOLEAN")
heur_mode = _enum("heur_mode", "A B FALLBACK OPENSOURCE")
numerical_note = _enum("numerical_note", "TENSOR_CORE DOWN_CONVERT_INPUTS REDUCED_PRECISION_REDUCTION NONDETERMINISTIC")
diagonal_alignment = _enum("diagonal_alignment", "TOP_LEFT BOTTOM_RIGHT")


class cudnnGraphNotSupportedError(Exception):  # its name in the frontend
    pass


class Plan(NamedTuple):
    workspace_nbytes: int
    notes: tuple[Any, ...] = ()
    builds: bool = True


#: what heuristics always say
PLANS = (
    Plan(4096, (numerical_note.TENSOR_CORE,)),
    Plan(64 << 20),
    Plan(0, builds=False),
    Plan(1024),
    Plan(0, (numerical_note.DOWN_CONVERT_INPUTS,)),
)
#: what tensors are aligned to, unless they say otherwise
_ALIGNMENT_NBYTES = 16
#: called with each graph that heuristics are asked about: why there is no engine for it, or ""
decline: Any = None
#: plans that were executed: (number, stream)
executed: list[tuple[int, int]] = []
#: handles that are not destroyed
handles: dict[Handle, int] = {}


class Handle:
    """Which no number stands for."""


def create_handle() -> Handle:
    fake = sys.modules.get("cupy.fake")
    if fake is not None:
        fake.touch()
    handle = Handle()
    handles[handle] = 0
    return handle


def destroy_handle(handle: Handle) -> None:
    del handles[handle]


def set_stream(handle: Handle, stream: int) -> None:
    if not isinstance(handle, Handle):
        raise TypeError(f"cudnn.set_stream expects a cudnn.Handle, got {type(handle).__name__}")
    if handle not in handles:
        raise RuntimeError("CUDNN_STATUS_BAD_PARAM")
    handles[handle] = stream


def backend_version() -> int:
    return 90800


class pygraph:
    def __init__(
        self,
        name: str = "",
        io_data_type: Any = data_type.NOT_SET,
        intermediate_data_type: Any = data_type.NOT_SET,
        compute_data_type: Any = data_type.NOT_SET,
        handle: Any = None,
    ) -> None:
        self._io, self._intermediate, self._compute = io_data_type, intermediate_data_type, compute_data_type
        self._handle = handle
        self._tensors: list[Tensor] = []
        self._steps: list[arithmetic.Step] = []
        self._state = "new"
        self._barred: set[int] = set()
        self._built: set[int] = set()
        self._chosen = -1

    # -- building

    def tensor(self, dim: list[int], stride: list[int], data_type: Any, name: str = "", uid: int = -1) -> Tensor:
        made = Tensor(name, dim, stride, data_type, virtual=False)
        if uid >= 0:
            made.set_uid(uid)
        self._tensors.append(made)
        return made

    def _step(self, op: str, inputs: dict[str, Tensor], **attributes: Any) -> Tensor:
        for tensor in inputs.values():
            if not any(tensor is known for known in self._tensors):
                raise ValueError("a tensor of another graph")
        made = Tensor(f"{op}::out", [], [], None, virtual=True)
        self._tensors.append(made)
        self._steps.append(arithmetic.Step(op, inputs, made, attributes))
        return made

    def conv_fprop(
        self,
        image: Tensor,
        weight: Tensor,
        pre_padding: list[int],
        post_padding: list[int],
        stride: list[int],
        dilation: list[int],
    ) -> Tensor:
        windows = {"begins": pre_padding, "ends": post_padding, "steps": stride, "dilations": dilation}
        return self._step("conv_fprop", {"x": image, "w": weight}, **windows)

    def conv_dgrad(
        self,
        loss: Tensor,
        filter: Tensor,
        pre_padding: list[int],
        post_padding: list[int],
        stride: list[int],
        dilation: list[int],
    ) -> Tensor:
        windows = {"begins": pre_padding, "ends": post_padding, "steps": stride, "dilations": dilation}
        return self._step("conv_dgrad", {"x": loss, "w": filter}, **windows)

    def add(self, a: Tensor, b: Tensor) -> Tensor:
        return self._step("add", {"a": a, "b": b})

    def bias(self, input: Tensor, bias: Tensor) -> Tensor:
        return self._step("add", {"a": input, "b": bias})

    def relu(self, input: Tensor, lower_clip: float | None = None, upper_clip: float | None = None) -> Tensor:
        return self._step("relu", {"a": input}, low=lower_clip or 0.0, high=upper_clip)

    def leaky_relu(self, input: Tensor, negative_slope: float) -> Tensor:
        return self._step("leaky_relu", {"a": input}, slope=negative_slope)

    def sigmoid(self, input: Tensor) -> Tensor:
        return self._step("sigmoid", {"a": input})

    def tanh(self, input: Tensor) -> Tensor:
        return self._step("tanh", {"a": input})

    def swish(self, input: Tensor, swish_beta: float | None = None) -> Tensor:
        return self._step("swish", {"a": input}, beta=1.0 if swish_beta is None else swish_beta)

    def sdpa(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        attn_scale: float | None = None,
        bias: Tensor | None = None,
        use_padding_mask: bool = False,
        seq_len_q: Tensor | None = None,
        seq_len_kv: Tensor | None = None,
        diagonal_alignment: Any = diagonal_alignment.TOP_LEFT,
        diagonal_band_right_bound: int | None = None,
        name: str = "",
        generate_stats: bool | None = None,
    ) -> tuple[Tensor, None]:
        if generate_stats is None:
            raise ValueError("is_inference or generate_stats must be given")
        if use_padding_mask != (seq_len_q is not None) or use_padding_mask != (seq_len_kv is not None):
            raise ValueError("a padding mask goes with both lengths")
        inputs = {"q": q, "k": k, "v": v, "bias": bias, "n_queries": seq_len_q, "n_keys": seq_len_kv}
        given = {name: tensor for name, tensor in inputs.items() if tensor is not None}
        last = diagonal_alignment.name == "BOTTOM_RIGHT"
        made = self._step("sdpa", given, scale=attn_scale, right=diagonal_band_right_bound, last=last)
        return made, None

    # -- planning

    def validate(self) -> None:
        for step in self._steps:
            dim = arithmetic.dimensions(step)
            if not step.out.dim:
                step.out.dim = dim
            if step.out.dim != dim:
                raise RuntimeError(f"CUDNN_STATUS_BAD_PARAM: {step.op} makes {dim}, not {step.out.dim}")
            if step.out.virtual:
                step.out.stride = step.out.stride or arithmetic.row_major(dim)
                step.out.data_type = step.out.data_type or self._intermediate
        outputs = [t for t in self._tensors if t.is_output]
        if not outputs:
            raise RuntimeError("a graph without outputs")
        for tensor in self._tensors:
            arithmetic.check(tensor)
        self._state = "validated"

    def build_operation_graph(self) -> None:
        self._wants("validated")
        if self._handle not in handles:
            raise RuntimeError("a handle is needed")
        self._state = "operations"

    def create_execution_plans(self, modes: list[Any]) -> None:
        self._wants("operations")
        if not modes or any(not isinstance(mode, heur_mode) for mode in modes):
            raise RuntimeError("no heuristics are asked")
        reason = decline(self) if decline is not None else ""
        if reason:
            raise cudnnGraphNotSupportedError(reason)
        self._state = "planned"

    def deselect_numeric_notes(self, notes: list[Any]) -> None:
        self._wants("planned")
        self._barred |= {i for i, plan in enumerate(PLANS) if any(note in plan.notes for note in notes)}

    def deselect_workspace_greater_than(self, nbytes: int) -> None:
        self._wants("planned")
        self._barred |= {i for i, plan in enumerate(PLANS) if plan.workspace_nbytes > nbytes}

    def check_support(self) -> None:
        self._wants("planned")
        if not any(plan.builds for i, plan in enumerate(PLANS) if i not in self._barred):
            raise cudnnGraphNotSupportedError("no plan is left")

    def build_plans(self) -> None:
        self.check_support()
        self._chosen = next(i for i, plan in enumerate(PLANS) if plan.builds and i not in self._barred)
        self._built.add(self._chosen)

    def get_execution_plan_count(self) -> int:
        self._wants("planned")
        return len(PLANS)

    def build_plan_at_index(self, index: int) -> None:
        self._wants("planned")
        if index in self._barred or not PLANS[index].builds:
            raise cudnnGraphNotSupportedError(f"plan {index} can't be built")
        self._built.add(index)
        self._chosen = index

    def get_workspace_size(self) -> int:
        return self.get_workspace_size_plan_at_index(self._chosen)

    def get_workspace_size_plan_at_index(self, index: int) -> int:
        if index not in self._built:
            raise RuntimeError(f"plan {index} is not built")
        return PLANS[index].workspace_nbytes

    def _wants(self, state: str) -> None:
        if self._state != state:
            raise RuntimeError(f"the graph is {self._state}, not {state}")

    # -- running

    def execute(self, pack: dict[int, int], workspace: int, handle: Handle) -> None:
        self.execute_plan_at_index(pack, workspace, self._chosen, handle)

    def execute_plan_at_index(self, pack: dict[int, int], workspace: int, index: int, handle: Handle) -> None:
        if index not in self._built:
            raise RuntimeError(f"plan {index} is not built")
        nbytes = PLANS[index].workspace_nbytes
        if nbytes and (type(workspace) is not int or not workspace):
            raise RuntimeError("CUDNN_STATUS_BAD_PARAM: a workspace is needed")
        given = [t for t in self._tensors if not t.virtual]
        wanted = [t.uid for t in given]
        if 0 in wanted or len(set(wanted)) != len(wanted):
            raise RuntimeError(f"tensors want numbers of their own: {wanted}")
        addresses = dict(pack)
        for tensor in given:
            address = addresses.get(tensor.uid)
            if type(address) is not int or not address or address % _ALIGNMENT_NBYTES:
                raise RuntimeError(f"CUDNN_STATUS_BAD_PARAM: no good address for {tensor.name}: {address}")
        stream = handles[handle]

        def work() -> None:
            executed.append((index, stream))
            arithmetic.scribble(workspace, nbytes)
            arithmetic.compute(self._steps, addresses)

        # with CuPy's streams, work is done when these come to it
        fake = sys.modules.get("cupy.fake")
        if fake is not None:
            fake.enqueue(stream, work)
        else:
            work()
