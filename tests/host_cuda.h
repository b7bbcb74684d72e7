// Stand-ins that make trt_plugins/affine_grid_sample.cu plain C++ for the host. Needs g++ 12 or later, for _Float16.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstring>

#define __global__
#define __device__
#define __forceinline__ inline

struct Index {
    unsigned x, y, z;
};
static thread_local Index threadIdx, blockIdx, blockDim;

inline float float_of_half(unsigned short bits) {
    _Float16 value;
    std::memcpy(&value, &bits, sizeof value);
    return static_cast<float>(value);
}

inline unsigned short half_of_float(float value) {
    const _Float16 half = static_cast<_Float16>(value);
    unsigned short bits;
    std::memcpy(&bits, &half, sizeof bits);
    return bits;
}

// What a GPU does at once, one thread after another.
extern "C" void launch(
    void (*kernel)(const void*, const void*, int, int, int, void*), const Index* grid, const Index* block,
    const void* heatmaps, const void* theta, int channels, int height, int width, void* sampled
) {
    blockDim = *block;
    for (blockIdx.z = 0; blockIdx.z < grid->z; ++blockIdx.z)
        for (blockIdx.y = 0; blockIdx.y < grid->y; ++blockIdx.y)
            for (blockIdx.x = 0; blockIdx.x < grid->x; ++blockIdx.x)
                for (threadIdx.z = 0; threadIdx.z < block->z; ++threadIdx.z)
                    for (threadIdx.y = 0; threadIdx.y < block->y; ++threadIdx.y)
                        for (threadIdx.x = 0; threadIdx.x < block->x; ++threadIdx.x)
                            kernel(heatmaps, theta, channels, height, width, sampled);
}
