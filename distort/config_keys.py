"""The config entries that onnxruntime documents, and what each does here.

``python -m distort.config_keys`` writes docs/config_keys.md; a test holds the two against each other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from distort.graph.errors import ModelError
from distort.logs import INFO, WARNING, Logger

_PREPACKING = "weights are packed once, when the first plan is made that reads them"
_SPINNING = "a run's threads look for work for about half a millisecond, and then sleep"
#: how long who waits for an actor is awake, where nobody says
_SPIN_US = "2000"
_QDQ = "QuantizeLinear and DequantizeLinear are run as they are written"
_MLAS = "it steers onnxruntime's own matrix library"
_MOE = "experts' weights are not moved between memories"
_CONTEXT = "no provider here compiles subgraphs"


@dataclass(frozen=True, slots=True)
class Key:
    """A config entry. ``does`` ends the sentence "…", or says why there is no effect."""

    name: str  # one that ends in a dot stands for all that begin with it
    default: str
    obeyed: bool
    does: str
    misleads: bool = False  # without effect, and who sets it may count on one


def _obeyed(name: str, default: str, does: str) -> Key:
    return Key(name, default, True, does)


def _idle(name: str, default: str, why: str, *, misleads: bool = False) -> Key:
    return Key(name, default, False, why, misleads)


SESSION_KEYS: tuple[Key, ...] = (
    _obeyed("ep.context_enable", "0", "`1` writes nothing, as with onnxruntime's CPU provider: " + _CONTEXT),
    _idle("ep.context_embed_mode", "0", _CONTEXT),
    _idle("ep.context_file_path", "", _CONTEXT),
    _idle("ep.context_model_external_initializers_file_name", "", _CONTEXT),
    _idle("ep.context_source_model_path", "", _CONTEXT),
    _idle("ep.cpu.qmoe_deferred_scale", "0", "QMoE scales at once"),
    _idle("ep.cuda.", "", "it steers kernels of onnxruntime's own CUDA provider"),
    _idle("ep.enable_weightless", "0", _CONTEXT),
    _idle("ep.enable_weightless_mode", "0", _CONTEXT),
    _idle("ep.enable_weightless_ep_context_nodes", "0", _CONTEXT),
    _idle("mlas.", "0", _MLAS),
    _obeyed(
        "optimization.constant_folding_max_output_size_in_bytes",
        "",
        "the largest constant [bytes] that a folded node may leave in the model",
    ),
    _obeyed(
        "optimization.disable_specified_optimizers", "", "names, with `;` between them, of optimizers that don't run"
    ),
    _idle("optimization.enable_cast_chain_elimination", "0", "casts that do nothing always go"),
    _idle("optimization.enable_gelu_approximation", "0", "Gelu is always exact"),
    _idle("optimization.minimal_build_optimizations", "", "there is no minimal build"),
    _obeyed("session.allow_released_opsets_only", "1", "`0` lets models of unreleased opset versions in"),
    _idle(
        "session.collect_node_memory_stats_to_file", "", "nothing is written; a profile has the sizes", misleads=True
    ),
    _idle(
        "session.debug_layout_transformation", "0", "layouts are chosen when a plan is made; `DISTORT_DUMP` shows them"
    ),
    _idle("session.disable_aot_function_inlining", "0", "functions are inlined before optimization"),
    _obeyed(
        "session.disable_cpu_ep_fallback", "0", "`1` refuses models of which nodes would run on the CPU by default"
    ),
    _idle("session.disable_double_qdq_remover", "0", _QDQ),
    _idle("session.disable_model_compile", "0", _CONTEXT),
    _idle("session.disable_prepacking", "0", _PREPACKING),
    _idle("session.disable_qdq_constant_folding", "0", "constants are folded, quantized or not"),
    _obeyed(
        "session.disable_quant_qdq",
        "0",
        "`1`: compiled products and convolutions of what was dequantized are done in floating point, not on its bytes",
    ),
    _idle("session.dynamic_block_base", "0", "loops are not split by cost"),
    _idle("session.enable_dq_matmulnbits_fusion", "0", _QDQ),
    _idle("session.enable_moe_expert_counting", "0", _MOE),
    _idle("session.enable_moe_expert_statistics", "0", _MOE),
    _idle("session.enable_quant_qdq_cleanup", "0", _QDQ),
    _idle("session.external_data_loader.", "", "external data is mapped into memory"),
    _idle("session.fail_on_suboptimal_compiled_model", "0", _CONTEXT),
    _idle("session.force_spinning_stop", "0", _SPINNING),
    _idle("session.function_expansion_byte_limit", "", "the limit here is one of depth"),
    _idle("session.function_expansion_node_limit", "", "the limit here is one of depth"),
    _idle("session.gqa_value_layout", "", "GroupQueryAttention has one layout"),
    _idle("session.graph_optimizations_loop_level", "1", "passes run until nothing changes"),
    _obeyed("session.inter_op.allow_spinning", "1", "`0`: actors and their callers sleep at once while they wait"),
    _idle("session.inter_op.spin_backoff_max", "", "who waits awake looks all the time"),
    _obeyed(
        "session.inter_op.spin_duration_us",
        _SPIN_US,
        "how long [µs] they wait awake before that, where waits have been shorter lately",
    ),
    _obeyed("session.intra_op.allow_spinning", "1", "`0`: the threads of a run sleep at once when there is no work"),
    _idle("session.intra_op.spin_backoff_max", "", _SPINNING),
    _idle("session.intra_op.spin_duration_us", "", _SPINNING),
    _idle("session.intra_op_thread_affinities", "", "threads are not bound to processors", misleads=True),
    _idle("session.kernel_dispatch_policy", "", "there is one kernel for each operator and device"),
    _idle("session.layer_assignment_settings", "", "see `distort.partition`", misleads=True),
    _obeyed("session.load_model_format", "ONNX", "`ORT` is refused: onnxruntime's own format is not read"),
    _idle("session.max_shape_override", "", "memory is not planned for largest shapes"),
    _obeyed(
        "session.model_external_initializers_file_folder_path", "", "where external data of a model given as bytes lies"
    ),
    _idle("session.moe.", "", _MOE),
    _idle("session.moe_expert_counter_alpha", "", _MOE),
    _idle("session.moe_expert_counter_beta", "", _MOE),
    _idle("session.moe_expert_counter_state_file", "", _MOE),
    _idle("session.name_based_layer_assignment", "", "see `distort.partition`", misleads=True),
    _idle("session.node_partition_config_file", "", "see `distort.partition`", misleads=True),
    _obeyed(
        "session.optimized_model_external_initializers_file_name",
        "",
        "the file beside `optimized_model_filepath` that large initializers go into",
    ),
    _obeyed("session.optimized_model_external_initializers_min_size_in_bytes", "1024", "from which size [bytes] on"),
    _idle("session.prepack.enable_parallel", "0", _PREPACKING),
    _idle("session.qdq_matmulnbits_accuracy_level", "", _QDQ),
    _idle("session.qdq_matmulnbits_block_size", "", _QDQ),
    _idle("session.qdqisint8allowed", "0", _QDQ),
    _obeyed("session.record_ep_graph_assignment_info", "0", "`1` lets `get_provider_graph_assignment_info` answer"),
    _idle("session.resource_cuda_partitioning_settings", "", "see `distort.partition`", misleads=True),
    _idle("session.save_external_prepacked_constant_initializers", "0", _PREPACKING),
    _obeyed("session.save_model_format", "ONNX", "`ORT` is refused: onnxruntime's own format is not written"),
    _idle("session.set_denormal_as_zero", "0", "denormal numbers are kept", misleads=True),
    _obeyed(
        "session.strict_shape_type_inference", "0", "`1` refuses models whose declared shapes contradict inference"
    ),
    _idle("session.strict_workspace_verification", "0", "kernels ask for no workspace"),
    _idle("session.use_device_allocator_for_initializers", "0", "numpy allocates"),
    _idle("session.use_env_allocators", "0", "numpy allocates"),
    _idle("session.use_external_initializer_file_buffers_directly", "0", "external data is mapped and not copied"),
    _idle("session.use_ort_model_bytes_directly", "0", "onnxruntime's own format is not read"),
    _idle("session.use_ort_model_bytes_for_initializers", "0", "onnxruntime's own format is not read"),
    _idle("session.x64quantprecision", "0", "8-bit products never saturate"),
)

RUN_KEYS: tuple[Key, ...] = (
    _obeyed(
        "disable_synchronize_execution_providers",
        "0",
        "`1`: a run on a GPU of this process returns before its results are there; whoever reads them waits for them",
    ),
    _obeyed(
        "gpu_graph_id",
        "0",
        "which captured graph of this process's GPU the run is one of, and is captured as; `-1`: none",
    ),
    _obeyed(
        "memory.enable_memory_arena_shrinkage",
        "",
        "`gpu:0`: what the session keeps of that GPU's memory for later runs is given back after this one; `cpu:0` is "
        "accepted and shrinks nothing; others raise",
    ),
    _idle("qnn.", "", "it steers the QNN provider"),
)


def _find(keys: tuple[Key, ...], name: str) -> Key | None:
    for key in keys:
        if name == key.name or (key.name.endswith(".") and name.startswith(key.name)):
            return key
    return None


def tell(entries: Mapping[str, str], keys: tuple[Key, ...], logger: Logger, what: str = "Session") -> None:
    """Log which entries have no effect: as a warning where who set it may count on one."""
    for name, value in entries.items():
        if name.startswith("distort."):
            continue
        key = _find(keys, name)
        if key is None:
            known_area = re.match(r"(session|optimization|mlas|memory)\.", name) is not None
            severity = WARNING if known_area else INFO
            logger.log(severity, f"{what} config key '{name}' is not known, and has no effect.")
        elif not key.obeyed and value != key.default:
            severity = WARNING if key.misleads else INFO
            logger.log(severity, f"{what} config key '{name}' has no effect: {key.does}.")


def refuses_cpu(entries: Mapping[str, str]) -> bool:
    """Whether no node may run on the CPU (session.disable_cpu_ep_fallback)."""
    return entries.get("session.disable_cpu_ep_fallback") == "1"


def check_providers(entries: Mapping[str, str], explicit_cpu: bool, n_nodes: int) -> None:
    """Obey session.disable_cpu_ep_fallback, where the CPU runs ``n_nodes``. Raises ModelError."""
    if not refuses_cpu(entries):
        return
    if explicit_cpu:
        raise ModelError(
            "INVALID_ARGUMENT",
            "Conflicting session configuration: explicitly added the CPU EP to the session, but also disabled fallback "
            "to the CPU EP via session configuration options.",
        )
    if n_nodes:
        raise ModelError(
            "FAIL",
            "This session contains graph nodes that are assigned to the default CPU EP, but fallback to CPU EP has "
            "been explicitly disabled by the user.",
        )


def check_formats(entries: Mapping[str, str], saves: bool) -> None:
    """Refuse onnxruntime's own format. Raises ModelError."""
    if entries.get("session.load_model_format") == "ORT":
        raise ModelError("NOT_IMPLEMENTED", "session.load_model_format is ORT: models are read as ONNX alone.")
    if saves and entries.get("session.save_model_format") == "ORT":
        raise ModelError("NOT_IMPLEMENTED", "session.save_model_format is ORT: models are written as ONNX alone.")


