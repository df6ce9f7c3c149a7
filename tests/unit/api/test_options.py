"""SessionOptions, RunOptions, enums and the process's settings."""

from __future__ import annotations

import pickle
import re

import numpy as np
import pytest

import distort
from distort.capi import onnxruntime_pybind11_state as C
from distort.options import DISTORT_KEYS


def test_defaults() -> None:
    options = distort.SessionOptions()
    assert options.execution_mode is distort.ExecutionMode.ORT_SEQUENTIAL
    assert options.graph_optimization_level is distort.GraphOptimizationLevel.ORT_ENABLE_ALL
    assert (options.inter_op_num_threads, options.intra_op_num_threads, options.log_severity_level) == (0, 0, -1)
    assert (options.enable_profiling, options.profile_file_prefix) == (False, "onnxruntime_profile_")


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("intra_op_num_threads", -1, -1),
        ("intra_op_num_threads", np.int64(3), 3),
        ("enable_profiling", 1, True),
        ("enable_profiling", None, False),
        ("log_severity_level", 7, 7),
        ("execution_order", distort.ExecutionOrder.PRIORITY_BASED, distort.ExecutionOrder.PRIORITY_BASED),
    ],
)
def test_values_that_options_take(name: str, value: object, kept: object) -> None:
    options = distort.SessionOptions()
    setattr(options, name, value)
    assert getattr(options, name) == kept
    assert type(getattr(options, name)) is type(kept)


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("intra_op_num_threads", "2", "typing.SupportsInt | typing.SupportsIndex"),
        ("intra_op_num_threads", 2.0, "typing.SupportsInt | typing.SupportsIndex"),
        ("intra_op_num_threads", 2**40, "typing.SupportsInt | typing.SupportsIndex"),
        ("graph_optimization_level", 99, "distort.capi.onnxruntime_pybind11_state.GraphOptimizationLevel"),
        ("enable_profiling", "yes", "bool"),
        ("logid", 5, "str"),
    ],
)
def test_values_that_options_refuse(name: str, value: object, wanted: str) -> None:
    options = distort.SessionOptions()
    with pytest.raises(TypeError) as caught:
        setattr(options, name, value)
    assert str(caught.value) == (
        "(): incompatible function arguments. The following argument types are supported:\n"
        f"    1. (arg0: distort.capi.onnxruntime_pybind11_state.SessionOptions, arg1: {wanted}) -> None\n\n"
        f"Invoked with: {options!r}, {value!r}"
    )


@pytest.mark.parametrize("cls", [distort.SessionOptions, distort.RunOptions])
def test_unknown_attributes(cls: type) -> None:
    text = f"'distort.capi.onnxruntime_pybind11_state.{cls.__name__}' object has no attribute 'nosuch'"
    with pytest.raises(AttributeError, match=re.escape(text)):
        cls().nosuch = 1


def test_config_entries() -> None:
    options = distort.SessionOptions()
    options.add_session_config_entry("a.b", "1")
    options.add_session_config_entry("a.b", "2")
    assert options.get_session_config_entry("a.b") == "2"
    with pytest.raises(RuntimeError, match="SessionOptions does not have configuration with key: missing"):
        options.get_session_config_entry("missing")
    for key in ("", "k" * 1025):
        with pytest.raises(RuntimeError, match="Config key is empty or longer than maximum length 1024"):
            options.add_session_config_entry(key, "1")
    with pytest.raises(TypeError, match="add_session_config_entry"):
        options.add_session_config_entry("a", 1)
    run_options = distort.RunOptions()
    run_options.add_run_config_entry("a", "v")
    assert run_options.get_run_config_entry("a") == "v"
    with pytest.raises(RuntimeError, match="RunOptions does not have configuration with key: nope"):
        run_options.get_run_config_entry("nope")


def test_an_unknown_key_of_ours_names_the_known_ones() -> None:
    with pytest.raises(C.InvalidArgument) as caught:
        distort.SessionOptions().add_session_config_entry("distort.stagse", "2")
    assert "distort.stagse" in str(caught.value)
    assert all(f"distort.{key}" in str(caught.value) for key in DISTORT_KEYS)


