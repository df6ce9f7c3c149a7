"""The real frontend of cuDNN, where it is installed: it takes our graphs. It needs no GPU for that."""

from __future__ import annotations

from typing import Any

import pytest

from distort.kernels.cuda.dnn_graphs import UIDS, graph_of, nbytes_of

from .dnn_problems import CONVOLUTIONS, attention


@pytest.fixture(scope="module")
def real() -> Any:
    """The installed frontend, with cuDNN's library; not the one that is here."""
    module = pytest.importorskip("cudnn")
    try:
        module.backend_version()
    except Exception as error:  # noqa: BLE001  # whatever it says without the library
        pytest.skip(f"cuDNN is not there: {error}")
    return module


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_the_real_frontend_validates(real: Any, name: str) -> None:
    graph = graph_of(real, CONVOLUTIONS[name])
    graph.validate()


def test_validation_says_something(real: Any) -> None:
    """It refuses a convolution without pads."""
    float32 = real.data_type.FLOAT
    graph = real.pygraph(io_data_type=float32, intermediate_data_type=float32, compute_data_type=float32)
    x = graph.tensor(name="x", dim=[1, 2, 5, 5], stride=[50, 25, 5, 1])
    w = graph.tensor(name="w", dim=[3, 2, 3, 3], stride=[18, 9, 3, 1])
    graph.conv_fprop(image=x, weight=w, pre_padding=[], post_padding=[], stride=[1, 1], dilation=[1, 1]).set_output(
        True
    )
    with pytest.raises(ValueError, match="not set"):
        graph.validate()


def test_the_real_frontend_has_what_is_called(real: Any) -> None:
    for name in ("create_handle", "destroy_handle", "set_stream", "cudnnGraphNotSupportedError"):
        assert hasattr(real, name)
    for mode in ("A", "B", "FALLBACK"):
        assert hasattr(real.heur_mode, mode)
    for note in ("TENSOR_CORE", "DOWN_CONVERT_INPUTS"):
        assert hasattr(real.numerical_note, note)
    planning = "build_operation_graph create_execution_plans check_support build_plans build_plan_at_index"
    choosing = "deselect_numeric_notes deselect_workspace_greater_than get_execution_plan_count"
    running = "get_workspace_size get_workspace_size_plan_at_index execute execute_plan_at_index"
    operations = "leaky_relu relu sigmoid swish tanh add bias sdpa"
    for method in " ".join([planning, choosing, running, operations]).split():
        assert hasattr(real.pygraph, method), method


def test_tensors_have_our_numbers_in_the_real_frontend(real: Any) -> None:
    graph = real.pygraph(io_data_type=real.data_type.HALF, compute_data_type=real.data_type.FLOAT)
    made = graph.tensor(name="x", dim=[1, 8, 4, 4], stride=[128, 16, 4, 1], data_type=real.data_type.HALF)
    made.set_uid(UIDS["w"])
    assert made.get_uid() == UIDS["w"]


_ATTENTIONS = {
    "plain": {},
    "causal, first": {"causal": "first"},
    "causal, last": {"causal": "last"},
    "bias": {"bias": (2, 4)},
    "bias for all": {"bias": (1, 1)},
    "lengths": {"lengths": True},
    "heads side by side": {"flat": True},
}


@pytest.mark.parametrize("name", _ATTENTIONS)
def test_attention_is_what_the_library_takes(real: Any, name: str) -> None:
    """As far as a frontend that keeps graphs in Python tells without a GPU: its C++ functions take these arguments."""
    graph = graph_of(real, attention(**_ATTENTIONS[name]))
    if not hasattr(graph, "_lower_to_cpp"):
        pytest.skip("this frontend asks for a GPU as soon as it is told of attention")
    graph._lower_to_cpp()


@pytest.mark.parametrize("workspace", [0, 1 << 20])
def test_addresses_are_taken_as_they_are_given(real: Any, workspace: int) -> None:
    """By numbers of tensors, as plain numbers, the workspace too."""
    p = CONVOLUTIONS["all"]
    graph = graph_of(real, p)
    graph.validate()
    if not hasattr(graph, "_normalize"):
        pytest.skip("this frontend has its own way in C++")
    names = list(nbytes_of(p))
    graph._sorted_uids = sorted(UIDS[name] for name in names)  # a GPU's graph has them of its plan
    pack = graph._normalize(graph._uid_to_data({UIDS[name]: 4096 * UIDS[name] for name in names}), workspace)
    assert pack.workspace == workspace and len(pack) == len(names)
