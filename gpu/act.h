/* Activations on the device, in the forms the cpu backend uses: all but gelu with erf are x sigmoid(z). */
#ifndef MBL_GPU_ACT_H
#define MBL_GPU_ACT_H

#include "gpu/kernel.h"
#include "gpu/kernels.h"

__device__ inline float mbl_exp(float x) {
    return expf(x);
}
__device__ inline double mbl_exp(double x) {
    return exp(x);
}
__device__ inline float mbl_erf(float x) {
    return erff(x);
}
__device__ inline double mbl_erf(double x) {
    return erf(x);
}
template <class R> __device__ inline R mbl_sigmoid(R x) {
    return 1 / (1 + mbl_exp(-x));
}

/* gelu with tanh is x sigmoid(2 z), z = sqrt(2/pi) (x + 0.044715 x^3). */
template <class R> __device__ inline R mbl_act_value(R x, mbl_act_t act) {
    switch (act) {
    case MBL_ACT_GELU_TANH:
        return x * mbl_sigmoid(x * ((R)1.5957691216057308 + (R)0.07135481627260025 * x * x));
    case MBL_ACT_GELU_ERF:
        return (R)0.5 * x * (1 + mbl_erf(x * (R)0.7071067811865476));
    case MBL_ACT_SILU:
        return x * mbl_sigmoid(x);
    case MBL_ACT_QUICK_GELU:
        return x * mbl_sigmoid((R)1.702 * x);
    default:
        return x;
    }
}

template <class R> __device__ inline R mbl_act_slope(R x, mbl_act_t act) {
    R s, slope;
    switch (act) {
    case MBL_ACT_GELU_TANH:
        s = mbl_sigmoid(x * ((R)1.5957691216057308 + (R)0.07135481627260025 * x * x));
        slope = (R)1.5957691216057308 + 3 * (R)0.07135481627260025 * x * x;
        return s + x * s * (1 - s) * slope;
    case MBL_ACT_GELU_ERF:
        return (R)0.5 * (1 + mbl_erf(x * (R)0.7071067811865476)) +
               x * (R)0.3989422804014327 * mbl_exp((R)-0.5 * x * x);
    case MBL_ACT_SILU:
        s = mbl_sigmoid(x);
        return s + x * s * (1 - s);
    case MBL_ACT_QUICK_GELU:
        s = mbl_sigmoid((R)1.702 * x);
        return s + (R)1.702 * x * s * (1 - s);
    default:
        return 1;
    }
}

#endif
