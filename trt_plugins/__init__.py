"""The TensorRT plugin of `jokr::AffineGridSample` will live here; until then engines run its ONNX function body."""
