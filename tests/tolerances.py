"""Every tolerance of the tests, and where it comes from."""

FP32 = 1e-4  # an fp32 graph against PyTorch, on values in [-1, 1]: the gate of the export
FP16 = 2e-3  # float16 heatmaps, sampled on a float32 grid
FP16_LEVELS = 2  # pictures drawn in float16: the gate of the export
LEVELS = 1  # 8-bit levels between two roundings of nearly the same value
REWRITE = 3e-6  # a network rewritten exactly, so that only the order of float32 sums differs
EXACT = 1e-9  # the same in float64: nothing but rounding
PROCESSES = (
    2e-9  # a training in float64 whose sums have another order: what would leave float32 no digit (2^-24 : 2^-53)
)
BF16 = (
    20 * 2**-8  # relative, of a loss: weights and results of an extractor's 10 convolutions are rounded to 8 bits each
)
DIGIT = 1e-2  # relative, of what is printed with three digits: one more or less in the last
