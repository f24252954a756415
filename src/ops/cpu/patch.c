/* Images to tokens and back on the CPU, converting between f32 and the compute type on the way. */
#include "ops/cpu/convert.h"
#include "ops/cpu/cpu.h"

typedef struct {
    const mbl_tensor_t *image, *tokens;
    size_t patch;
    mbl_patch_order_t order;
    bool to_tokens;
} layout_t;

/* Moves one number per (channel, row, column) of a patch. Rows of an image are dense; within a token the
 * column is the last but one (PQC) or the last (CPQ) axis. */
#define MOVE(to, to_type, from, from_type)                                                                   \
    static void move_##from##_##to(const layout_t *l, size_t n, size_t token) {                              \
        size_t p = l->patch, channels = l->image->dim[1], across = l->image->dim[3] / p;                     \
        size_t column = l->order == MBL_PATCH_CPQ ? 1 : channels, row = p * column;                          \
        size_t channel = l->order == MBL_PATCH_CPQ ? p * p : 1;                                              \
        size_t corner =                                                                                      \
            n * l->image->stride[0] + token / across * p * l->image->stride[2] + token % across * p;         \
        size_t start = n * l->tokens->stride[0] + token * l->tokens->stride[1];                              \
        const from_type *src = (const from_type *)(l->to_tokens ? l->image : l->tokens)->data;               \
        to_type *dst = (to_type *)(l->to_tokens ? l->tokens : l->image)->data;                               \
        for (size_t c = 0; c < channels; c++)                                                                \
            for (size_t y = 0; y < p; y++)                                                                   \
                for (size_t x = 0; x < p; x++) {                                                             \
                    size_t i = corner + c * l->image->stride[1] + y * l->image->stride[2] + x;               \
                    size_t j = start + c * channel + y * row + x * column;                                   \
                    mbl_store_##to(dst + (l->to_tokens ? j : i),                                             \
                                   mbl_load_##from(src + (l->to_tokens ? i : j)));                           \
                }                                                                                            \
    }
#define MOVE_TO(to, to_type)                                                                                 \
    MOVE(to, to_type, f32, float) MOVE(to, to_type, bf16, uint16_t) MOVE(to, to_type, f64, double)
MOVE_TO(f32, float)
MOVE_TO(bf16, uint16_t)
MOVE_TO(f64, double)

static mbl_status_t move_all(mbl_ops_t *ops, const layout_t *l) {
    static void (*const table[3][3])(const layout_t *, size_t,
                                     size_t) = {{move_f32_f32, move_bf16_f32, move_f64_f32},
                                                {move_f32_bf16, move_bf16_bf16, move_f64_bf16},
                                                {move_f32_f64, move_bf16_f64, move_f64_f64}};
    const mbl_tensor_t *dst = l->to_tokens ? l->tokens : l->image, *src = l->to_tokens ? l->image : l->tokens;
    void (*move)(const layout_t *, size_t, size_t) = table[dst->dtype][src->dtype];
    size_t tokens = l->tokens->dim[1], count = l->tokens->dim[0] * tokens;
#pragma omp parallel for num_threads(ops->threads) schedule(static)
    for (size_t i = 0; i < count; i++)
        move(l, i / tokens, i % tokens);
    return MBL_OK;
}

mbl_status_t mbl_cpu_patchify(mbl_ops_t *ops, const mbl_patchify_args_t *args) {
    layout_t layout = {args->image, args->tokens, args->patch, args->order, true};
    return move_all(ops, &layout);
}

mbl_status_t mbl_cpu_unpatchify(mbl_ops_t *ops, const mbl_unpatchify_args_t *args) {
    layout_t layout = {args->image, args->tokens, args->patch, args->order, false};
    return move_all(ops, &layout);
}
