"""Making sessions: sources, providers, options that change the model."""

from __future__ import annotations

import copy
import gc
import pickle
import re
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

import distort
from distort.capi import onnxruntime_pybind11_state as C

X = np.arange(1, 7, dtype=np.float32).reshape(3, 2)
CPU = "CPUExecutionProvider"


def test_errors_of_sources(tmp_path: Path, mul: bytes) -> None:
    path = str(tmp_path / "missing.onnx")
    with pytest.raises(C.NoSuchFile) as caught:
        distort.InferenceSession(path)
    assert str(caught.value) == (
        f"[ONNXRuntimeError] : 3 : NO_SUCHFILE : Load model from {path} failed:Load model {path} failed. "
        "File doesn't exist"
    )
    for content, error, text in [
        (
            b"garbage bytes",
            C.InvalidProtobuf,
            "7 : INVALID_PROTOBUF : Failed to load model because protobuf parsing failed.",
        ),
        (b"", C.InvalidArgument, "2 : INVALID_ARGUMENT : No graph was found in the protobuf."),
    ]:
        with pytest.raises(error) as caught:
            distort.InferenceSession(content)
        assert str(caught.value) == f"[ONNXRuntimeError] : {text}"
    for source in (None, 123, bytearray(mul), memoryview(mul), onnx.ModelProto()):
        with pytest.raises(TypeError, match=re.escape(f"Unable to load from type '{type(source)}'")):
            distort.InferenceSession(source)
    for arguments in ((""), (mul, {"a": 1})):
        with pytest.raises(TypeError, match="incompatible constructor arguments"):
            distort.InferenceSession(*([arguments] if isinstance(arguments, str) else arguments))


def test_sources(tmp_path: Path, mul: bytes) -> None:
    path = tmp_path / "mul.onnx"
    path.write_bytes(mul)
    for source in (mul, str(path), path):
        assert distort.InferenceSession(source, unknown_option=1).run(None, {"X": X})[0][2, 1] == 36


def test_status_errors_are_plain_exceptions_that_pickle() -> None:
    assert C.Fail.__mro__[1:] == (Exception, BaseException, object)
    again = pickle.loads(pickle.dumps(C.NoSuchFile("text")))
    assert type(again) is C.NoSuchFile
    assert again.args == ("text",)
    assert C.Fail.__module__ == "distort.capi.onnxruntime_pybind11_state"


@pytest.mark.parametrize("providers", [None, [], [CPU], (CPU,), [(CPU, {"foo": 1})]])
def test_providers(mul: bytes, providers: object) -> None:
    session = distort.InferenceSession(mul, providers=providers)
    assert session.get_providers() == [CPU]
    assert session.get_provider_options() == {CPU: {}}


def test_a_known_provider_that_is_not_here_warns(mul: bytes) -> None:
    with pytest.warns(
        UserWarning, match="Specified provider 'QNNExecutionProvider' is not in available provider names"
    ):
        session = distort.InferenceSession(mul, providers=["QNNExecutionProvider", CPU])
    assert session.get_providers() == [CPU]
    with pytest.warns(UserWarning, match=f"Duplicate provider '{CPU}' encountered, ignoring."):
        distort.InferenceSession(mul, providers=[CPU, CPU])


@pytest.mark.parametrize(
    ("providers", "options", "text"),
    [
        ([1], None, "'providers' values must be either strings or (string, dict) tuples."),
        ({CPU}, None, "'providers' should be a sequence."),
        ([CPU], [{}, {}], "'providers' and 'provider_options' should be the same length if both are given."),
        ([CPU], [1], "'provider_options' values must be dicts."),
        ([(CPU, {})], [{}], "Only string values for 'providers' are supported if 'provider_options' is given."),
    ],
)
def test_mistakes_in_providers_fall_back_unless_told_otherwise(
    mul: bytes, capsys: pytest.CaptureFixture[str], providers: object, options: object, text: str
) -> None:
    session = distort.InferenceSession(mul, providers=providers, provider_options=options)
    assert session.get_providers() == [CPU]
    assert capsys.readouterr().out == (
        "*************** EP Error ***************\n"
        f"EP Error {text} when using {providers}\n"
        f"Falling back to ['{CPU}'] and retrying.\n"
        "****************************************\n"
    )
    with pytest.raises(ValueError, match=re.escape(text)):
        distort.InferenceSession(mul, providers=providers, provider_options=options, enable_fallback=0)


