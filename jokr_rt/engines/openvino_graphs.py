"""A bundle's graphs as OpenVINO's models: read, checked, and folded for one direction.

An STN is computed in float32 whatever was asked for: where things are is a number near 1 that bfloat16 rounds to half a
pixel, and it costs next to nothing.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13 as ops
from openvino.frontend import NodeContext
from openvino.frontend.onnx import ConversionExtension

from jokr_rt.bundle import DIRECTIONS, Bundle
from jokr_rt.engines.contract import Port, check_graph, failure

NAME = "openvino"


@dataclass(frozen=True)
class Part:
    """A model that is compiled by itself. precise: held to float32. sources: SHA-256 of what `build` makes it of.

    kept: whether it may stay on disk once it is compiled; not where somebody's picture is in it.
    """

    name: str
    precise: bool
    sources: tuple[str, ...]
    build: Callable[[], ov.Model]
    kept: bool = True


@cache
def core() -> ov.Core:  # noqa: TID251
    """The only one of the process, never dropped. A core gives the thread that it is loaded in a signal stack, and
    puts the one of before back when it is dropped: of two, dropped in another order or by another thread, that one is
    freed already, and the next Ctrl-C ends in a segmentation fault."""
    made = ov.Core()  # noqa: TID251
    made.add_extension(ConversionExtension("AffineGridSample", "jokr", _affine_grid_sample))
    return made


def whole_graph(bundle: Bundle, graph: str, precision: str) -> tuple[ov.Model, bool]:
    """The model of a graph, for any batch size, and whether it is held to float32. Raises BundleError, EngineError."""
    return _read(bundle, graph, precision), graph.startswith("stn-")


def direction_parts(
    bundle: Bundle, direction: str, appearance: NDArray[np.float32], precision: str
) -> tuple[Part, Part, Part]:
    """What a frame of "a2b" or "b2a" passes: "extract", "place", "paint", for a batch of one.

    "extract" lacks the extractor's appearance, and what only that needs; "paint" has the target's, (1, 3, size/2,
    size/2), as a constant.
    """
    stn, looks_hash = f"stn-{direction}", hashlib.sha256(appearance.tobytes()).hexdigest()
    is_own = np.array_equal(appearance, bundle.appearance(DIRECTIONS[direction][1]))

    def source(graph: str) -> str:
        return bundle.graph(graph, precision).sha256

    def extract() -> ov.Model:
        model = _single(_read(bundle, "extractor", precision))
        return ov.Model([model.output(name) for name in ("keypoints", "confidence")], model.get_parameters(), "extract")

    def paint() -> ov.Model:
        model = _single(_read(bundle, "generator", precision))
        warped, looks = (model.input(name).get_node() for name in ("warped", "appearance"))
        looks.output(0).replace(ops.constant(appearance).output(0))
        return ov.Model(model.outputs, [warped], "paint")

    return (
        Part("extract", False, (source("extractor"),), extract),
        Part("place", True, (source(stn),), lambda: _single(_read(bundle, stn, precision))),
        Part("paint", False, (source("generator"), looks_hash), paint, kept=is_own),
    )


def _read(bundle: Bundle, graph: str, precision: str) -> ov.Model:
    path = bundle.graph_path(graph, precision)
    try:
        model = core().read_model(path)
    except RuntimeError as error:
        raise failure(NAME, f"{path} cannot be loaded", error) from error
    inputs, outputs = ([_port(port) for port in ports] for ports in (model.inputs, model.outputs))
    check_graph(path, bundle.signatures[graph], inputs, outputs)
    return model


def _port(port: ov.Output) -> Port:
    shape = tuple("N" if side.is_dynamic else side.get_length() for side in port.partial_shape)
    return port.any_name, shape, str(port.element_type.to_dtype())


def _single(model: ov.Model) -> ov.Model:
    """For a batch of one: its shapes known, the compiler plans its memory ahead."""
    model.reshape({port.any_name: [1, *list(port.partial_shape)[1:]] for port in model.inputs})
    return model


def _affine_grid_sample(node: NodeContext) -> list[ov.Output]:
    """The operator's ONNX function body, which OpenVINO's reader does not inline, in its own operators.

    heatmaps (N, C, H, W), theta (N, 2, 3) -> heatmaps sampled at theta @ (p, 1) for every output cell's p in [-1, 1].
    """
    heatmaps, theta = node.get_input(0), node.get_input(1)
    aligned = node.get_attribute("align_corners", 0)
    along_x, along_y, shift = ops.split(theta, ops.constant(2), 3).outputs()  # each (N, 2, 1)
    by_column = ops.unsqueeze(ops.multiply(along_x, _cell_centres(heatmaps, 3, aligned)), ops.constant([2]))
    by_row = ops.unsqueeze(
        ops.add(ops.multiply(along_y, _cell_centres(heatmaps, 2, aligned)), shift), ops.constant([3])
    )
    grid = ops.transpose(ops.add(by_column, by_row), ops.constant([0, 2, 3, 1]))  # (N, H, W, 2)
    options = {"align_corners": bool(aligned), "mode": "bilinear", "padding_mode": "zeros"}
    return [ops.grid_sample(heatmaps, grid, options).output(0)]


def _cell_centres(heatmaps: ov.Output, axis: int, aligned: int) -> ov.Node:
    """Coordinates in [-1, 1] of the cells along one axis: (2 i + 1 - aligned) / (size - aligned) - 1."""
    size = ops.convert(ops.gather(ops.shape_of(heatmaps), ops.constant(axis), ops.constant(0)), "f32")
    cells = ops.range(_f32(0), size, _f32(1), "f32")
    doubled = ops.add(ops.multiply(cells, _f32(2)), _f32(1 - aligned))
    return ops.subtract(ops.divide(doubled, ops.subtract(size, _f32(aligned))), _f32(1))


def _f32(value: float) -> ov.Node:
    # Arithmetic with Python's numbers would make constants of 64 bits.
    return ops.constant(value, ov.Type.f32)
