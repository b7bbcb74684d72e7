"""The ONNX side of `jokr::affine_grid_sample`: one node for the TensorRT plugin, standard operators for everyone else.

The node carries what TensorRT's parser asks of a plugin. Its function body lets any runtime without the plugin run it;
the body builds the grid itself, as TensorRT's parser has no AffineGrid.
"""

from collections.abc import Callable
from typing import Any

import onnx
import onnx.parser
import onnxscript
import onnxscript.values
import torch
from onnx.defs import OpSchema
from onnxscript import ir

from jokr_rt.training.networks import affine_grid_sample

DOMAIN, VERSION, NAME = "jokr", 1, "AffineGridSample"
ATTRIBUTES: dict[str, int | str] = {"align_corners": 0, "plugin_namespace": DOMAIN, "plugin_version": "1", "aot": 1}

# Coordinates of cell i of n: (2 i + 1 - align_corners) / (n - align_corners) - 1, as torch's affine_grid has them.
# The grid stays float32 whatever the heatmaps are: in 16 bits its rounding alone moves values by 4 percent. Nor does
# every runtime sample 16 bits on a float32 grid (ONNX Runtime on CUDA does not), hence the casts at the end.
_BODY = """
<opset_import: ["" : 20], domain: "jokr",
 doc_string: "sampled(p) = heatmaps(theta (p, 1)), bilinear, zeros outside; coordinates (x, y) in [-1, 1]">
AffineGridSample
<align_corners: int = 0, plugin_namespace: string = "jokr", plugin_version: string = "1", aot: int = 1>
(heatmaps, theta) => (sampled)
{
  one = Constant <value = float {1}> ()
  two = Constant <value = float {2}> ()
  first = Constant <value = int64 {0}> ()
  step = Constant <value = int64 {1}> ()
  aligned_int = Constant <value_int: int = @align_corners> ()
  aligned = Cast <to = 1> (aligned_int)
  offset = Sub (one, aligned)

  width_dim = Shape <start = 3, end = 4> (heatmaps)
  width = Squeeze (width_dim)
  width_float = Cast <to = 1> (width)
  width_span = Sub (width_float, aligned)
  columns = Range (first, width, step)
  columns_float = Cast <to = 1> (columns)
  columns_doubled = Mul (columns_float, two)
  columns_shifted = Add (columns_doubled, offset)
  columns_scaled = Div (columns_shifted, width_span)
  xs = Sub (columns_scaled, one)

  height_dim = Shape <start = 2, end = 3> (heatmaps)
  height = Squeeze (height_dim)
  height_float = Cast <to = 1> (height)
  height_span = Sub (height_float, aligned)
  rows = Range (first, height, step)
  rows_float = Cast <to = 1> (rows)
  rows_doubled = Mul (rows_float, two)
  rows_shifted = Add (rows_doubled, offset)
  rows_scaled = Div (rows_shifted, height_span)
  ys = Sub (rows_scaled, one)

  x_scale, y_scale, shift = Split <axis = 2, num_outputs = 3> (theta)
  along_x = Mul (x_scale, xs)
  along_y = Mul (y_scale, ys)
  along_y_shifted = Add (along_y, shift)
  row_axis = Constant <value_ints = [2]> ()
  column_axis = Constant <value_ints = [3]> ()
  by_column = Unsqueeze (along_x, row_axis)
  by_row = Unsqueeze (along_y_shifted, column_axis)
  planes = Add (by_column, by_row)
  grid = Transpose <perm = [0, 2, 3, 1]> (planes)
  heatmaps_float = Cast <to = 1> (heatmaps)
  sampled_float = GridSample <mode = "linear", padding_mode = "zeros", align_corners: int = @align_corners>
    (heatmaps_float, grid)
  sampled = CastLike (sampled_float, heatmaps)
}
"""


def function_body() -> onnx.FunctionProto:
    """The operator in standard ones of opset 20. heatmaps (N, C, H, W) float32 or float16, theta (N, 2, 3) float32."""
    return onnx.parser.parse_function(_BODY)


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """For `torch.onnx.export(custom_translation_table=...)`, which needs the operator's schema, registered here."""
    if not onnx.defs.has(NAME, DOMAIN):
        onnx.defs.register_schema(_schema())
    opset = onnxscript.values.Opset(DOMAIN, VERSION)

    def translate(heatmaps: ir.Value, theta: ir.Value) -> ir.Value:
        return opset.AffineGridSample(heatmaps, theta, **ATTRIBUTES)

    return {torch.ops.jokr.affine_grid_sample.default: translate}


def _schema() -> OpSchema:
    defaults = [onnx.helper.make_attribute(name, value) for name, value in ATTRIBUTES.items()]
    return OpSchema(
        NAME,
        DOMAIN,
        VERSION,
        doc=affine_grid_sample.__doc__ or "",
        inputs=[OpSchema.FormalParameter("heatmaps", "T"), OpSchema.FormalParameter("theta", "tensor(float)")],
        outputs=[OpSchema.FormalParameter("sampled", "T")],
        type_constraints=[("T", ["tensor(float)", "tensor(float16)"], "Heatmaps before and after.")],
        attributes=[OpSchema.Attribute(default.name, default) for default in defaults],
    )
