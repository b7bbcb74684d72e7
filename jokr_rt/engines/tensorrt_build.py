"""TensorRT plans: found in the bundle's folder `engines`, or built for the GPU of this machine and kept there."""

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import tensorrt as trt

from jokr_rt.bundle import Bundle
from jokr_rt.engines import Monitor
from jokr_rt.engines.cuda import Device
from jokr_rt.engines.tensorrt_cache import (
    SAMPLER_OPERATOR,
    BuildOptions,
    Key,
    NoPlanError,
    Plan,
    PlanCache,
    plan_key,
    read_model,
)
from jokr_rt.engines.tensorrt_callbacks import LOG, Progress, stdout_to_stderr
from jokr_rt.engines.tensorrt_machine import machine_key
from jokr_rt.errors import EngineError, EngineMissingError
from jokr_rt.interrupt import Interrupt, deferred_interrupt


@dataclass(frozen=True)
class Prepared:
    """A plan, ready to run. path: where it is kept. reason: why it was built now, "" where it was there already.

    seconds: how long that took. nbytes: of the plan.
    """

    graph: str
    path: Path
    engine: trt.ICudaEngine
    sampler: str
    key: Key
    nbytes: int
    reason: str = ""
    seconds: float = 0.0

    @property
    def max_batch(self) -> int:
        """Frames at once."""
        return int(self.engine.get_tensor_profile_shape(self.engine.get_tensor_name(0), 0)[2][0])


def prepare(
    bundle: Bundle,
    precision: str,
    device: Device,
    runtime: trt.Runtime,
    monitor: Monitor,
    options: BuildOptions | None = None,
) -> list[Prepared]:
    """Every graph's plan for this device, in the order of `bundle.signatures`. One missing or stale is built and kept.

    options: of the plans; None takes those of the last build. Raises EngineError, OutputError where plans cannot be
    kept, and KeyboardInterrupt, after which the plans that were finished are kept.
    """
    cache = PlanCache(bundle.root)
    options = options or cache.options(precision)
    builder = _Builder(cache, precision, options, machine_key(device), device, monitor)
    prepared: dict[str, Prepared | str] = {}
    for graph in bundle.signatures:
        try:
            prepared[graph] = builder.find(bundle, graph, runtime)
        except NoPlanError as error:
            prepared[graph] = str(error)
    reasons = {graph: reason for graph, reason in prepared.items() if isinstance(reason, str)}
    if reasons:
        cache.require_writable()
        for reason in dict.fromkeys(reasons.values()):
            graphs = ", ".join(graph for graph, its in reasons.items() if its == reason)
            monitor.say(f"tensorrt: building {graphs} in {precision} for {device.name}: {reason}")
    return [
        builder.build(bundle, graph, runtime, found) if isinstance(found, str) else found
        for graph, found in prepared.items()
    ]


def layers(engine: trt.ICudaEngine) -> list[dict[str, Any]]:
    """What TensorRT's engine inspector says of every layer of a plan."""
    text = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    found: list[dict[str, Any]] = json.loads(text)["Layers"]
    return found


