"""From a session's arguments to a running engine and what the session tells of it."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from distort import config_keys, errors
from distort.engine import Engine, EngineConfig, load_model
from distort.enums import ExecutionMode, GraphOptimizationLevel
from distort.feeds import InputSpec
from distort.graph import inference, reader
from distort.graph.collecting import uncollected
from distort.graph.errors import ModelError
from distort.graph.ir import Graph, Model
from distort.graph.tensors import ExternalData
from distort.graph.types import SparseTensorType, TensorType, ValueType, element_of
from distort.kernels.compiler.choice import mode_of
from distort.logs import INFO, WARNING, Logger
from distort.metadata import ModelMetadata, NodeArg
from distort.native.values import OrtValue
from distort.options import SessionOptions
from distort.process import Settings
from distort.seeding import seed_nodes

if TYPE_CHECKING:
    from distort.profiling import Profiler

LEVELS = {
    GraphOptimizationLevel.ORT_DISABLE_ALL: "disable",
    GraphOptimizationLevel.ORT_ENABLE_BASIC: "basic",
    GraphOptimizationLevel.ORT_ENABLE_EXTENDED: "extended",
    GraphOptimizationLevel.ORT_ENABLE_LAYOUT: "layout",
    GraphOptimizationLevel.ORT_ENABLE_ALL: "all",
}
_EXTERNAL_FOLDER = "session.model_external_initializers_file_folder_path"
#: models older than this can't have initializers that feeds replace
_OVERRIDABLE_SINCE_IR = 4


class Loaded:
    """A model that runs, and its description."""

    def __init__(self, model: Model, config: EngineConfig, profiler: Profiler | None, logger: Logger) -> None:
        graph = model.graph
        fixed = [name for name in graph.inputs if name not in graph.defaults]
        overridable = list(graph.defaults) if model.ir_version >= _OVERRIDABLE_SINCE_IR else []
        self.inputs = [NodeArg._of(name, graph.types.get(name)) for name in fixed]
        self.overridable = [NodeArg._of(name, graph.types.get(name)) for name in overridable]
        self.specs = {name: InputSpec.of(name, graph.types.get(name)) for name in (*fixed, *overridable)}
        self.required = [arg.name for arg in self.inputs if not arg.type.startswith("optional")]
        self.metadata = ModelMetadata._of(model)
        self.output_names = list(graph.outputs)
        self.output_set = frozenset(graph.outputs)
        self.profiler = profiler
        self.logger = logger
        self.declared_shapes = _declared_shapes(graph)
        self._symbols = _symbols(graph)
        for name in self.overridable:
            logger.log(WARNING, _NOT_CONSTANT.format(name.name))
        self.engine = Engine(model, config)
        for change in self.engine.changes:
            logger.log(INFO, f"Graph optimization: {change}")
        self._outputs: list[NodeArg] | None = None
        self._lock = threading.Lock()

    @property
    def executor_name(self) -> str:
        """What runs the model, by the name of its event in a profile."""
        return "ParallelExecutor::Execute" if self.engine.parallel else "SequentialExecutor::Execute"

    def check_fetches(self, names: Sequence[str], space: str = "") -> None:
        """Raise for a fetch that is no output. onnxruntime has a space before its name in some places."""
        for name in names:
            if name not in self.output_set:
                raise errors.make("INVALID_ARGUMENT", f"Invalid output name:{space}{name}")

    def missing(self, values: Mapping[str, Any]) -> Exception | None:
        """The error for the first input that a node needs and nobody fed."""
        graph = self.engine.model.graph
        for name in self.required:
            readers = graph.consumers().get(name) if name not in values else None
            if readers:
                node = graph.nodes[readers[0]]
                text = f"Non-zero status code returned while running {node.op_type} node. Name:'{node.name}' "
                return errors.make("FAIL", f"{text}Status Message: Missing Input: {name}")
        return None

    def verify_shapes(self, names: Sequence[str], values: Sequence[Any]) -> None:
        """Warn where an output has not the shape that the model declares; it is handed out all the same."""
        for name, value in zip(names, values, strict=True):
            if self._is_declared(name, value):
                continue
            text = ",".join(str(dim) if isinstance(dim, int) else "-1" for dim in self.declared_shapes[name])
            self.logger.log(
                WARNING,
                f"Expected shape from model of {{{text}}} does not match actual shape of "
                f"{{{','.join(map(str, value.shape))}}} for output {name}",
            )

    def fits_declared(self, names: Sequence[str], values: Sequence[Any]) -> bool:
        """Whether all outputs have the shapes that the model declares."""
        return all(self._is_declared(name, value) for name, value in zip(names, values, strict=True))

    def _is_declared(self, name: str, value: Any) -> bool:
        declared, shape = self.declared_shapes.get(name), getattr(value, "shape", None)
        if declared is None or shape is None or declared == shape:
            return True
        return len(shape) == len(declared) and all(
            dim == size for dim, size in zip(declared, shape, strict=True) if isinstance(dim, int)
        )

    def _told(self, value_type: ValueType | None) -> ValueType | None:
        """A type without the symbols that inference made up."""
        if not isinstance(value_type, TensorType) or value_type.shape is None:
            return value_type
        known = (dim if isinstance(dim, int) or dim in self._symbols else None for dim in value_type.shape)
        return replace(value_type, shape=tuple(known))

    @property
    def outputs(self) -> list[NodeArg]:
        """Declared types, and what inference adds; inferred when first asked for."""
        with self._lock:
            if self._outputs is None:
                self.engine.infer_types()
                types = self.engine.model.graph.types
                self._outputs = [NodeArg._of(name, self._told(types.get(name))) for name in self.output_names]
            return self._outputs


_NOT_CONSTANT = (
    "Initializer {} appears in graph inputs and will not be treated as constant value/weight. This may prevent some of "
    "the graph optimizations, like const folding. Move it out of graph inputs if there is no need to override it."
)
_HARDWARE_SPECIFIC = (
    "Serializing optimized model with Graph Optimization level greater than ORT_ENABLE_EXTENDED. The generated model "
    "may contain optimizations of this version of distort."
)


def _symbols(graph: Graph) -> frozenset[str]:
    """Names of dimensions of inputs and outputs."""
    found: set[str] = set()
    for name in (*graph.inputs, *graph.outputs):
        known = graph.types.get(name)
        if isinstance(known, (TensorType, SparseTensorType)):
            found.update(dim for dim in known.shape or () if isinstance(dim, str))
    return frozenset(found)


def _declared_shapes(graph: Graph) -> dict[str, tuple[int | str | None, ...]]:
    """Shapes of outputs of which something is known."""
    found = {}
    for name in graph.outputs:
        known = graph.types.get(name)
        if isinstance(known, TensorType) and known.shape is not None:
            found[name] = known.shape
    return found


def check_options(options: SessionOptions) -> None:
    """What can be told before a model is read. Raises RuntimeError."""
    severity = options.log_severity_level
    if not -1 <= severity <= 4:
        raise RuntimeError(
            f"Invalid session log severity level. Not a valid onnxruntime::logging::Severity value: {severity}"
        )
    if options.use_per_session_threads and Settings.global_threads is not None:
        raise RuntimeError("use_per_session_threads must be false when using a global thread pool")
    if not options.use_per_session_threads and Settings.global_threads is None:
        raise RuntimeError(
            "When the session is not configured to use per session threadpools, the env must be created with the the "
            "CreateEnvWithGlobalThreadPools API."
        )


def load(
    source: str | bytes,
    options: SessionOptions,
    providers: Sequence[tuple[str, dict[str, str]]],
    profiling: bool,
    *,
    logger: Logger,
    read_config: bool = False,
    disabled_optimizers: frozenset[str] = frozenset(),
) -> Loaded:
    """Raises onnxruntime's exceptions."""
    profiler = _profiler(options) if profiling else None
    with errors.translated():
        config_keys.tell(options._config, config_keys.SESSION_KEYS, logger)
        config_keys.check_formats(options._config, bool(options.optimized_model_filepath))
        disabled_optimizers |= config_keys.disabled_optimizers(options._config)
        if options._load_canceled:
            start = "" if isinstance(source, bytes) else f"Load model from {source} failed:"
            raise ModelError("MODEL_LOAD_CANCELED", f"{start}Graph loading canceled due to user request.")
        if profiler is None:
            model = read(source, options)
        else:
            with profiler.span("model_loading_array" if isinstance(source, bytes) else "model_loading_uri"):
                model = read(source, options)
        if read_config:
            options = _with_model_config(model, options, logger)
        if profiler is None and options.enable_profiling:
            profiler = _profiler(options)
        if profiler is None:
            return _start(model, source, options, providers, None, logger, disabled_optimizers)
        with profiler.span("session_initialization"):
            loaded = _start(model, source, options, providers, profiler, logger, disabled_optimizers)
        profiler.watch(loaded.engine.model.graph)
        if loaded.engine.parallel:
            profiler.name_stages([f"{stage.id} on {stage.device.id}" for stage in loaded.engine.plan.stages])
        return loaded


