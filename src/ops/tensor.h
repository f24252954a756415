/* Tensors: a typed, placed, possibly strided block of numbers. Plain values: copying one copies the
 * reference, not the data. */
#ifndef MBL_OPS_TENSOR_H
#define MBL_OPS_TENSOR_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum { MBL_F32, MBL_BF16, MBL_F64, MBL_I32, MBL_I64, MBL_U8 } mbl_dtype_t;
typedef enum { MBL_HOST, MBL_DEVICE } mbl_space_t;

enum { MBL_MAX_DIMS = 4 };

typedef struct {
    void *data;
    mbl_dtype_t dtype;
    mbl_space_t space;
    bool own; /* mbl_tensor_free releases data */
    int ndim;
    size_t dim[MBL_MAX_DIMS];
    size_t stride[MBL_MAX_DIMS]; /* in elements; the last is 1 */
} mbl_tensor_t;

size_t mbl_dtype_size(mbl_dtype_t dtype);
const char *mbl_dtype_name(mbl_dtype_t dtype); /* "f32", "bf16", ... */
/* f64 for f64, else f32: the type of statistics and of whole-weight gradients beside a compute type. */
mbl_dtype_t mbl_dtype_stat(mbl_dtype_t dtype);

size_t mbl_tensor_count(const mbl_tensor_t *t); /* elements */
bool mbl_tensor_contiguous(const mbl_tensor_t *t);
bool mbl_tensor_same_shape(const mbl_tensor_t *a, const mbl_tensor_t *b);

/* "[4,8] f32" into out; returns out. */
enum { MBL_TENSOR_TEXT = 112 };
char *mbl_tensor_text(const mbl_tensor_t *t, char *out);

/* A contiguous tensor over memory somebody else owns. ndim dims follow (size_t each). */
mbl_tensor_t mbl_tensor_of(void *data, mbl_dtype_t dtype, mbl_space_t space, int ndim, ...);
#define MBL_TENSOR_1(data, dtype, a) mbl_tensor_of((data), (dtype), MBL_HOST, 1, (size_t)(a))
#define MBL_TENSOR_2(data, dtype, a, b) mbl_tensor_of((data), (dtype), MBL_HOST, 2, (size_t)(a), (size_t)(b))

/* Views share data. A reshape needs a contiguous tensor of the same count; rows cut the first dimension,
 * columns the last. What cannot be is reported and gives an empty tensor (ndim 0), which every operation
 * refuses. */
mbl_tensor_t mbl_tensor_reshape(const mbl_tensor_t *t, int ndim, ...);
mbl_tensor_t mbl_tensor_rows(const mbl_tensor_t *t, size_t first, size_t count);
mbl_tensor_t mbl_tensor_columns(const mbl_tensor_t *t, size_t first, size_t count);

/* bf16 <-> f32, round to nearest even, NaN kept. */
static inline float mbl_bf16_to_f32(uint16_t bits) {
    union {
        uint32_t u;
        float f;
    } x = {(uint32_t)bits << 16};
    return x.f;
}
static inline uint16_t mbl_bf16_from_f32(float value) {
    union {
        float f;
        uint32_t u;
    } x = {value};
    if ((x.u & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)((x.u >> 16) | 0x40u);
    return (uint16_t)((x.u + 0x7fffu + ((x.u >> 16) & 1u)) >> 16);
}

#endif
