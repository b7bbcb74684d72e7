"""The TensorRT plugin of `jokr::AffineGridSample`: a CUDA kernel and what compiles, launches and registers it."""
