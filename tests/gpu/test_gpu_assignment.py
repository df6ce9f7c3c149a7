"""What runs where: what sessions tell of it, what options refuse, how a GPU is chosen, its errors in words."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import distort
from distort import OrtValue, errors
from distort.capi import onnxruntime_pybind11_state as C
from distort.kernels.cuda import builder, fallback

from .standing_in import session_of

RELU = "g (float[2] x) => (float[2] y) { a = Relu(x) y = Neg(a) }"
IF = """g (bool c, float[2] x) => (float[2] y) {
    y = If (c) <then_branch = t () => (float[2] p) { p = Neg(x) }, else_branch = e () => (float[2] q) { q = Abs(x) }>
}"""
CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


def without_neg(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if CuPy couldn't run Neg, and no CUDA C was printed for it."""
    monkeypatch.setitem(fallback.REASONS, ("", "Neg"), "for a test")
    monkeypatch.setattr(
        builder, "lowering_of", lambda domain, op_type: None if op_type == "Neg" else found(domain, op_type)
    )


found = builder.lowering_of


@pytest.fixture
def neg_on_cpu(fake_cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    without_neg(monkeypatch)


def test_nodes_are_told_by_their_provider(neg_on_cpu: None) -> None:
    session = session_of(RELU, entries={"session.record_ep_graph_assignment_info": "1"})
    told = session.get_provider_graph_assignment_info()
    assert [(part.ep_name, [node.op_type for node in part.get_nodes()]) for part in told] == [
        (CUDA, ["Relu"]),
        (CPU, ["Neg"]),
    ]


def test_nodes_on_the_cpu_can_be_refused(fake_cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = {"session.disable_cpu_ep_fallback": "1"}
    session_of(RELU, entries=entries)
    without_neg(monkeypatch)
    with pytest.raises(C.Fail, match="graph nodes that are assigned to the default CPU EP"):
        session_of(RELU, entries=entries)


def test_a_captured_graph_has_no_control_flow(fake_cuda: Any) -> None:
    session_of(RELU, enable_cuda_graph=1)
    with pytest.raises(C.Fail, match=re.escape("control flow nodes which can't be supported by CUDAExecutionProvider")):
        session_of(IF, enable_cuda_graph=1)


def test_a_captured_graph_has_no_nodes_on_the_cpu(neg_on_cpu: None) -> None:
    text = r"have not been partitioned to the CUDAExecutionProvider. On the CPU are Neg -> y \(for a test\). Leave out"
    with pytest.raises(C.Fail, match=text):
        session_of(RELU, enable_cuda_graph=1)


def test_what_a_session_explains(neg_on_cpu: None) -> None:
    session = session_of(RELU, 1, do_copy_in_default_stream=0)
    for _ in range(2):  # what the first one makes on the CPU is part of the second one's plan
        (y,) = session.run(None, {"x": OrtValue.ortvalue_from_numpy(np.array([-1, 2], np.float32), "cuda", 1)})
        assert y.tolist() == [0, -2]
    told = session.explain()
    assert "It runs in this process and on its GPU: no actor is asked." in told
    assert "GPU program, on cuda:1:\n  1 plan made in " in told
    assert "on the CPU: Neg -> y (for a test); its plan is no captured graph" in told
    assert "GPU → host: Neg -> y, 16 B in 2 messages" in told
    assert "CUDAExecutionProvider's do_copy_in_default_stream=0 has no effect" in told


# -- choosing


def test_the_devices_that_there_are(fake_cuda: Any) -> None:
    devices = distort.get_ep_devices()
    assert [(device.ep_name, device.ep_options) for device in devices] == [
        (CPU, {}),
        (CUDA, {"device_id": "0"}),
        (CUDA, {"device_id": "1"}),
    ]
    gpu = devices[2]
    assert (gpu.device.type, gpu.device.vendor, gpu.device.vendor_id) == (
        distort.OrtHardwareDeviceType.GPU,
        "NVIDIA",
        0x10DE,
    )
    own = gpu.memory_info(distort.OrtDeviceMemoryType.DEFAULT)
    pinned = gpu.memory_info(distort.OrtDeviceMemoryType.HOST_ACCESSIBLE)
    assert [(info.name, info.device_id) for info in (own, pinned)] == [("Cuda", 1), ("CudaPinned", 1)]
    value = OrtValue.ortvalue_from_shape_and_type([2], np.float32, memory_info=own)
    assert value.__dlpack_device__() == (2, 1)
    assert gpu.create_sync_stream().get_handle() > 0


def test_a_device_is_a_provider_with_its_number(fake_cuda: Any) -> None:
    options = distort.SessionOptions()
    options.add_provider_for_devices([distort.get_ep_devices()[2]], {"use_tf32": "0"})
    assert options._added_providers == [(CUDA, {"device_id": "1", "use_tf32": "0"})]


class Loading(Exception):
    """A session got as far as its model."""


@pytest.mark.parametrize(
    ("policy", "providers"),
    [("PREFER_GPU", [CUDA, CPU]), ("MAX_PERFORMANCE", [CUDA, CPU]), ("PREFER_CPU", [CPU]), ("DEFAULT", [CPU])],
)
def test_policies(fake_cuda: Any, monkeypatch: pytest.MonkeyPatch, policy: str, providers: list[str]) -> None:
    def load(source: object, options: object, chosen: list[tuple[str, dict[str, str]]], *_: object, **__: Any) -> None:
        raise Loading([name for name, _ in chosen])

    monkeypatch.setattr("distort.native.session.loading.load", load)
    options = distort.SessionOptions()
    options.set_provider_selection_policy(distort.OrtExecutionProviderDevicePolicy[policy])
    with pytest.raises(Loading) as found:
        distort.InferenceSession(b"model", options)
    assert found.value.args == (providers,)


def test_a_delegate_may_choose_a_gpu(fake_cuda: Any) -> None:
    import onnx.parser

    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> {RELU}')
    options = distort.SessionOptions()
    options.set_provider_selection_policy_delegate(lambda devices, *told: devices[2:])
    session = distort.InferenceSession(proto.SerializeToString(), options)
    assert session.get_providers() == [CUDA, CPU]
    assert session.get_provider_options()[CUDA]["device_id"] == "1"


# -- errors


def test_the_gpus_errors_are_onnxruntimes(fake_cuda: Any) -> None:
    failure = fake_cuda.cuda.runtime.CUDARuntimeError
    with pytest.raises(C.Fail, match=r"CUDA failure: cudaErrorInvalidValue.*[^w]\.$"), errors.translated():
        raise failure(1)
    with pytest.raises(C.Fail, match=r"CUDA failure: cudaErrorIllegalAddress.* start it anew"), errors.translated():
        raise failure(700)
    launching = fake_cuda.cuda.driver.CUDADriverError
    with pytest.raises(C.Fail, match=r"CUDA failure: CUDA_ERROR_ILLEGAL_ADDRESS.* start it anew"), errors.translated():
        raise launching(700)
    with pytest.raises(C.RuntimeException, match="Failed to allocate memory: Out of memory"), errors.translated():
        raise fake_cuda.cuda.memory.OutOfMemoryError(10, 0)


def test_a_run_without_room_says_so(fake_cuda: Any) -> None:
    session = session_of("g (float[N] x) => (float[N] y) { y = Neg(x) }", gpu_mem_limit=64 * 1024)
    assert session.run(None, {"x": np.ones(16, np.float32)})[0].tolist() == [-1] * 16
    with pytest.raises(C.RuntimeException, match="gpu_mem_limit lets the session have 65536"):
        session.run(None, {"x": np.ones(2**20, np.float32)})