@pytest.mark.parametrize(
    ("key", "good", "bad"),
    [
        ("replicas", "auto", "0"),
        ("replicas", "3", "many"),
        ("costs", "measured", "guessed"),
        ("device_memory", "512MB", "0"),
        ("device_memory", "1.5GiB", "much"),
        ("objective", "memory", "speed"),
        ("stages", "2", "0"),
        ("max_in_flight", "8", "many"),
        ("timeout_s", "0.5", "-1"),
        ("strict_placement", "1", "yes"),
        ("recovery", "replay", "never"),
        ("objective", "throughput", "speed"),
    ],
)
def test_values_of_our_keys_are_checked(key: str, good: str, bad: str) -> None:
    options = distort.SessionOptions()
    options.add_session_config_entry(f"distort.{key}", good)
    assert options.get_session_config_entry(f"distort.{key}") == good
    with pytest.raises(C.InvalidArgument, match=f"'distort.{key}' wants"):
        options.add_session_config_entry(f"distort.{key}", bad)
    assert options.get_session_config_entry(f"distort.{key}") == good


def test_the_first_size_of_a_free_dimension_stays(relu: bytes) -> None:
    options = distort.SessionOptions()
    for size in (4, 5):
        options.add_free_dimension_override_by_name("N", size)
        options.add_free_dimension_override_by_denotation("DATA_BATCH", size)
    assert distort.InferenceSession(relu, options).get_inputs()[0].shape[0] == 4


def test_a_session_copies_its_options(mul: bytes) -> None:
    options = distort.SessionOptions()
    options.logid = "one"
    session = distort.InferenceSession(mul, options)
    options.logid = "two"
    options.add_session_config_entry("a", "1")
    assert session.get_session_options().logid == "one"
    with pytest.raises(RuntimeError, match="does not have configuration"):
        session.get_session_options().get_session_config_entry("a")
    assert pickle.loads(pickle.dumps(options)).get_session_config_entry("a") == "1"


def test_severities_are_checked(mul: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    options = distort.SessionOptions()
    options.log_severity_level = 7
    with pytest.raises(RuntimeError, match="Invalid session log severity level"):
        distort.InferenceSession(mul, options)
    assert "EP Error" in capsys.readouterr().out
    run_options = distort.RunOptions()
    run_options.log_severity_level = 9
    with pytest.raises(C.Fail, match="Invalid run log severity level"):
        distort.InferenceSession(mul).run(None, {"X": np.zeros((3, 2), np.float32)}, run_options)
    with pytest.raises(RuntimeError, match="Invalid logging severity"):
        distort.set_default_logger_severity(7)
    with pytest.raises(TypeError, match=re.escape("set_default_logger_severity(): incompatible")):
        distort.set_default_logger_severity("a")


def test_enums_are_written_as_onnxruntime_writes_them() -> None:
    level = distort.GraphOptimizationLevel.ORT_ENABLE_ALL
    assert repr(level) == "<GraphOptimizationLevel.ORT_ENABLE_ALL: 99>"
    assert str(level) == "GraphOptimizationLevel.ORT_ENABLE_ALL"
    assert level == 99
    assert pickle.loads(pickle.dumps(level)) is level


def test_added_providers(mul: bytes) -> None:
    options = distort.SessionOptions()
    assert not options.has_providers()
    options.add_provider("CPUExecutionProvider", {})
    assert options.has_providers()
    assert distort.InferenceSession(mul, options).get_providers() == ["CPUExecutionProvider"]
    with pytest.raises(RuntimeError, match="Unknown Provider Type: NoSuch"):
        options.add_provider("NoSuch", {})
    with pytest.raises(C.InvalidArgument, match="Failed to add provider of type 'QNNExecutionProvider'"):
        options.add_provider("QNNExecutionProvider", {})
    with pytest.raises(
        C.Fail, match=r"Failed to load library /nope.so with error: /nope.so: cannot open shared object"
    ):
        options.register_custom_ops_library("/nope.so")
