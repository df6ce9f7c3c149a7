"""IOBinding, and sparse tensors as feeds and results."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from .rows_feeds import dimensions, unhandled
from .table import SQUARES, Env, Fails, Section, f32, i64

B = Section('IOBinding: the five seed scenarios with device "cpu"', parallel=True)


@B.probe("1 bind_cpu_input + bind_output('Y') + copy_outputs_to_cpu()[0]", [SQUARES])
def _(ort: Any, env: Env) -> object:
    session = env.session(env.mul)
    binding = session.io_binding()
    binding.bind_cpu_input("X", env.x)
    binding.bind_output("Y")
    session.run_with_iobinding(binding)
    return binding.copy_outputs_to_cpu()


@B.probe("2 input on device via bind_input(name,device,id,type,shape,ptr)", SQUARES)
def _(ort: Any, env: Env) -> object:
    value = env.value(env.x)
    return by_address(env, np.float32, value)


def by_address(env: Env, element_type: object, value: Any) -> object:
    session = env.session(env.mul)
    binding = session.io_binding()
    binding.bind_input("X", value.device_name(), 0, element_type, value.shape(), value.data_ptr())
    binding.bind_output("Y")
    session.run_with_iobinding(binding)
    return binding.copy_outputs_to_cpu()[0]


@B.probe("3 preallocated output buffer; result is in Y; get_outputs()[0] is that buffer", (SQUARES, True))
def _(ort: Any, env: Env) -> object:
    y = env.value(np.zeros((3, 2), np.float32))
    session, binding = bound(env, env.mul, X=env.x)
    binding.bind_output("Y", y.device_name(), 0, np.float32, y.shape(), y.data_ptr())
    session.run_with_iobinding(binding)
    return y.numpy(), binding.get_outputs()[0].data_ptr() == y.data_ptr()


def bound(env: Env, model: bytes, *outputs: str, **inputs: np.ndarray[Any, Any]) -> tuple[Any, Any]:
    """A session, and a binding of it with inputs, and outputs that a run allocates."""
    session = env.session(model)
    binding = session.io_binding()
    for name, array in inputs.items():
        binding.bind_cpu_input(name, array)
    for name in outputs:
        binding.bind_output(name)
    return session, binding


def results(session: Any, binding: Any) -> list[Any]:
    session.run_with_iobinding(binding)
    return binding.copy_outputs_to_cpu()


@B.probe("4 bind_output(name,device) unallocated; get_outputs()[0]", ("cpu", SQUARES))
def _(ort: Any, env: Env) -> object:
    session, binding = bound(env, env.mul, X=env.x)
    binding.bind_output("Y", "cpu")
    session.run_with_iobinding(binding)
    (value,) = binding.get_outputs()
    return value.device_name(), value.numpy()


@B.probe("5 bind_ortvalue_input / bind_ortvalue_output", SQUARES)
def _(ort: Any, env: Env) -> object:
    x, y = env.value(env.x), env.value(np.zeros((3, 2), np.float32))
    session = env.session(env.mul)
    binding = session.io_binding()
    binding.bind_ortvalue_input("X", x)
    binding.bind_ortvalue_output("Y", y)
    session.run_with_iobinding(binding)
    return y.numpy()


D = Section("IOBinding: errors and details", parallel=True)


def execution(text: str) -> Fails:
    return Fails("RuntimeError", f"Error in execution: {text}")


MISSING = execution(
    "Non-zero status code returned while running Mul node. Name:'mul_1' Status Message: …Missing Input: X"
)
D.row(
    "bind_cpu_input unknown name",
    lambda ort, env: bound(env, env.mul, Q=env.x),
    Fails("RuntimeError", "Failed to find NodeArg with name: Q in the def list"),
)
D.row(
    "bind_output unknown name",
    lambda ort, env: results(*bound(env, env.mul, "Q", X=env.x)),
    execution("Invalid output name: Q"),
)
D.row("no input bound", lambda ort, env: results(*bound(env, env.mul, "Y")), MISSING)
D.row(
    "no output bound",
    lambda ort, env: results(*bound(env, env.mul, X=env.x)),
    execution("At least one output should be requested."),
)
D.row(
    "bind_cpu_input wrong dtype",
    lambda ort, env: results(*bound(env, env.mul, "Y", X=env.x.astype(float))),
    execution("Unexpected input data type. Actual: (tensor(double)) , expected: (tensor(float))"),
)
D.row(
    "bind_cpu_input wrong shape",
    lambda ort, env: results(*bound(env, env.mul, "Y", X=env.x[:1])),
    execution(dimensions((0, 1, 3))),
)
D.row(
    "bind_cpu_input(list)",
    lambda ort, env: env.session(env.mul).io_binding().bind_cpu_input("X", [[1.0, 2.0]]),
    Fails("RuntimeError", "Unable to create OrtValue from the given python object"),
)
D.row(
    "bind_cpu_input non-contiguous",
    lambda ort, env: results(*bound(env, env.mul, "Y", X=env.x[:, ::-1])),
    [f32([[2, 2], [12, 12], [30, 30]])],
)
D.row(
    "bind_cpu_input string array (string model)",
    lambda ort, env: bound(env, env.identity(TensorProto.STRING), "y", x=np.array(["a"])),
    Fails("RuntimeError", "Only binding non-string Tensors is currently supported"),
)


def into(env: Env, model: bytes, y: np.ndarray[Any, Any]) -> object:
    """What a run writes into an output buffer of a shape."""
    inputs = {"X" if b"mul_1" in model else "x": env.x}
    session, binding = bound(env, model, **inputs)
    binding.bind_ortvalue_output("Y" if b"mul_1" in model else "y", env.value(y))
    session.run_with_iobinding(binding)
    return binding.get_outputs()[0].shape(), y


def output_dimensions(*wrong: tuple[int, int, int]) -> Fails:
    return execution(dimensions(*wrong, name="Y").replace("for input: Y", "for output: Y"))


for _call, _shape, _wrong in (
    ("preallocated output, wrong dim [2,2]", (2, 2), [(0, 2, 3)]),
    ("preallocated output, same size other shape [2,3]", (2, 3), [(0, 2, 3), (1, 3, 2)]),
    ("preallocated output, bigger [4,2]", (4, 2), [(0, 4, 3)]),
):
    D.row(_call, lambda ort, env, s=_shape: into(env, env.mul, np.zeros(s, np.float32)), output_dimensions(*_wrong))
D.row(
    "preallocated output, wrong dtype float64",
    lambda ort, env: into(env, env.mul, np.zeros((3, 2))),
    execution("Unexpected output data type. Actual: (tensor(double)) , expected: (tensor(float))"),
)
D.row(
    "dynamic-shape model: preallocated [3,2]",
    lambda ort, env: into(env, env.relu, np.zeros((3, 2), np.float32)),
    ([3, 2], f32([[1, 2], [3, 4], [5, 6]])),
)


def provided(has: str, computed: str) -> Fails:
    return execution(
        "Non-zero status code returned while running Relu node. Name:'' Status Message: …The output OrtValue provided "
        f"for output 'y' of node '' (Relu) has shape {has} but the computed output shape for this run is {computed}. "
        "When calling Run() with pre-allocated output OrtValues on a model with dynamic output shapes, either supply "
        "unallocated output OrtValues or ensure the pre-allocated shapes match the expected output shapes for each run."
    )


D.row(
    "dynamic-shape model: preallocated [5,2] for a [3,2] result",
    lambda ort, env: into(env, env.relu, np.zeros((5, 2), np.float32)),
    provided("{5,2}", "{3,2}"),
)
D.row(
    "dynamic-shape model: preallocated [1,2]",
    lambda ort, env: into(env, env.relu, np.zeros((1, 2), np.float32)),
    provided("{1,2}", "{3,2}"),
)
D.row(
    "bind_output buffer_ptr without shape",
    lambda ort, env: env.session(env.mul).io_binding().bind_output("Y", buffer_ptr=1234),
    Fails("ValueError", "`element_type` and `shape` are to be provided if pre-allocated memory is provided"),
)
D.row(
    "bind_output(device 'cuda')",
    lambda ort, env: env.session(env.mul).io_binding().bind_output("Y", "cuda"),
    None,
)
D.row(
    "bind_input element_type as int (TensorProto.FLOAT)",
    lambda ort, env: by_address(env, TensorProto.FLOAT, env.value(env.x)),
    SQUARES,
)
D.row(
    "bind_input element_type 'float32' str / np.dtype",
    lambda ort, env: [by_address(env, kind, env.value(env.x)) for kind in ("float32", np.dtype(np.float32))],
    [SQUARES, SQUARES],
)
D.row(
    "bind_ortvalue_input(ndarray)",
    lambda ort, env: env.session(env.mul).io_binding().bind_ortvalue_input("X", env.x),
    Fails("AttributeError", "'numpy.ndarray' object has no attribute '…'"),
)


@D.probe("binding of another session", Fails("ValueError", "IOBinding must be used with the session that created it."))
def _(ort: Any, env: Env) -> object:
    _session, binding = bound(env, env.mul, "Y", X=env.x)
    return env.session(env.mul).run_with_iobinding(binding)


@D.probe("IOBinding(session) constructor", "IOBinding")
def _(ort: Any, env: Env) -> object:
    session = env.session(env.mul)
    return type(ort.IOBinding(session)).__name__


@D.probe(
    "rerun sees in-place change of bound numpy input; earlier copy_outputs_to_cpu result is independent",
    (f32([[1, 2], [3, 4], [5, 6]]), np.zeros((3, 2), np.float32)),
)
def _(ort: Any, env: Env) -> object:
    x = env.x
    session, binding = bound(env, env.relu, "y", x=x)
    first = results(session, binding)[0].copy()
    x[...] = -1
    return first, results(session, binding)[0]


@D.probe(
    "rerun with an unallocated bound output reuses the same buffer?",
    (True, True),
    on_actors=(
        Fails("RuntimeError", "The value lies in the memory of an actor; numpy() fetches it."),
        "a value that stays on an actor has no address here",
    ),
)
def _(ort: Any, env: Env) -> object:
    session, binding = bound(env, env.relu, "y", x=env.x)
    session.run_with_iobinding(binding)
    first = binding.get_outputs()[0]
    session.run_with_iobinding(binding)
    again = binding.get_outputs()[0]
    return first.data_ptr() == again.data_ptr(), bool((again.numpy() == env.x).all())


@D.probe("rerun with different dynamic size without rebinding the output", provided("{2,2}", "{5,2}"))
def _(ort: Any, env: Env) -> object:
    session, binding = bound(env, env.relu, "y", x=env.x[:2])
    session.run_with_iobinding(binding)
    binding.bind_cpu_input("x", np.ones((5, 2), np.float32))
    return results(session, binding)


@D.probe("rebinding same input name replaces", np.float32(0))
def _(ort: Any, env: Env) -> object:
    session, binding = bound(env, env.mul, "Y", X=env.x)
    binding.bind_cpu_input("X", np.zeros((3, 2), np.float32))
    return results(session, binding)[0].sum()


@D.probe("clear_binding_inputs(); run", MISSING)
def _(ort: Any, env: Env) -> object:
    session, binding = bound(env, env.mul, "Y", X=env.x)
    binding.clear_binding_inputs()
    return results(session, binding)


@D.probe("clear_binding_outputs(); run; get_outputs", execution("At least one output should be requested."))
def _(ort: Any, env: Env) -> object:
    session, binding = bound(env, env.mul, "Y", X=env.x)
    binding.clear_binding_outputs()
    return results(session, binding)


@D.probe("synchronize_inputs/outputs", (None, None))
def _(ort: Any, env: Env) -> object:
    _session, binding = bound(env, env.mul, "Y", X=env.x)
    return binding.synchronize_inputs(), binding.synchronize_outputs()


BINDING = "s = ort.InferenceSession(mul); b = s.io_binding(); b.bind_cpu_input('X', x)\n"
D.row(
    "get_outputs() before a run (subprocess)",
    lambda ort, env: env.python(BINDING + "b.bind_output('Y'); print([type(v).__name__ for v in b.get_outputs()])"),
    "exit 0 ['OrtValue']",
    parallel=False,
)
D.row(
    "copy_outputs_to_cpu() before a run (subprocess)",
    lambda ort, env: env.python(BINDING + "b.bind_output('Y'); b.copy_outputs_to_cpu()"),
    "exit -11",
    ours="exit 1 …Error: …",
    why="an error, not the end of the process",
    parallel=False,
)
D.row(
    "get_outputs() with nothing bound (subprocess)",
    lambda ort, env: env.python(BINDING + "print(b.get_outputs(), b.copy_outputs_to_cpu())"),
    "exit 0 [] []",
    parallel=False,
)
D.row(
    "session used in the child of os.fork() (subprocess)",
    lambda ort, env: env.python(
        "import os, warnings; warnings.simplefilter('ignore')\n"
        "s = ort.InferenceSession(mul); s.run(None, {'X': x})\n"
        "pid = os.fork()\n"
        "if pid == 0: os._exit(7 if s.run(None, {'X': x})[0][2, 1] == 36 else 8)\n"
        "print('child status', os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))"
    ),
    "exit 0 child status 7",
    parallel=False,
)


@D.probe("order of get_outputs = order of bind_output calls", [f32([1, 2]), f32([0, 2])])
def _(ort: Any, env: Env) -> object:
    model = env.model("g (float[2] x) => (float[2] y, float[2] z) { y = Relu(x) z = Abs(x) }")
    return results(*bound(env, model, "z", "y", x=f32([-1, 2])))


@D.probe("sequence output through iobinding copy_outputs_to_cpu", [[i64([1]), i64([1])]])
def _(ort: Any, env: Env) -> object:
    proto = env.proto("g (int64[1] a) => (s) { s = SequenceConstruct(a, a) }")
    element = helper.make_tensor_type_proto(TensorProto.INT64, None)
    proto.graph.output[0].type.CopyFrom(helper.make_sequence_type_proto(element))
    return results(*bound(env, proto.SerializeToString(), "s", a=i64([1])))


@D.probe("get_outputs_as_ortvaluevector type", "OrtValueVector")
def _(ort: Any, env: Env) -> object:
    session, binding = bound(env, env.mul, "Y", X=env.x)
    session.run_with_iobinding(binding)
    return type(binding.get_outputs_as_ortvaluevector()).__name__


@D.probe("run_with_iobinding(io, RunOptions)", None)
def _(ort: Any, env: Env) -> object:
    session, binding = bound(env, env.mul, "Y", X=env.x)
    return session.run_with_iobinding(binding, ort.RunOptions())


D.row(
    "session.create_ortvalue_from_shape_and_type([2],np.float32,'cpu')",
    lambda ort, env: env.session(env.mul).create_ortvalue_from_shape_and_type([2], np.float32, "cpu").shape(),
    [2],
)
D.row("session.release_captured_graph(0)", lambda ort, env: env.session(env.mul).release_captured_graph(0), None)

P = Section("sparse inputs and outputs", parallel=True)


def sparse_matmul(env: Env) -> bytes:
    node = helper.make_node(
        "SparseToDenseMatMul", ["sparse_A", "dense_B"], ["dense_Y"], name="SpMM", domain="com.microsoft"
    )
    sparse = helper.make_sparse_tensor_value_info("sparse_A", TensorProto.FLOAT, [9, 9])
    dense, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [9, 9]) for name in ("dense_B", "dense_Y"))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    graph = helper.make_graph([node], "g", [sparse, dense], [y])
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def sparse_output(env: Env) -> bytes:
    """w, a sparse initializer of three values in a [3,3]."""
    values = numpy_helper.from_array(f32([1.5, 0.5, 2.5]), "w")
    sparse = helper.make_sparse_tensor(values, numpy_helper.from_array(i64([2, 3, 5]), "indices"), [3, 3])
    y = helper.make_sparse_tensor_value_info("w", TensorProto.FLOAT, [3, 3])
    graph = helper.make_graph([], "g", [], [y], sparse_initializer=[sparse])
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def coo(ort: Any) -> Any:
    """Three values in a [9,9] by their linear indices."""
    cpu = ort.OrtDevice.make("cpu", 0)
    return ort.SparseTensor.sparse_coo_from_numpy(np.array([9, 9]), f32([1, 2, 3]), i64([0, 10, 20]), cpu)


DENSE = np.ones((9, 9), np.float32)
PRODUCT = np.zeros((9, 9), np.float32)
PRODUCT[:3] = [[1], [2], [3]]


def sparse_value(ort: Any) -> Any:
    return ort.OrtValue.ort_value_from_sparse_tensor(coo(ort))


LINEAR = Fails(
    "Fail",
    "Non-zero status code returned while running SparseToDenseMatMul node. Name:'SpMM' Status Message: …"
    "Expecting COO 2-D indices shape",
)
TAKEN = "linear indices are as good as pairs"
T = Section("SparseTensor", parallel=True)
for _section in (P, T):
    _section.row(
        "sparse input NodeArg",
        lambda ort, env: [(i.name, i.type, i.shape) for i in env.session(sparse_matmul(env)).get_inputs()],
        [("sparse_A", "sparse_tensor(float)", [9, 9]), ("dense_B", "tensor(float)", [9, 9])],
    )
    _section.row(
        "run() with onnxruntime.SparseTensor in the feed",
        lambda ort, env: env.run(sparse_matmul(env), {"sparse_A": coo(ort), "dense_B": DENSE}),
        unhandled("ort.SparseTensor"),
    )
    _section.row(
        "run_with_ort_values sparse",
        lambda ort, env: [
            value.numpy()
            for value in env.session(sparse_matmul(env)).run_with_ort_values(
                None, {"sparse_A": sparse_value(ort), "dense_B": env.value(DENSE)}
            )
        ],
        LINEAR,
        ours=[PRODUCT],
        why=TAKEN,
    )
P.row(
    "run() with OrtValue(sparse) in the feed",
    lambda ort, env: env.run(sparse_matmul(env), {"sparse_A": sparse_value(ort), "dense_B": DENSE}),
    LINEAR,
    ours=[PRODUCT],
    why=TAKEN,
)
P.row(
    "run() dense array for a sparse input",
    lambda ort, env: env.run(sparse_matmul(env), {"sparse_A": DENSE, "dense_B": DENSE}),
    Fails("InvalidArgument", "input with name: 'sparse_A' expected to be of type: 4 but received a tensor"),
)


def sparse_result(ort: Any, env: Env) -> tuple[object, ...]:
    (result,) = env.run(sparse_output(env), {})
    return type(result) is env.c.SparseTensor, result.format, result.values()


SPARSE_RESULT = (True, "<OrtSparseFormat.ORT_SPARSE_COO: 1>", f32([1.5, 0.5, 2.5]))
P.row("run() sparse output", sparse_result, SPARSE_RESULT)
T.row("run() sparse output (sparse_initializer_as_output)", sparse_result, SPARSE_RESULT)


@T.probe(
    "sparse_coo_from_numpy: format,shape,type,device,values,indices",
    (
        "<OrtSparseFormat.ORT_SPARSE_COO: 1>",
        [3, 3],
        "sparse_tensor(float)",
        "cpu",
        f32([1, 2]),
        i64([0, 4]),
    ),
    parallel=False,
)
def _(ort: Any, env: Env) -> object:
    sparse = small(ort)
    return (
        sparse.format(),
        sparse.dense_shape(),
        sparse.data_type(),
        sparse.device_name(),
        sparse.values(),
        sparse.as_coo_view().indices(),
    )


def small(ort: Any, indices: object = (0, 4)) -> Any:
    cpu = ort.OrtDevice.make("cpu", 0)
    return ort.SparseTensor.sparse_coo_from_numpy(np.array([3, 3]), f32([1, 2]), np.asarray(indices), cpu)


T.row(
    "as_csrc_view on COO",
    lambda ort, env: small(ort).as_csrc_view(),
    Fails("RuntimeError", "…This sparse tensor does not contain CSR(C) format"),
    parallel=False,
)


@T.probe(
    "sparse_csr_from_numpy",
    ("<OrtSparseFormat.ORT_SPARSE_CSRC: 2>", i64([0, 1]), i64([0, 1, 2])),
    parallel=False,
)
def _(ort: Any, env: Env) -> object:
    cpu = ort.OrtDevice.make("cpu", 0)
    shape = np.array([2, 2])
    sparse = ort.SparseTensor.sparse_csr_from_numpy(shape, f32([1, 2]), i64([0, 1]), i64([0, 1, 2]), cpu)
    view = sparse.as_csrc_view()
    return sparse.format(), view.inner(), view.outer()


T.row(
    "coo dtype errors (int32 indices)",
    lambda ort, env: small(ort, np.array([0, 4], np.int32)),
    "<SparseTensor>",
    parallel=False,
)


@T.probe("ort_value_from_sparse_tensor", (True, False, "sparse_tensor(float)"), parallel=False)
def _(ort: Any, env: Env) -> object:
    value = sparse_value(ort)
    return value.is_sparse_tensor(), value.is_tensor(), value.data_type()


T.row(
    "OrtValue(dense).as_sparse_tensor()",
    lambda ort, env: env.value(env.x).as_sparse_tensor(),
    Fails("RuntimeError", "…This OrtValue does not contain SparseTensor. Check data_type() value."),
    parallel=False,
)