def test_an_unknown_provider_falls_back(mul: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.warns(UserWarning, match="Specified provider 'NoSuch'"):
        distort.InferenceSession(mul, providers=["NoSuch"])
    assert "EP Error Unknown Provider Type: NoSuch when using ['NoSuch']" in capsys.readouterr().out


def test_set_providers_makes_the_session_anew(mul: bytes) -> None:
    session = distort.InferenceSession(mul)
    binding = session.io_binding()
    session.set_providers([CPU], provider_options=[{}])
    assert session.run(None, {"X": X})[0][2, 1] == 36
    with pytest.raises(ValueError, match=re.escape("IOBinding must be used with the session that created it.")):
        session.run_with_iobinding(binding)


class _Named(distort.InferenceSession):
    """As libraries pickle sessions: by their own state."""

    def __init__(self, model: bytes) -> None:
        super().__init__(model, providers=["CPUExecutionProvider"])
        self.model = model

    def __getstate__(self) -> dict[str, bytes]:
        return {"model": self.model}

    def __setstate__(self, state: dict[str, bytes]) -> None:
        self.__init__(state["model"])  # type: ignore[misc]  # it is how they do it


def test_sessions_pickle(mul: bytes, tmp_path: Path) -> None:
    path = tmp_path / "mul.onnx"
    path.write_bytes(mul)
    options = distort.SessionOptions()
    options.logid = "kept"
    options.add_initializer("W", distort.OrtValue.ortvalue_from_numpy(np.full((3, 2), 2, np.float32)))
    for session in (distort.InferenceSession(mul, options), distort.InferenceSession(path, options), _Named(mul)):
        want = session.run(None, {"X": X})[0]
        for copied in (pickle.loads(pickle.dumps(session)), copy.deepcopy(session), copy.copy(session)):
            assert type(copied) is type(session)
            assert copied.run(None, {"X": X})[0].tolist() == want.tolist()
            assert copied.get_session_options().logid == session.get_session_options().logid
    with pytest.raises(TypeError, match=re.escape("cannot pickle 'distort.capi.onnxruntime_pybind11_state.Inference")):
        pickle.dumps(distort.InferenceSession(mul)._sess)


def test_free_dimensions(relu: bytes) -> None:
    options = distort.SessionOptions()
    options.add_free_dimension_override_by_name("N", 4)
    session = distort.InferenceSession(relu, options)
    assert [arg.shape for arg in (*session.get_inputs(), *session.get_outputs())] == [[4, 2], [4, 2]]
    with pytest.raises(C.InvalidArgument, match="index: 0 Got: 3 Expected: 4"):
        session.run(None, {"x": X})


def test_free_dimensions_by_denotation(relu: bytes) -> None:
    proto = onnx.load_from_string(relu)
    proto.graph.input[0].type.tensor_type.shape.dim[0].denotation = "DATA_BATCH"
    options = distort.SessionOptions()
    options.add_free_dimension_override_by_denotation("DATA_BATCH", 4)
    session = distort.InferenceSession(proto.SerializeToString(), options)
    assert session.get_inputs()[0].shape == [4, 2]


def test_initializers_are_replaced(mul: bytes) -> None:
    ones = distort.OrtValue.ortvalue_from_numpy(np.ones((3, 2), np.float32))
    for add in ("add_initializer", "add_external_initializers"):
        options = distort.SessionOptions()
        arguments = ("W", ones) if add == "add_initializer" else (["W"], [ones])
        getattr(options, add)(*arguments)
        assert distort.InferenceSession(mul, options).run(None, {"X": X})[0].tolist() == X.tolist()
    options = distort.SessionOptions()
    options.add_external_initializers(["q"], [ones])
    with pytest.raises(C.Fail, match="Failed to find existing initializer with name q"):
        distort.InferenceSession(mul, options)
    options = distort.SessionOptions()
    options.add_initializer("W", distort.OrtValue.ortvalue_from_numpy(np.ones((2, 2), np.float32)))
    with pytest.raises(C.Fail, match="Replacement tensor's dimensions do not match"):
        distort.InferenceSession(mul, options)


def test_overridable_initializers(model: Callable[[str], bytes]) -> None:
    text = "add (float[2] x, float[2] w) => (float[2] y) <float[2] w = {1, 2}> { y = Add(x, w) }"
    session = distort.InferenceSession(model(text))
    assert [arg.name for arg in session.get_inputs()] == ["x"]
    assert [arg.name for arg in session.get_overridable_initializers()] == ["w"]
    x = np.zeros(2, np.float32)
    assert session.run(None, {"x": x})[0].tolist() == [1, 2]
    assert session.run(None, {"x": x, "w": np.full(2, 5, np.float32)})[0].tolist() == [5, 5]


def test_an_overridable_initializer_may_have_other_sizes(model: Callable[[str], bytes]) -> None:
    text = "low_rank (float[N,4] x, float[4,R] a) => (float[N,K] y) <float[4,0] a = {}> { y = MatMul(x, a) }"
    session = distort.InferenceSession(model(text))
    assert session.get_overridable_initializers()[0].shape == [4, "R"]
    assert session.get_outputs()[0].shape == ["N", "K"]
    x = np.ones((1, 4), np.float32)
    assert session.run(None, {"x": x})[0].shape == (1, 0)
    for rank in (1, 3):
        assert session.run(None, {"x": x, "a": np.ones((4, rank), np.float32)})[0].tolist() == [[4.0] * rank]
    with pytest.raises(C.InvalidArgument, match="index: 0 Got: 3 Expected: 4"):
        session.run(None, {"x": x, "a": np.ones((3, 1), np.float32)})


def test_optimized_model_is_written(tmp_path: Path, mul: bytes) -> None:
    options = distort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "out.onnx")
    distort.InferenceSession(mul, options)
    onnx.checker.check_model(str(tmp_path / "out.onnx"))
    assert distort.InferenceSession(str(tmp_path / "out.onnx")).run(None, {"X": X})[0][2, 1] == 36
    options.optimized_model_filepath = str(tmp_path / "missing" / "out.onnx")
    with pytest.raises(C.InvalidArgument, match="SystemError : 2"):
        distort.InferenceSession(mul, options)


