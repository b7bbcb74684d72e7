"""A model's stages as ONNX graphs, with the names, shapes and dtypes of `jokr_rt.bundle.signatures`."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import onnx
import torch
from torch import Tensor, nn

from export.op import DOMAIN, function_body, translations
from export.subpixel import depth_to_space_in_onnx
from jokr_rt.bundle import FORMAT_VERSION, Signature, TensorSpec, signatures
from jokr_rt.config import ModelConfig
from jokr_rt.errors import ParityError

OPSET = 20


def export_graph(name: str, stage: nn.Module, config: ModelConfig) -> onnx.ModelProto:
    """One stage as an ONNX graph of opset 20 with a dynamic batch and its weights inside.

    Raises ParityError where its names, shapes or dtypes differ from the signature's.
    """
    signature = signatures(config)[name]
    batch = torch.export.Dim("N")
    with _quiet():
        program = torch.onnx.export(
            stage,
            tuple(_example(spec) for spec in signature.inputs),
            input_names=[spec.name for spec in signature.inputs],
            output_names=[spec.name for spec in signature.outputs],
            dynamic_shapes=tuple({0: batch} for _ in signature.inputs),
            custom_translation_table=translations() | {torch.ops.jokr.depth_to_space.default: depth_to_space_in_onnx},
            opset_version=OPSET,
            external_data=False,
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # as dynamo=True has it
    proto = program.model_proto
    _finish(proto, name)
    onnx.checker.check_model(proto, full_check=True)
    _check_signature(proto, name, signature)
    return proto


def _example(spec: TensorSpec) -> Tensor:
    """Zeros with a batch of two; a batch of one would be taken for a constant."""
    shape = [2 if side == "N" else int(side) for side in spec.shape]
    return torch.zeros(shape, dtype=getattr(torch, spec.dtype))


def _finish(proto: onnx.ModelProto, name: str) -> None:
    """Add the custom operator's body and a word on what this is; drop the exporter's notes, which hold local paths."""
    for node in proto.graph.node:
        del node.metadata_props[:]
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        del value.metadata_props[:]
    del proto.graph.metadata_props[:]
    if any(node.domain == DOMAIN for node in proto.graph.node):
        proto.functions.append(function_body())
    proto.graph.name = name
    onnx.helper.set_model_props(proto, {"jokr.graph": name, "jokr.format_version": str(FORMAT_VERSION)})


def _check_signature(proto: onnx.ModelProto, name: str, signature: Signature) -> None:
    for specs, values in ((signature.inputs, proto.graph.input), (signature.outputs, proto.graph.output)):
        expected = [(spec.name, spec.shape, spec.dtype) for spec in specs]
        found = [_port(value) for value in values]
        if found != expected:
            raise ParityError(f"{name}: the exported graph has {found} instead of {expected}")


def _port(value: onnx.ValueInfoProto) -> tuple[str, tuple[int | str, ...], str]:
    tensor = value.type.tensor_type
    shape = tuple(side.dim_param or side.dim_value for side in tensor.shape.dim)
    return value.name, shape, str(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns of packages that are not needed here, and of its own deprecations."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