def disabled_optimizers(entries: Mapping[str, str]) -> frozenset[str]:
    names = entries.get("optimization.disable_specified_optimizers", "").split(";")
    return frozenset(name.strip() for name in names if name.strip())


def number(entries: Mapping[str, str], name: str) -> int | None:
    """An entry that is a number of bytes; None where it isn't set. Raises ModelError for what is none."""
    text = entries.get(name)
    if not text:
        return None
    if not text.isdecimal():
        raise ModelError("INVALID_ARGUMENT", f"Session config key '{name}' wants a number of bytes, got '{text}'.")
    return int(text)


def spin_us(entries: Mapping[str, str]) -> int:
    """How long actors and their callers wait awake. Raises ModelError for what is no number."""
    if entries.get("session.inter_op.allow_spinning") == "0":
        return 0
    text = entries.get("session.inter_op.spin_duration_us", _SPIN_US)
    if not text.isdecimal():
        raise ModelError(
            "INVALID_ARGUMENT", f"session.inter_op.spin_duration_us wants a number of microseconds, got '{text}'."
        )
    return int(text)


def table_text() -> str:
    """docs/config_keys.md."""
    lines = [
        "# Config entries",
        "",
        "What `SessionOptions.add_session_config_entry` and `RunOptions.add_run_config_entry` of onnxruntime 1.32 do",
        "here. `python -m distort.config_keys` writes this page; a test holds it against the code. An entry without",
        "effect is logged when a session is made: as a warning where it is marked, else as information. Entries that",
        "begin with `distort.` are in [usage.md](usage.md).",
    ]
    for title, keys in (("Sessions", SESSION_KEYS), ("Runs", RUN_KEYS)):
        lines += ["", f"## {title}", "", "| key | default | here |", "|---|---|---|"]
        for key in keys:
            name = f"`{key.name}*`" if key.name.endswith(".") else f"`{key.name}`"
            default = f"`{key.default}`" if key.default else ""
            note = key.does if key.obeyed else f"no effect: {key.does}{' (warns)' if key.misleads else ''}"
            lines.append(f"| {name} | {default} | {note} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    from pathlib import Path

    Path("docs/config_keys.md").write_text(table_text(), encoding="utf-8")
