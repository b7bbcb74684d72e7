// sampled(p) = heatmaps(theta (p, 1)): torch's grid_sample(heatmaps, affine_grid(theta)), bilinear, zeros outside, with
// the grid in registers instead of memory. heatmaps and sampled (N, C, H, W) in float or half, theta (N, 2, 3) in float.
// Positions, weights and sums are float for both: positions in half would put values off by 4 percent of their range.
//
// A thread makes one pixel of the channels z, z + D, z + 2 D ... for its index z in the block and the block's depth D:
// the position is computed once for them, and neighbouring threads write neighbouring addresses. A block is a tile, not
// a row, of pixels, so that what it reads lies close together under a rotation too. kernel.py has the launch. The tests
// compile this file for the host as well (tests/host_cuda.h): nothing is included here.

#ifdef __CUDACC__  // by hand, as NVRTC comes without cuda_fp16.h
__device__ __forceinline__ float float_of_half(unsigned short bits) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}

__device__ __forceinline__ unsigned short half_of_float(float value) {
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}
#endif

struct Half {
    unsigned short bits;
};

__device__ __forceinline__ float to_float(float value) { return value; }
__device__ __forceinline__ float to_float(Half value) { return float_of_half(value.bits); }
template <typename T> __device__ __forceinline__ T from_float(float value);
template <> __device__ __forceinline__ float from_float<float>(float value) { return value; }
template <> __device__ __forceinline__ Half from_float<Half>(float value) { return {half_of_float(value)}; }

// The coordinate in [-1, 1] of cell `index` of `size`. A single one is at 0.
template <bool align_corners>
__device__ __forceinline__ float coordinate(int index, int size) {
    const int span = align_corners && size > 1 ? size - 1 : size;
    return static_cast<float>(2 * index + 1 - size) / static_cast<float>(span);
}

// The inverse: where among the cells, counted from 0, a coordinate is.
template <bool align_corners>
__device__ __forceinline__ float position(float coordinate, int size) {
    return align_corners ? (coordinate + 1) / 2 * (size - 1) : ((coordinate + 1) * size - 1) / 2;
}

// The four cells around a position and their weights. A cell outside is not read and has weight 0, while NaN in one inside
// counts even with weight 0. A position that is NaN has all four outside, as in PyTorch on CUDA.
struct Corners {
    int left, top;
    bool has_nw, has_ne, has_sw, has_se;
    float nw, ne, sw, se;

    __device__ __forceinline__ Corners(float x, float y, int width, int height) {
        const bool near = x >= -1 && x < width && y >= -1 && y < height;  // so far out that no int holds it: not near
        left = near ? static_cast<int>(floorf(x)) : -1;
        top = near ? static_cast<int>(floorf(y)) : -1;
        const bool has_right = near && left + 1 < width, has_bottom = near && top + 1 < height;
        has_nw = top >= 0 && left >= 0;
        has_ne = top >= 0 && has_right;
        has_sw = has_bottom && left >= 0;
        has_se = has_bottom && has_right;
        const float east = x - left, west = left + 1 - x, south = y - top, north = top + 1 - y;
        nw = has_nw ? west * north : 0;
        ne = has_ne ? east * north : 0;
        sw = has_sw ? west * south : 0;
        se = has_se ? east * south : 0;
    }
};

// COUNT channels, `stride` elements apart. All are read before the first is written: that hides the memory's latency.
template <int COUNT, typename T>
__device__ __forceinline__ void sample(const Corners& corners, const T* heatmap, int width, size_t stride, T* sampled) {
    T cells[COUNT][4];
#pragma unroll
    for (int i = 0; i < COUNT; ++i) {
        const T* upper = heatmap + i * stride;
        const T* lower = upper + width;
        cells[i][0] = corners.has_nw ? upper[0] : T{};
        cells[i][1] = corners.has_ne ? upper[1] : T{};
        cells[i][2] = corners.has_sw ? lower[0] : T{};
        cells[i][3] = corners.has_se ? lower[1] : T{};
    }
#pragma unroll
    for (int i = 0; i < COUNT; ++i) {
        const T* cell = cells[i];
        const float value = to_float(cell[0]) * corners.nw + to_float(cell[1]) * corners.ne
                          + to_float(cell[2]) * corners.sw + to_float(cell[3]) * corners.se;
        sampled[i * stride] = from_float<T>(value);
    }
}

template <typename T, bool align_corners>
__device__ __forceinline__ void affine_grid_sample(
    const T* __restrict__ heatmaps, const float* __restrict__ theta, int channels, int height, int width,
    T* __restrict__ sampled
) {
    constexpr int AT_ONCE = 5;  // keypoints come in tens
    const int column = blockIdx.x * blockDim.x + threadIdx.x;
    const int row = blockIdx.y * blockDim.y + threadIdx.y;
    if (column >= width || row >= height) return;

    const float* map = theta + 6 * static_cast<size_t>(blockIdx.z);
    const float u = coordinate<align_corners>(column, width);
    const float v = coordinate<align_corners>(row, height);
    const float x = position<align_corners>(map[0] * u + map[1] * v + map[2], width);
    const float y = position<align_corners>(map[3] * u + map[4] * v + map[5], height);
    const Corners corners(x, y, width, height);

    const int depth = blockDim.z;
    const size_t plane = static_cast<size_t>(height) * width, stride = depth * plane;
    const size_t first = (static_cast<size_t>(blockIdx.z) * channels + threadIdx.z) * plane;
    heatmaps += first + (static_cast<ptrdiff_t>(corners.top) * width + corners.left);
    sampled += first + (static_cast<size_t>(row) * width + column);
    int remaining = channels - static_cast<int>(threadIdx.z);  // in steps of `depth`
    for (; remaining > (AT_ONCE - 1) * depth; remaining -= AT_ONCE * depth) {
        sample<AT_ONCE>(corners, heatmaps, width, stride, sampled);
        heatmaps += AT_ONCE * stride;
        sampled += AT_ONCE * stride;
    }
    for (; remaining > 0; remaining -= depth) {
        sample<1>(corners, heatmaps, width, stride, sampled);
        heatmaps += stride;
        sampled += stride;
    }
}

#define KERNEL(name, T, align_corners)                                                           \
    extern "C" __global__ void name(                                                             \
        const T* __restrict__ heatmaps, const float* __restrict__ theta,                         \
        int channels, int height, int width, T* __restrict__ sampled                             \
    ) {                                                                                          \
        affine_grid_sample<T, align_corners>(heatmaps, theta, channels, height, width, sampled); \
    }

KERNEL(affine_grid_sample_float32, float, false)
KERNEL(affine_grid_sample_float32_aligned, float, true)
KERNEL(affine_grid_sample_float16, Half, false)
KERNEL(affine_grid_sample_float16_aligned, Half, true)