@dataclass(frozen=True)
class _Builder:
    """Finds and builds the plans of one bundle in one precision, for one device."""

    cache: PlanCache
    precision: str
    options: BuildOptions
    machine: Key
    device: Device
    monitor: Monitor

    def find(self, bundle: Bundle, graph: str, runtime: trt.Runtime) -> Prepared:
        """Raises NoPlanError."""
        key = plan_key(read_model(bundle, graph, self.precision), self.precision, self.options, self.machine)
        plan = self.cache.find(graph, self.precision, key)
        engine = runtime.deserialize_cuda_engine(plan.content)
        path = self.cache.path(graph, self.precision)
        if engine is None:
            raise NoPlanError(str(LOG.failure(f"{path.name} cannot be deserialised")).removeprefix("tensorrt: "))
        return Prepared(graph, path, engine, plan.sampler, key, len(plan.content))

    def build(self, bundle: Bundle, graph: str, runtime: trt.Runtime, reason: str) -> Prepared:
        """Build a plan, keep it, and load it as the next run will."""
        start = time.perf_counter()
        model = read_model(bundle, graph, self.precision)
        key = plan_key(model, self.precision, self.options, self.machine)
        with deferred_interrupt() as interrupt:
            plan = self._plan(graph, model, interrupt)
            self.cache.store(graph, self.precision, key, plan, self.options)
        try:
            prepared = self.find(bundle, graph, runtime)
        except NoPlanError as error:
            raise EngineError(f"tensorrt: {graph} was built, and cannot be used: {error}") from None
        return replace(prepared, reason=reason, seconds=time.perf_counter() - start)

    def _plan(self, graph: str, model: bytes, interrupt: Interrupt) -> Plan:
        builder = trt.Builder(LOG)
        parsed = self._parse(builder, graph, model)
        config = builder.create_builder_config()
        progress = Progress(f"building {graph}", self.monitor, interrupt)
        self._configure(builder, config, parsed.network)
        config.progress_monitor = progress
        serialized = builder.build_serialized_network(parsed.network, config)
        if serialized is None:
            interrupt.raise_if_requested()
            raise LOG.failure(f"{graph} in {self.precision} cannot be built")
        progress.finish()
        self.cache.store_timing_cache(bytes(config.get_timing_cache().serialize()), self.machine)
        return Plan(bytes(serialized), parsed.sampler)

    def _configure(self, builder: trt.Builder, config: trt.IBuilderConfig, network: trt.INetworkDefinition) -> None:
        options = self.options
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace << 20)
        config.clear_flag(trt.BuilderFlag.TF32)
        config.builder_optimization_level = options.optimization_level
        config.max_aux_streams = 0  # a captured graph has but the one stream
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        profile = builder.create_optimization_profile()
        for index in range(network.num_inputs):
            tensor = network.get_input(index)
            rest = tuple(tensor.shape)[1:]
            profile.set_shape(tensor.name, (1, *rest), (1, *rest), (options.max_batch, *rest))
        config.add_optimization_profile(profile)
        measured = config.create_timing_cache(self.cache.timing_cache(self.machine))
        if not config.set_timing_cache(measured, ignore_mismatch=False):
            config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)

    def _parse(self, builder: trt.Builder, graph: str, model: bytes) -> "_Parsed":
        """With the sampler that was asked for. Raises EngineError."""
        if SAMPLER_OPERATOR not in model:
            return _parsed(builder, graph, model)
        if self.options.sampler != "native":
            try:
                self._register_plugin()
                parsed = _parsed(builder, graph, model)
                made, nodes = parsed.plugin_layers, _sampler_nodes(model)
                if made == nodes:
                    return replace(parsed, sampler="plugin")
                reason = f"TensorRT's parser made {made} plugin layers of {nodes} {SAMPLER_OPERATOR.decode()} nodes"
                reason += "; use --sampler native"
            except EngineError as error:
                reason = str(error)
            if self.options.sampler == "plugin":
                raise EngineError(f"tensorrt: {graph} cannot have the sampler plugin: {reason}")
            self.monitor.say(f"tensorrt: {graph} gets the sampler native instead of plugin: {reason}")
        parsed = _parsed(builder, graph, _inlined(model))
        if parsed.plugin_layers:
            raise EngineError(f"tensorrt: {graph} has {parsed.plugin_layers} plugin layers with --sampler native")
        return replace(parsed, sampler="native")

    def _register_plugin(self) -> None:
        try:
            with stdout_to_stderr():  # where the module tensorrt.plugin says that it is experimental
                from trt_plugins.plugin import register
        except ImportError as error:
            raise EngineError(f"this TensorRT has no plugins in Python: {error}") from error
        register(self.device.compute_capability)


@dataclass(frozen=True)
class _Parsed:
    """A network, with what it refers to: the parser and the model's weights."""

    network: trt.INetworkDefinition
    parser: trt.OnnxParser
    model: bytes
    sampler: str = "none"

    @property
    def plugin_layers(self) -> int:
        kinds = [self.network.get_layer(index).type for index in range(self.network.num_layers)]
        return kinds.count(trt.LayerType.PLUGIN_V3)


def _parsed(builder: trt.Builder, graph: str, model: bytes) -> _Parsed:
    # Strongly typed, as TensorRT 11 always is: the graph alone says what is computed in which precision.
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, LOG)
    if parser.parse(model):
        return _Parsed(network, parser, model)
    errors = [_parser_error(parser.get_error(index)) for index in range(parser.num_errors)]
    if not errors:
        raise LOG.failure(f"{graph} cannot be parsed")
    more = f" (and {len(errors) - 1} more errors)" if len(errors) > 1 else ""
    raise EngineError(f"tensorrt: {graph} cannot be parsed: {errors[0]}{more}")


def _parser_error(error: trt.ParserError) -> str:
    """Node, operator and message, and the functions that the node is in."""
    where = " ".join(word for word in (error.node_operator(), repr(error.node_name())) if word not in ("", "''"))
    stack = " in ".join(["", *error.local_function_stack()])
    return f"{where or 'model'}{stack}: {' '.join(error.desc().split())}"


def _onnx() -> ModuleType:
    try:
        import onnx.inliner
    except ImportError as error:
        raise EngineMissingError(
            f"building needs the package onnx, which cannot be imported ({error}): pip install 'jokr-rt[tensorrt]'"
        ) from error
    return onnx


def _sampler_nodes(model: bytes) -> int:
    nodes = _onnx().load_model_from_string(model).graph.node
    return sum(node.op_type == SAMPLER_OPERATOR.decode() for node in nodes)


def _inlined(model: bytes) -> bytes:
    """With the operator's function body, in standard operators, in its place."""
    onnx = _onnx()
    inlined = onnx.inliner.inline_local_functions(onnx.load_model_from_string(model))
    for node in inlined.graph.node:
        if node.op_type == "GridSample":
            # Its parser takes opset 20's "linear" for nearest, without a word: github.com/NVIDIA/TensorRT/issues/4646
            (mode,) = (attribute for attribute in node.attribute if attribute.name == "mode")
            mode.s = b"bilinear"
    return bytes(inlined.SerializeToString())
