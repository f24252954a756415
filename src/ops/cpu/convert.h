/* Loads, stores and conversion of dense runs between f32, bf16 and f64, for the ops that mix them. */
#ifndef MBL_OPS_CPU_CONVERT_H
#define MBL_OPS_CPU_CONVERT_H

#include "ops/tensor.h"

static inline float mbl_load_f32(const float *x) {
    return *x;
}
static inline float mbl_load_bf16(const uint16_t *x) {
    return mbl_bf16_to_f32(*x);
}
static inline double mbl_load_f64(const double *x) {
    return *x;
}
static inline void mbl_store_f32(float *y, double x) {
    *y = (float)x;
}
static inline void mbl_store_bf16(uint16_t *y, double x) {
    *y = mbl_bf16_from_f32((float)x);
}
static inline void mbl_store_f64(double *y, double x) {
    *y = x;
}

#endif
