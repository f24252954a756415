/* The element types of CUDA's libraries; see cuda_runtime_api.h. */
#include <cuda_runtime_api.h>