def _profiler(options: SessionOptions) -> Profiler:
    from distort.profiling import Profiler

    return Profiler(options.profile_file_prefix)


#: what a model may say of its sessions, in JSON under this key of its metadata
_MODEL_CONFIG = "ort_config"
_MODEL_OPTIONS = {
    "intra_op_num_threads": int,
    "inter_op_num_threads": int,
    "execution_mode": ExecutionMode,
    "graph_optimization_level": GraphOptimizationLevel,
    "enable_profiling": bool,
}


def _with_model_config(model: Model, options: SessionOptions, logger: Logger) -> SessionOptions:
    """Options with those that the model's own metadata sets. Raises Fail for JSON that can't be read."""
    text = model.metadata.get(_MODEL_CONFIG)
    if text is None:
        return options
    import json

    try:
        chosen = json.loads(text)["session_options"]
        changed = options._copy()
        for name, value in chosen.items():
            if name not in _MODEL_OPTIONS:
                logger.log(WARNING, f"The model's {_MODEL_CONFIG} sets {name}, which is no option that models set.")
                continue
            setattr(changed, name, _MODEL_OPTIONS[name](value))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError("FAIL", f"The model's {_MODEL_CONFIG} can't be read: {error}") from error
    return changed


@uncollected()
def read(source: str | bytes, options: SessionOptions) -> Model:
    """The model that options ask for: their dimensions and initializers in it, not optimized yet."""
    folder = options._config.get(_EXTERNAL_FOLDER)
    if folder is None and not isinstance(source, bytes):
        folder = str(Path(source).resolve().parent)
    replaced = {*options._initializers, *options._external_initializers}
    model = load_model(
        source,
        external=ExternalData(folder, options._external_files, replaced),
        released_only=options._config.get("session.allow_released_opsets_only") != "0",
        strict_types=options._config.get("session.strict_shape_type_inference") == "1",
        map_weights=_maps_weights(options),
    )
    _fix_dims(model, source, options)
    _replace_initializers(model, options)
    if Settings.seed is not None:
        seed_nodes(model, Settings.seed)
    return model


