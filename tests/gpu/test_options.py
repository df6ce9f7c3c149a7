"""Options of CUDAExecutionProvider: read, checked, told again; which session may have which."""

from __future__ import annotations

import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import onnx.parser
import pytest

import distort
from distort.kernels.cuda import options
from distort.kernels.cuda.options import NO_LIMIT, CudaOptions, OptionError

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
MODEL = onnx.parser.parse_model(
    '<ir_version: 10, opset_import: ["" : 21]> g (float[2] x) => (float[2] y) { y = Relu(x) }'
).SerializeToString()


@pytest.fixture
def two_gpus(fake_cuda: Any) -> None:
    """As many as the fake has."""


def test_the_defaults_are_onnxruntimes() -> None:
    told = CudaOptions().as_strings()
    assert list(told) == list(options.OPTIONS)
    assert told == CudaOptions.read({}).as_strings()
    some = {name: told[name] for name in ("device_id", "gpu_mem_limit", "arena_extend_strategy", "use_tf32")}
    assert some == {
        "device_id": "0",
        "gpu_mem_limit": "18446744073709551615",
        "arena_extend_strategy": "kNextPowerOfTwo",
        "use_tf32": "1",
    }
    assert told["cudnn_conv_algo_search"] == "EXHAUSTIVE" and told["do_copy_in_default_stream"] == "1"
    assert CudaOptions().limit_nbytes is None


@pytest.mark.parametrize("value", [True, 1, "1", "True", "true"])
def test_flags_may_be_text_numbers_or_bools(value: object) -> None:
    read = CudaOptions.read({"enable_cuda_graph": value, "use_tf32": not value if value is True else "0"})
    assert (read.enable_cuda_graph, read.use_tf32) == (True, False)
    assert read.as_strings()["enable_cuda_graph"] == "1"


def test_numbers_may_be_text() -> None:
    read = CudaOptions.read({"device_id": "1", "gpu_mem_limit": 2 * 2**30, "sdpa_kernel": 8})
    assert (read.device_id, read.limit_nbytes, read.sdpa_kernel) == (1, 2147483648, 8)
    assert CudaOptions.read(read.as_strings()) == read


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"nosuch": "1"}, 'Unknown provider option: "nosuch". CUDAExecutionProvider knows device_id, gpu_mem_limit,'),
        ({"device_id": "-1"}, "\"device_id\" of CUDAExecutionProvider: '-1'. Give it a GPU's number"),
        ({"gpu_mem_limit": "1.5"}, "Give it bytes without a unit, as 2147483648"),
        ({"gpu_mem_limit": NO_LIMIT + 1}, "Give it bytes without a unit"),
        ({"arena_extend_strategy": "kSame"}, "Give it one of kNextPowerOfTwo, kSameAsRequested"),
        ({"cudnn_conv_algo_search": "FAST"}, "Give it one of EXHAUSTIVE, HEURISTIC, DEFAULT"),
        ({"use_tf32": "yes"}, "\"use_tf32\" of CUDAExecutionProvider: 'yes'. Give it 1 or 0"),
        ({"user_compute_stream": "0x7f"}, "Give it an address, as a number in tens"),
        ({"sdpa_kernel": "-1"}, "Give it the sum of the kernels"),
        ({"tunable_op_max_tuning_duration_ms": "soon"}, "Give it milliseconds"),
        ({"has_user_compute_stream": "1"}, "the stream itself is to be given as user_compute_stream"),
        ({"gpu_external_alloc": 5}, "it needs gpu_external_free"),
        ({"gpu_external_free": 5}, "it needs gpu_external_alloc"),
        ({"gpu_external_empty_cache": 5}, "it needs gpu_external_alloc and gpu_external_free"),
        ({"enable_cuda_graph": 1, "user_compute_stream": 2}, "default streams can't be captured"),
    ],
)
def test_what_can_not_be_read_names_the_option_and_the_remedy(given: dict[str, Any], text: str) -> None:
    with pytest.raises(OptionError, match=re.escape(text)):
        CudaOptions.read(given)


def test_a_gpu_that_is_not_there() -> None:
    assert CudaOptions.read({"device_id": 1}, n_devices=2).device_id == 1
    with pytest.raises(OptionError, match=r"Invalid device ID: 2, must be between 0 \(inclusive\) and 2 \(exclusive\)"):
        CudaOptions.read({"device_id": 2}, n_devices=2)


def test_a_stream_of_the_users_is_for_sessions_of_this_process() -> None:
    given = {"user_compute_stream": str(2**47)}
    assert CudaOptions.read(given).has_user_compute_stream
    with pytest.raises(OptionError, match=r"means nothing on the actors of a parallel session\. Leave it, or use"):
        CudaOptions.read(given, in_process=False)
    with pytest.raises(OptionError, match="gpu_external_alloc"):
        CudaOptions.read({"gpu_external_alloc": 1, "gpu_external_free": 2}, in_process=False)


def test_what_has_no_effect_is_told() -> None:
    assert not CudaOptions().notes()
    assert not CudaOptions.read({"prefer_nhwc": "1", "sdpa_kernel": "24", "use_tf32": "0"}).notes()
    notes = CudaOptions.read({"do_copy_in_default_stream": 0, "sdpa_kernel": 2}).notes()
    assert [note.split(" has no effect: ")[0] for note in notes] == [
        "CUDAExecutionProvider's do_copy_in_default_stream=0",
        "CUDAExecutionProvider's sdpa_kernel=2",
    ]


