"""The native module's classes, as libraries use them that reach below the public ones."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import distort
from distort.capi import onnxruntime_pybind11_state as C

X = np.array([[1, 2], [3, 4], [5, 6]], np.float32)
WANTED = [[1, 4], [9, 16], [25, 36]]


@pytest.fixture
def session(mul: bytes) -> C.InferenceSession:
    made = C.InferenceSession(C.get_default_session_options(), mul, False, False)
    made.initialize_session(["CPUExecutionProvider"], [{}], set())
    return made


def _cpu() -> C.OrtDevice:
    return C.OrtDevice(C.OrtDevice.cpu(), C.OrtDevice.default_memory(), 0)


def test_a_session(session: C.InferenceSession) -> None:
    assert session.run(["Y"], {"X": X}, None)[0].tolist() == WANTED
    assert [arg.name for arg in (*session.inputs_meta, *session.outputs_meta)] == ["X", "Y"]
    assert session.model_meta.graph_name == "mul"
    assert (session.get_providers(), session.get_provider_options()) == (
        ["CPUExecutionProvider"],
        {"CPUExecutionProvider": {}},
    )
    assert [info.name for info in (*session.input_meminfos, *session.output_meminfos)] == ["Cpu", "Cpu"]
    assert [device.ep_name for device in session.input_epdevices] == ["CPUExecutionProvider"]
    assert (session.webgpu_context_id(), session.is_webgpu_graph_capture_enabled()) == (-1, False)
    assert session.get_profiling_start_time_ns == 0
    value = session.create_ortvalue_from_shape_and_onnx_type([2], 16, _cpu())
    assert value.data_type() == "tensor(bfloat16)"


def test_values_of_a_session(session: C.InferenceSession) -> None:
    x = C.OrtValue.ortvalue_from_numpy(X, _cpu())
    assert session.run_with_ort_values({"X": x}, ["Y"], None)[0].numpy().tolist() == WANTED
    fetches = C.OrtValueVector()
    feeds = C.OrtValueVector()
    feeds.push_back(x)
    session.run_with_ortvaluevector(None, ["X"], feeds, ["Y"], fetches, [_cpu()])
    assert fetches[0].numpy().tolist() == WANTED
    taken = C.OrtValueVector()
    taken.push_back(X.__dlpack__())
    assert taken[0].shape() == [3, 2]


def test_a_binding(session: C.InferenceSession) -> None:
    binding = C.SessionIOBinding(session)
    result = np.zeros((3, 2), np.float32)
    binding.bind_input("X", X)
    binding.bind_output("Y", _cpu(), np.float32, [3, 2], result.ctypes.data)
    session.run_with_iobinding(binding, None)
    assert result.tolist() == WANTED
    binding.bind_input("X", _cpu(), 1, [3, 2], X.ctypes.data)
    binding.bind_output("Y", _cpu())
    session.run_with_iobinding(binding, None)
    assert binding.get_outputs()[0].numpy().tolist() == WANTED
    assert binding.copy_outputs_to_cpu()[0].tolist() == WANTED
    for wrong in ((1,), ("X", _cpu()), ("X", _cpu(), 1, [3, 2], None)):
        with pytest.raises((TypeError, RuntimeError)):
            binding.bind_input(*wrong)
    with pytest.raises(TypeError, match="incompatible function arguments"):
        binding.bind_output("Y", "cpu")


def test_users_objects_hold_native_ones(mul: bytes) -> None:
    session = distort.InferenceSession(mul)
    assert isinstance(session._sess, C.InferenceSession)
    assert isinstance(session.io_binding()._iobinding, C.SessionIOBinding)
    value = distort.OrtValue.ortvalue_from_numpy(X)
    assert isinstance(value._ortvalue, C.OrtValue)
    assert distort.OrtValue(value._ortvalue).data_ptr() == X.ctypes.data
    assert isinstance(distort.OrtDevice.make("cpu", 0)._get_c_device(), C.OrtDevice)
    assert f"{C.OrtValue.__module__}.{C.OrtValue.__name__}" == "distort.capi.onnxruntime_pybind11_state.OrtValue"


def test_what_nobody_constructs() -> None:
    made = [
        C.OrtValue,
        C.OrtEpDevice,
        C.OrtHardwareDevice,
        C.SparseTensor,
        C.OrtEpContextData,
        C.opkernel.KernelDef,
        C.SessionObjectInitializer,
    ]
    for cls in made:
        with pytest.raises(TypeError, match=f"{cls.__name__}: No constructor defined!"):
            cls()


def test_devices() -> None:
    assert [f() for f in (C.OrtDevice.cpu, C.OrtDevice.gpu, C.OrtDevice.cuda, C.OrtDevice.npu)] == [0, 1, 1, 3]
    device = C.OrtDevice(1, 0, 0x10DE, 2)
    assert (device.device_type(), device.mem_type(), device.vendor_id(), device.device_id()) == (1, 0, 0x10DE, 2)
    with pytest.raises(TypeError, match="incompatible constructor arguments"):
        C.OrtDevice("cpu")
    with pytest.raises(RuntimeError, match="Can't allocate memory on the device"):
        C.OrtValue.ortvalue_from_numpy(X, device)
    with pytest.raises(TypeError, match="incompatible function arguments"):
        C.OrtValue.ortvalue_from_numpy(X, "cpu")


def test_sparse_blocks() -> None:
    blocks = np.arange(8, dtype=np.float32).reshape(2, 2, 2)
    made = C.SparseTensor.blocksparse_from_numpy([4, 4], blocks, np.array([[0, 1], [1, 0]], np.int32), _cpu())
    assert made.format == C.OrtSparseFormat.ORT_SPARSE_BLOCK_SPARSE
    assert made.get_blocksparse_data().indices().tolist() == [[0, 1], [1, 0]]
    dense = np.zeros(16, np.float32)
    coordinates = made._coordinates()
    dense[coordinates.indices] = coordinates.values
    wanted = [[0, 0, 0, 1], [0, 0, 2, 3], [4, 5, 0, 0], [6, 7, 0, 0]]
    assert dense.reshape(4, 4).tolist() == wanted
    with pytest.raises(RuntimeError, match="values \\[blocks, rows, columns\\]"):
        C.SparseTensor.blocksparse_from_numpy([4, 4], blocks, np.array([0, 1]), _cpu())


def test_hardware() -> None:
    (device,) = distort.get_ep_devices()
    assert device.device.type == distort.OrtHardwareDeviceType.CPU
    assert device.ep_metadata == {"version": distort.__version__}
    assert device.memory_info(distort.OrtDeviceMemoryType.DEFAULT) is None
    assert C.get_hardware_devices() == [device.device]
    with pytest.raises(C.InvalidArgument, match="No valid factory found for execution provider 'Foo'"):
        C.get_hardware_device_ep_incompatibility_details("Foo", device.device)
    with pytest.raises(C.Fail, match="cannot open shared object file"):
        distort.register_execution_provider_library("x", "/nowhere.so")
    with pytest.raises(C.Fail, match="was not registered"):
        distort.unregister_execution_provider_library("x")


def test_choosing_providers(mul: bytes) -> None:
    options = distort.SessionOptions()
    options.add_provider_for_devices(distort.get_ep_devices(), {})
    assert options.has_providers()
    assert distort.InferenceSession(mul, options).get_providers() == ["CPUExecutionProvider"]
    with pytest.warns(UserWarning, match="only use the providers passed"):
        distort.InferenceSession(mul, options, ["CPUExecutionProvider"])
    with pytest.raises(C.InvalidArgument, match="Empty list"):
        options.add_provider_for_devices([], {})
    told: list[object] = []
    options = distort.SessionOptions()
    options.set_provider_selection_policy_delegate(lambda *given: told.extend(given) or given[0][:1])
    assert distort.InferenceSession(mul, options).get_providers() == ["CPUExecutionProvider"]
    assert told[0] == distort.get_ep_devices()
    assert told[1]["graph_name"] == "mul"  # type: ignore[index]  # it is a dict
    options.set_provider_selection_policy_delegate(lambda *given: [])
    with pytest.raises(C.Fail, match="did not select anything"):
        distort.InferenceSession(mul, options)


def test_who_runs_what(mul: bytes) -> None:
    with pytest.raises(C.Fail, match="must be set to"):
        distort.InferenceSession(mul).get_provider_graph_assignment_info()
    options = distort.SessionOptions()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    (part,) = distort.InferenceSession(mul, options).get_provider_graph_assignment_info()
    (node,) = part.get_nodes()
    assert (part.ep_name, node.name, node.domain, node.op_type) == ("CPUExecutionProvider", "mul_1", "", "Mul")


def test_arenas() -> None:
    arena = distort.OrtArenaCfg({"max_mem": 100, "arena_extend_strategy": 1})
    assert (arena.max_mem, arena.arena_extend_strategy, arena.max_power_of_two_extend_bytes) == (100, 1, -1)
    memory = distort.OrtMemoryInfo("Cpu", distort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, distort.OrtMemType.DEFAULT)
    distort.create_and_register_allocator(memory, arena)
    with pytest.raises(RuntimeError, match="Foo is not implemented"):
        distort.create_and_register_allocator_v2("Foo", memory, {}, arena)
    with pytest.raises(RuntimeError, match="Invalid OrtArenaCfg option: bogus"):
        distort.OrtArenaCfg({"bogus": 1})
    with pytest.raises(TypeError, match="incompatible constructor arguments"):
        distort.OrtArenaCfg("a")


def test_copying_tensors() -> None:
    source, target = np.ones(3, np.float32), np.zeros(3, np.float32)
    values = [distort.OrtValue.ortvalue_from_numpy(array) for array in (source, target)]
    distort.copy_tensors(values[:1], values[1:])
    assert target.tolist() == [1, 1, 1]
    with pytest.raises(RuntimeError, match="Invalid arguments"):
        distort.copy_tensors(values, values[1:])
    with pytest.raises(RuntimeError, match=r"tensor 1 is tensor\(float\) \[3\]"):
        distort.copy_tensors(values, [values[0], distort.OrtValue.ortvalue_from_numpy(np.zeros(4, np.float32))])


def test_operators_and_kernels() -> None:
    schemas = {(schema.domain, schema.name) for schema in C.get_all_operator_schema()}
    kernels = {(kernel.domain, kernel.op_name) for kernel in C.get_all_opkernel_def()}
    assert {("", "Conv"), ("com.microsoft", "QAttention"), ("ai.onnx.ml", "SVMRegressor")} <= schemas & kernels
    (relu,) = (k for k in C.get_all_opkernel_def() if k.op_name == "Relu" and k.version_range == (13, 13))
    assert "tensor(bfloat16)" in relu.type_constraints["T"]
    assert isinstance(C.get_all_operator_schema()[0], C.schemadef.OpSchema)
    with pytest.raises(RuntimeError, match="No devices found for EP 'Foo'"):
        C.get_registered_ep_kernel_defs("Foo")


def test_notes_about_compiled_models(mul: bytes) -> None:
    assert C.get_compatibility_info_from_model_bytes(mul, "CPUExecutionProvider") is None
    model = onnx.load_from_string(mul)
    model.metadata_props.add(key="ep_compatibility_info.CPUExecutionProvider", value="note")
    content = model.SerializeToString()
    assert C.get_compatibility_info_from_model_bytes(content, "CPUExecutionProvider") == "note"
    with pytest.raises(RuntimeError, match=r"(?i)protobuf parsing failed"):
        C.get_compatibility_info_from_model_bytes(b"zz", "CPUExecutionProvider")
    answer = C.get_model_compatibility_for_ep_devices(distort.get_ep_devices(), "note")
    assert answer == C.OrtCompiledModelCompatibility.EP_NOT_APPLICABLE


def test_only_the_path_to_the_fetches() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N] x, float[2] z) => (float[N] y, float[K] w)'
        "{ y = Neg (x) \n w = Add (x, z) }"
    )
    session = distort.InferenceSession(model.SerializeToString())
    feeds = {"x": np.ones(3, np.float32), "z": np.ones(2, np.float32)}
    options = distort.RunOptions()
    with pytest.raises(C.Fail, match="while running Add node"):
        session.run(["y"], feeds, options)
    options.only_execute_path_to_fetches = True
    assert session.run(["y"], feeds, options)[0].tolist() == [-1, -1, -1]
    with pytest.raises(C.Fail, match="while running Add node"):
        session.run(["w", "y"], feeds, options)


def test_disabled_optimizers() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[2] x) => (float[2] y)'
        "<float[2] a = {1, 2}, float[2] b = {3, 4}> { c = Add (a, b) \n d = Identity (x) \n y = Add (c, d) }"
    ).SerializeToString()

    def operators(*disabled: str) -> list[str]:
        session = distort.InferenceSession(model, disabled_optimizers=list(disabled))
        assert session.run(None, {"x": np.ones(2, np.float32)})[0].tolist() == [5, 7]
        return [node.op_type for node in session._sess._loaded.engine.model.graph.nodes]

    assert operators() == ["Add"]
    assert operators("ConstantFolding") == ["Add", "Add"]
    assert operators("EliminateIdentity") == ["Identity", "Add"]
