/* Which tensors an operation reads and writes: one row per operand, used by the checks and by the checking
 * backend. */
#include "ops/ops.h"

#include <stddef.h>
#include <string.h>

#define OPERAND(op, field, role, optional)                                                                   \
    { #field, offsetof(mbl_##op##_args_t, field), role, optional }
#define IN(op, field) OPERAND(op, field, MBL_IN, false)
#define OUT(op, field) OPERAND(op, field, MBL_OUT, false)
#define ADD(op, field) OPERAND(op, field, MBL_INOUT, false)
#define PART(op, field) OPERAND(op, field, MBL_PART, false)
#define IN_OR_NULL(op, field) OPERAND(op, field, MBL_IN, true)
#define OUT_OR_NULL(op, field) OPERAND(op, field, MBL_OUT, true)
#define ADD_OR_NULL(op, field) OPERAND(op, field, MBL_INOUT, true)

static const mbl_operand_t matmul_operands[] = {ADD(matmul, y),
                                                IN(matmul, a),
                                                IN(matmul, b),
                                                IN_OR_NULL(matmul, bias),
                                                OUT_OR_NULL(matmul, pre),
                                                IN_OR_NULL(matmul, through)};
static const mbl_operand_t layer_norm_operands[] = {
    OUT(layer_norm, y), OUT_OR_NULL(layer_norm, mean), OUT_OR_NULL(layer_norm, rstd),
    IN(layer_norm, x),  IN(layer_norm, scale),         IN(layer_norm, shift)};
static const mbl_operand_t layer_norm_bwd_operands[] = {ADD(layer_norm_bwd, dx),
                                                        ADD_OR_NULL(layer_norm_bwd, dscale),
                                                        ADD_OR_NULL(layer_norm_bwd, dshift),
                                                        IN(layer_norm_bwd, dy),
                                                        IN(layer_norm_bwd, x),
                                                        IN(layer_norm_bwd, mean),
                                                        IN(layer_norm_bwd, rstd),
                                                        IN(layer_norm_bwd, scale)};
static const mbl_operand_t layer_norm_affine_operands[] = {
    OUT(layer_norm_affine, y), IN(layer_norm_affine, x), IN(layer_norm_affine, weight),
    IN_OR_NULL(layer_norm_affine, bias)};
static const mbl_operand_t qk_norm_operands[] = {PART(qk_norm, q),
                                                 PART(qk_norm, k),
                                                 OUT_OR_NULL(qk_norm, rstd_q),
                                                 OUT_OR_NULL(qk_norm, rstd_k),
                                                 IN(qk_norm, qkv),
                                                 IN_OR_NULL(qk_norm, weight_q),
                                                 IN_OR_NULL(qk_norm, weight_k)};
static const mbl_operand_t qk_norm_bwd_operands[] = {PART(qk_norm_bwd, dqkv),
                                                     ADD_OR_NULL(qk_norm_bwd, dweight_q),
                                                     ADD_OR_NULL(qk_norm_bwd, dweight_k),
                                                     IN(qk_norm_bwd, dq),
                                                     IN(qk_norm_bwd, dk),
                                                     IN(qk_norm_bwd, qkv),
                                                     IN_OR_NULL(qk_norm_bwd, rstd_q),
                                                     IN_OR_NULL(qk_norm_bwd, rstd_k),
                                                     IN_OR_NULL(qk_norm_bwd, weight_q),
                                                     IN_OR_NULL(qk_norm_bwd, weight_k)};
static const mbl_operand_t attention_operands[] = {OUT(attention, out1),
                                                   OUT_OR_NULL(attention, out2),
                                                   OUT_OR_NULL(attention, lse),
                                                   IN(attention, q),
                                                   IN(attention, k),
                                                   IN(attention, v1),
                                                   IN_OR_NULL(attention, v2),
                                                   IN_OR_NULL(attention, bias)};
static const mbl_operand_t attention_bwd_operands[] = {
    OUT(attention_bwd, dq),       OUT(attention_bwd, dk),
    OUT(attention_bwd, dv1),      OUT_OR_NULL(attention_bwd, dv2),
    IN(attention_bwd, dout1),     IN_OR_NULL(attention_bwd, dout2),
    IN(attention_bwd, out1),      IN_OR_NULL(attention_bwd, out2),
    IN(attention_bwd, lse),       IN(attention_bwd, q),
    IN(attention_bwd, k),         IN(attention_bwd, v1),
    IN_OR_NULL(attention_bwd, v2)};
static const mbl_operand_t act_operands[] = {OUT(act, y), IN(act, x)};
static const mbl_operand_t act_bwd_operands[] = {OUT(act_bwd, dx), IN(act_bwd, dy), IN(act_bwd, x)};
static const mbl_operand_t gate_operands[] = {OUT(gate, y), IN(gate, x), IN(gate, gate), IN(gate, h)};
static const mbl_operand_t gate_bwd_operands[] = {OUT(gate_bwd, dh), ADD_OR_NULL(gate_bwd, dgate),
                                                  IN(gate_bwd, dy), IN(gate_bwd, gate),
                                                  IN_OR_NULL(gate_bwd, h)};
static const mbl_operand_t patchify_operands[] = {OUT(patchify, tokens), IN(patchify, image)};
static const mbl_operand_t unpatchify_operands[] = {OUT(unpatchify, image), IN(unpatchify, tokens)};
static const mbl_operand_t timestep_operands[] = {OUT(timestep, y), IN(timestep, t)};
static const mbl_operand_t embed_operands[] = {OUT(embed, y), IN(embed, table), IN(embed, ids),
                                               IN_OR_NULL(embed, position)};
static const mbl_operand_t add_rows_operands[] = {ADD(add_rows, y), IN(add_rows, rows)};
static const mbl_operand_t convert_operands[] = {OUT(convert, dst), IN(convert, src)};
static const mbl_operand_t axpby_operands[] = {ADD(axpby, y), IN(axpby, x)};
static const mbl_operand_t column_sum_operands[] = {ADD(column_sum, y), IN(column_sum, x)};
static const mbl_operand_t sample_grad_operands[] = {ADD(sample_grad, acc), IN(sample_grad, a),
                                                     IN(sample_grad, b), IN(sample_grad, coefficient)};
static const mbl_operand_t nft_operands[] = {
    OUT(nft, u),         OUT_OR_NULL(nft, h),  OUT_OR_NULL(nft, dkl),
    OUT(nft, loss_plus), OUT(nft, loss_minus), OUT_OR_NULL(nft, kl),
    IN(nft, v),          IN(nft, v_old),       IN_OR_NULL(nft, v_ref),
    IN(nft, xt),         IN(nft, x0),          IN(nft, t)};
static const mbl_operand_t rows_combine_operands[] = {
    OUT(rows_combine, y),           IN(rows_combine, coefficient),  IN(rows_combine, x[0]),
    IN_OR_NULL(rows_combine, x[1]), IN_OR_NULL(rows_combine, x[2]), IN_OR_NULL(rows_combine, x[3])};
static const mbl_operand_t normal_operands[] = {OUT(normal, y), IN(normal, sample)};
static const mbl_operand_t gram_operands[] = {OUT(gram, gram), IN(gram, x)};
static const mbl_operand_t distance_operands[] = {OUT(distance, sums), IN(distance, x), IN(distance, y)};
static const mbl_operand_t checksum_operands[] = {OUT(checksum, sum), IN(checksum, x)};
static const mbl_operand_t combine_operands[] = {OUT(combine, y), IN(combine, x)};
static const mbl_operand_t adamw_operands[] = {ADD(adamw, w), ADD(adamw, m), ADD(adamw, v), IN(adamw, g)};
static const mbl_operand_t conv2d_operands[] = {ADD(conv2d, y), IN(conv2d, x), IN(conv2d, weight),
                                                IN_OR_NULL(conv2d, bias)};
static const mbl_operand_t group_norm_operands[] = {OUT(group_norm, y), IN(group_norm, x),
                                                    IN(group_norm, weight), IN(group_norm, bias)};
static const mbl_operand_t to_bytes_operands[] = {OUT(to_bytes, y), OUT(to_bytes, broken), IN(to_bytes, x)};
static const mbl_operand_t gate_norm_operands[] = {OUT(gate_norm, y),
                                                   OUT(gate_norm, z),
                                                   OUT_OR_NULL(gate_norm, mean),
                                                   OUT_OR_NULL(gate_norm, rstd),
                                                   IN(gate_norm, x),
                                                   IN(gate_norm, gate),
                                                   IN(gate_norm, h),
                                                   IN(gate_norm, scale),
                                                   IN(gate_norm, shift),
                                                   IN_OR_NULL(gate_norm, gate2),
                                                   IN_OR_NULL(gate_norm, h2)};

static const struct {
    const char *name;
    const mbl_operand_t *operand;
    size_t n;
} rows[MBL_OP_COUNT] = {
#define ROW(name, need) {#name, name##_operands, sizeof name##_operands / sizeof name##_operands[0]},
    MBL_OPS_LIST(ROW)
#undef ROW
};

const mbl_operand_t *mbl_op_operands(mbl_op_t op, size_t *n) {
    if ((size_t)op >= MBL_OP_COUNT) {
        *n = 0;
        return NULL;
    }
    *n = rows[op].n;
    return rows[op].operand;
}

const char *mbl_op_name(mbl_op_t op) {
    return (size_t)op < MBL_OP_COUNT ? rows[op].name : "?";
}

mbl_role_t mbl_op_role(mbl_op_t op, const mbl_operand_t *operand, const void *args) {
    if (operand->role == MBL_IN || operand->role == MBL_OUT)
        return operand->role;
    if (op == MBL_OP_matmul)
        return ((const mbl_matmul_args_t *)args)->accumulate ? MBL_INOUT : MBL_OUT;
    if (op == MBL_OP_conv2d)
        return ((const mbl_conv2d_args_t *)args)->accumulate ? MBL_INOUT : MBL_OUT;
    if (op == MBL_OP_axpby)
        return ((const mbl_axpby_args_t *)args)->b == 0 ? MBL_OUT : MBL_INOUT;
    if (op == MBL_OP_qk_norm && operand->role == MBL_PART) {
        const mbl_qk_norm_args_t *a = args;
        return a->q->ndim == 4 && a->qkv->ndim == 3 && a->q->dim[2] == a->qkv->dim[1] ? MBL_OUT : MBL_PART;
    }
    return operand->role;
}