def test_loading_can_be_canceled(mul: bytes) -> None:
    options = distort.SessionOptions()
    options.set_load_cancellation_flag(True)
    with pytest.raises(C.ModelLoadCanceled, match="12 : MODEL_LOAD_CANCELED : Graph loading canceled"):
        distort.InferenceSession(mul, options)


def test_metadata(mul: bytes, relu: bytes) -> None:
    session = distort.InferenceSession(relu)
    (argument,) = session.get_inputs()
    assert str(argument) == repr(argument) == "NodeArg(name='x', type='tensor(float)', shape=['N', 2])"
    assert session.get_inputs() is session.get_inputs()
    meta = distort.InferenceSession(mul).get_modelmeta()
    assert (meta.graph_name, meta.version, meta.custom_metadata_map) == ("mul", 2**63 - 1, {})
    with pytest.raises(TypeError, match="No constructor defined"):
        distort.NodeArg()


def test_a_session_that_nobody_has_is_freed(mul: bytes) -> None:
    session = distort.InferenceSession(mul)
    session.run(None, {"X": X})
    engine = weakref.ref(session._sess._loaded.engine)
    result = session.run(None, {"X": X})[0]
    del session
    gc.collect()
    assert engine() is None
    assert result[2, 1] == 36


def _with_external_data(mul: bytes) -> bytes:
    """The model with W in the file ``weights.bin``, which is not there."""
    proto = onnx.load_from_string(mul)
    (weight,) = proto.graph.initializer
    weight.raw_data = b""  # set_external_data wants the field to be there
    onnx.external_data_helper.set_external_data(weight, "weights.bin", offset=8, length=24)
    weight.ClearField("float_data")
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    return proto.SerializeToString()


def test_external_data_whose_file_is_not_there(mul: bytes) -> None:
    content = _with_external_data(mul)
    with pytest.raises(C.Fail, match="External data path validation failed for initializer: W"):
        distort.InferenceSession(content)
    ones = distort.OrtValue.ortvalue_from_numpy(np.ones((3, 2), np.float32))
    for add, arguments in (("add_initializer", ("W", ones)), ("add_external_initializers", (["W"], [ones]))):
        options = distort.SessionOptions()
        getattr(options, add)(*arguments)
        assert distort.InferenceSession(content, options).run(None, {"X": X})[0].tolist() == X.tolist()


def test_external_data_in_memory(mul: bytes) -> None:
    options = distort.SessionOptions()
    file = bytes(8) + X.tobytes() + b"more"
    options.add_external_initializers_from_files_in_memory(["weights.bin"], [file], [len(file)])
    assert distort.InferenceSession(_with_external_data(mul), options).run(None, {"X": X})[0][2, 1] == 36
    options.add_external_initializers_from_files_in_memory(["weights.bin"], [file], [20])
    with pytest.raises(C.Fail, match="External initializer: W offset: 8 size to read: 24 given file_length: 20"):
        distort.InferenceSession(_with_external_data(mul), options)
    with pytest.raises(RuntimeError, match="equal length"):
        options.add_external_initializers_from_files_in_memory(["a"], [b""], [1, 2])


def test_external_data_in_another_folder(mul: bytes, tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(bytes(8) + X.tobytes())
    options = distort.SessionOptions()
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(tmp_path))
    assert distort.InferenceSession(_with_external_data(mul), options).run(None, {"X": X})[0][2, 1] == 36
    (tmp_path / "model.onnx").write_bytes(_with_external_data(mul))
    assert distort.InferenceSession(tmp_path / "model.onnx").run(None, {"X": X})[0][2, 1] == 36
