/* Element by element operations on the CPU: activations, gated residuals, row sums, type conversion,
 * embedding lookup and the sinusoids of the timestep. */
#if defined(__AVX512F__) && defined(__GNUC__) && !defined(__clang__)
/* Exponentials are what takes the time here; by itself the compiler would use half of the registers. */
#pragma GCC target("prefer-vector-width=512")
#endif
#include "ops/cpu/cpu.h"
#include "ops/cpu/act.h"
#include "ops/cpu/convert.h"
#include "ops/cpu/rows.h"
#include "ops/cpu/vector.h"

#include <math.h>
#include <string.h>

#define MBL_TEMPLATE "ops/cpu/elementwise.inc"
#include "ops/cpu/each_type.h"

MBL_CPU_SLOT(act, x)
MBL_CPU_SLOT(act_bwd, x)
MBL_CPU_SLOT(gate, x)
MBL_CPU_SLOT(gate_bwd, dy)
MBL_CPU_SLOT(add_rows, y)
MBL_CPU_SLOT(axpby, x)
MBL_CPU_SLOT(timestep, y)
MBL_CPU_SLOT(column_sum, x)
MBL_CPU_SLOT(to_bytes, x)

mbl_status_t mbl_cpu_embed(mbl_ops_t *ops, const mbl_embed_args_t *args) {
    size_t rows = args->table->dim[0], n_ids = mbl_tensor_count(args->ids);
    const int32_t *ids = args->ids->data;
    for (size_t i = 0; i < n_ids; i++)
        if (ids[i] < 0 || (size_t)ids[i] >= rows)
            return MBL_FAIL(MBL_ERR_ARG, "embed: id %d at position %zu, the table has rows 0 to %zu",
                            (int)ids[i], i, rows - 1);
    MBL_BY_TYPE(args->table->dtype, embed, ops, args);
    return MBL_OK;
}

typedef void (*convert_fn)(void *dst, const void *src, size_t n);

#define CONVERT(to, to_type, from, from_type)                                                                \
    static void from##_to_##to(void *dst, const void *src, size_t n) {                                       \
        to_type *y = dst;                                                                                    \
        const from_type *x = src;                                                                            \
        _Pragma("omp simd") for (size_t i = 0; i < n; i++) mbl_store_##to(y + i, mbl_load_##from(x + i));    \
    }
#define CONVERT_TO(to, to_type)                                                                              \
    CONVERT(to, to_type, f32, float) CONVERT(to, to_type, bf16, uint16_t) CONVERT(to, to_type, f64, double)
CONVERT_TO(f32, float)
CONVERT_TO(bf16, uint16_t)
CONVERT_TO(f64, double)

mbl_status_t mbl_cpu_convert(mbl_ops_t *ops, const mbl_convert_args_t *args) {
    const mbl_tensor_t *dst = args->dst, *src = args->src;
    static const convert_fn table[3][3] = {{f32_to_f32, bf16_to_f32, f64_to_f32},
                                           {f32_to_bf16, bf16_to_bf16, f64_to_bf16},
                                           {f32_to_f64, bf16_to_f64, f64_to_f64}};
    convert_fn convert = table[dst->dtype][src->dtype];
    size_t to_size = mbl_dtype_size(dst->dtype), from_size = mbl_dtype_size(src->dtype);
    /* a dense tensor is cut into pieces, a strided one into its rows */
    bool dense = mbl_tensor_contiguous(dst) && mbl_tensor_contiguous(src);
    size_t count = mbl_tensor_count(dst), width = dense ? 4096 : dst->dim[dst->ndim - 1];
    size_t pieces = width ? (count + width - 1) / width : 0;
#pragma omp parallel for num_threads(ops->threads) schedule(static) if (count > 8192)
    for (size_t piece = 0; piece < pieces; piece++) {
        size_t to = piece * width, from = to, n = count - to < width ? count - to : width;
        if (!dense) {
            to = from = 0;
            size_t rest = piece;
            for (int d = dst->ndim - 2; d >= 0; d--) {
                to += rest % dst->dim[d] * dst->stride[d];
                from += rest % dst->dim[d] * src->stride[d];
                rest /= dst->dim[d];
            }
        }
        convert((char *)dst->data + to * to_size, (const char *)src->data + from * from_size, n);
    }
    return MBL_OK;
}