def _maps_weights(options: SessionOptions) -> bool:
    """Whether large weights may stay in the model's file: compiled steps have copies. Windows would lock it."""
    keys = options._distort_keys()
    if keys.get("map_weights", "1") == "0" or sys.platform == "win32":
        return False
    return mode_of(keys.get("compile", "1")) != "0"


def _start(
    model: Model,
    source: str | bytes,
    options: SessionOptions,
    providers: Sequence[tuple[str, dict[str, str]]],
    profiler: Profiler | None,
    logger: Logger,
    disabled_optimizers: frozenset[str],
) -> Loaded:
    target = options.optimized_model_filepath
    if target and not Path(target).resolve().parent.is_dir():
        raise errors.InvalidArgument("SystemError : 2")
    config = EngineConfig(
        parallel=options.execution_mode == ExecutionMode.ORT_PARALLEL,
        n_actors=max(0, options.inter_op_num_threads),
        intra_op_threads=_threads(options),
        level=LEVELS[options.graph_optimization_level],
        providers=[(name, dict(chosen)) for name, chosen in providers],
        distort_keys=options._distort_keys() | {"keep_qdq": options._config.get("session.disable_quant_qdq", "0")},
        model_name=model.graph.name if isinstance(source, bytes) else Path(source).name,
        disabled_optimizers=disabled_optimizers,
        spin_us=config_keys.spin_us(options._config),
        spin_threads=options._config.get("session.intra_op.allow_spinning") != "0",
        fold_nbytes=config_keys.number(options._config, "optimization.constant_folding_max_output_size_in_bytes"),
    )
    loaded = Loaded(model, config, profiler, logger)
    if target:
        try:
            _write(loaded, target, options)
        except BaseException:
            loaded.engine.close()
            raise
    return loaded