@pytest.mark.parametrize(("given", "uses"), [({}, True), ({"sdpa_kernel": 16}, False), ({"enable_cudnn": 0}, False)])
def test_which_attention_may_be_used(given: dict[str, Any], uses: bool) -> None:
    assert CudaOptions.read(given).uses_cudnn_attention is uses


def test_the_page_is_what_the_code_says() -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "provider_options.md"
    assert page.read_text() == options.table_text()


# -- sessions


def parallel() -> distort.SessionOptions:
    made = distort.SessionOptions()
    made.execution_mode = distort.ExecutionMode.ORT_PARALLEL
    return made


def test_a_session_tells_all_options(fake_cuda: Any) -> None:
    session = distort.InferenceSession(
        MODEL, providers=[(CUDA, {"device_id": 1, "do_copy_in_default_stream": False}), CPU]
    )
    assert session.get_providers() == [CUDA, CPU]
    told = session.get_provider_options()
    assert told == {CUDA: CudaOptions(device_id=1, do_copy_in_default_stream=False).as_strings(), CPU: {}}
    assert "do_copy_in_default_stream=0 has no effect" in session.plan.explain()
    assert pickle.loads(pickle.dumps(session)).get_provider_options() == told


@pytest.mark.parametrize("options", [{"nosuch": 1}, {"device_id": 2}, {"gpu_mem_limit": "much"}])
def test_a_session_with_options_that_can_not_be_read(
    two_gpus: None, options: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """As in onnxruntime: an error of class RuntimeError, after which the session falls back."""
    with pytest.raises(RuntimeError, match="provider option"):
        distort.InferenceSession(MODEL, providers=[(CUDA, options)], enable_fallback=0)
    assert distort.InferenceSession(MODEL, providers=[(CUDA, options)]).get_providers() == [CPU]
    assert "EP Error" in capsys.readouterr().out


class Loading(Exception):
    """A session got as far as its model, which these tests don't need: ``providers`` are what it would run on."""

    def __init__(self, chosen: list[tuple[str, dict[str, str]]]) -> None:
        super().__init__(str(chosen))
        self.providers = chosen


@pytest.fixture
def loading(two_gpus: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(source: object, options: object, chosen: list[tuple[str, dict[str, str]]], *_: object, **__: Any) -> None:
        raise Loading(chosen)

    monkeypatch.setattr("distort.native.session.loading.load", load)


def test_a_parallel_session_may_have_several_gpus(loading: None) -> None:
    wanted = [(CUDA, {"device_id": 0, "gpu_mem_limit": 10**9}), (CUDA, {"device_id": 1}), CPU]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(Loading) as made:
            distort.InferenceSession(MODEL, parallel(), providers=wanted)
    kept = [(CUDA, {"device_id": "0", "gpu_mem_limit": "1000000000"}), (CUDA, {"device_id": "1"}), (CPU, {})]
    assert made.value.providers == kept
    with pytest.raises(Loading) as made:
        distort.InferenceSession(MODEL, parallel(), [CUDA, CUDA], [{"device_id": 1}, {"device_id": 0}])
    assert [given for _, given in made.value.providers] == [{"device_id": "1"}, {"device_id": "0"}, {}]


def test_several_gpus_are_one_provider(two_gpus: None) -> None:
    session = distort.InferenceSession(MODEL)
    session._sess._providers = [(CUDA, {"device_id": "0", "gpu_mem_limit": "9"}), (CUDA, {"device_id": "1"}), (CPU, {})]
    assert session.get_providers() == [CUDA, CPU]
    assert session.get_provider_options()[CUDA]["gpu_mem_limit"] == "9"


def test_a_sequential_session_has_the_first(fake_cuda: Any) -> None:
    wanted = [(CUDA, {"device_id": 1}), (CUDA, {"device_id": 0}), CPU]
    text = "Duplicate provider 'CUDAExecutionProvider' encountered, ignoring. A sequential session runs in one process"
    with pytest.warns(UserWarning, match=re.escape(text)) as told:
        session = distort.InferenceSession(MODEL, providers=wanted)
    assert told[0].filename == __file__
    assert session.get_provider_options()[CUDA]["device_id"] == "1"


def test_the_same_gpu_twice_is_a_duplicate(loading: None) -> None:
    with (
        pytest.warns(UserWarning, match=r"Duplicate provider 'CUDAExecutionProvider' encountered, ignoring\.$"),
        pytest.raises(Loading) as made,
    ):
        distort.InferenceSession(MODEL, parallel(), providers=[CUDA, (CUDA, {"device_id": 0})])
    assert made.value.providers == [(CUDA, {}), (CPU, {})]


def test_a_users_stream_is_refused_on_actors(two_gpus: None) -> None:
    wanted = [(CUDA, {"user_compute_stream": 2**40})]
    with pytest.raises(RuntimeError, match="means nothing on the actors of a parallel session"):
        distort.InferenceSession(MODEL, parallel(), providers=wanted, enable_fallback=0)


def test_providers_of_session_options(loading: None) -> None:
    made = parallel()
    made.add_provider(CUDA, {"device_id": "0"})
    made.add_provider(CUDA, {"device_id": "1"})
    with pytest.raises(Loading) as raised:
        distort.InferenceSession(MODEL, made)
    assert raised.value.providers == [(CUDA, {"device_id": "0"}), (CUDA, {"device_id": "1"}), (CPU, {})]