def _threads(options: SessionOptions) -> int:
    if not options.use_per_session_threads and Settings.global_threads is not None:
        return max(0, Settings.global_threads[0])
    wanted: int = options.intra_op_num_threads
    return max(0, wanted)


def _write(loaded: Loaded, target: str, options: SessionOptions) -> None:
    from distort.graph import writer

    if os.path.splitext(target)[1] == ".ort":
        raise ModelError("NOT_IMPLEMENTED", f"{target}: models are written as ONNX, not in onnxruntime's own format.")
    if loaded.engine.config.level in ("layout", "all"):
        loaded.logger.log(WARNING, _HARDWARE_SPECIFIC)
    start = "session.optimized_model_external_initializers_"
    least = config_keys.number(options._config, f"{start}min_size_in_bytes")
    model = loaded.engine.model
    if loaded.engine.config.parallel and model.graph.nodes:
        from distort.scheduler.annotated import annotated_model

        annotated = annotated_model(loaded.engine.plan, model)
        if annotated.ir_version != model.ir_version:
            was, now = model.ir_version, annotated.ir_version
            loaded.logger.log(INFO, f"The plan is written into {target}: its IR version is {now}, and was {was}.")
        model = annotated
    writer.save(model, target, external=options._config.get(f"{start}file_name") or False, least_nbytes=least)


def _fix_dims(model: Model, source: str | bytes, options: SessionOptions) -> None:
    """Free dimension overrides: symbols become sizes, everywhere."""
    sizes = dict(options._free_dims_by_name)
    types = model.graph.types
    if options._free_dims_by_denotation:
        proto, _ = reader.parse(source)
        for info in proto.graph.input:
            for axis, dim in enumerate(info.type.tensor_type.shape.dim):
                size = options._free_dims_by_denotation.get(dim.denotation) if dim.denotation else None
                if size is None or dim.HasField("dim_value"):
                    continue
                if dim.dim_param:
                    sizes[dim.dim_param] = size
                elif isinstance(known := types.get(info.name), TensorType) and known.shape is not None:
                    types[info.name] = replace(known, shape=(*known.shape[:axis], size, *known.shape[axis + 1 :]))
    if sizes:
        for name, known in types.items():
            types[name] = inference.with_dims(known, sizes)


def _replace_initializers(model: Model, options: SessionOptions) -> None:
    initializers = model.graph.initializers
    for name in options._external_initializers:
        if name not in initializers:
            raise ModelError("FAIL", f"Failed to find existing initializer with name {name}.")
    for name, given in (*options._initializers.items(), *options._external_initializers.items()):
        if name in initializers:  # onnxruntime ignores others too
            initializers[name] = _replacement(name, given, model)


def _replacement(name: str, given: OrtValue, model: Model) -> np.ndarray[Any, Any]:
    value = given.numpy()
    known = model.graph.types.get(name)
    if isinstance(known, (TensorType, SparseTensorType)):
        told = f"Initializer {name} is {known} {list(known.shape or ())}, and was given {given.data_type()} "
        told += f"{list(value.shape)}."
        if known.shape is not None and value.shape != known.shape:
            raise ModelError("FAIL", f"{told} Replacement tensor's dimensions do not match.")
        if known.element != element_of(value.dtype):
            raise ModelError("FAIL", f"{told} Replacement tensor's data type does not match.")
    return value
