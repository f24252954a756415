/* THE compute interface. A backend is a table of slots, found by name at run time ("cpu", "cuda", "check");
 * the model and the method call only what is declared here.
 *
 * Every operation takes one argument struct of tensor pointers and scalars. mbl_op_X(ops, &args) checks
 * shapes, types and memory spaces, calls the backend's slot, or the default built from other slots where a
 * backend leaves an optional slot empty, and counts calls, seconds and bytes. Shapes use N samples, T tokens,
 * D width, H heads, d head size (D = H d), E elements per sample, R rows. ct is the compute type (f32, bf16
 * or f64; all ct tensors of a call agree); st = mbl_dtype_stat(ct). "+=" operands accumulate. Operands marked
 * (or NULL) may be left out. Unless said, outputs do not overlap inputs. A sample's result does not depend on
 * which other samples share the batch, and no result depends on the number of threads, with one exception: a
 * matmul whose sum is long beside its result (K of thousands, as in weight gradients) may be cut along K, so
 * it is equal to rounding between thread counts and to the bit for one. A handle is used by one thread at a
 * time. */
#ifndef MBL_OPS_OPS_H
#define MBL_OPS_OPS_H

#include "ops/tensor.h"

#include <signal.h>

typedef struct mbl_ops mbl_ops_t;

typedef enum {
    MBL_ACT_NONE,
    MBL_ACT_GELU_TANH,
    MBL_ACT_GELU_ERF,
    MBL_ACT_SILU,
    MBL_ACT_QUICK_GELU
} mbl_act_t;
typedef enum {
    MBL_PATCH_CPQ,
    MBL_PATCH_PQC
} mbl_patch_order_t; /* channel-row-column (conv weights), row-column-channel (output) */

/* ---- required ---- */

/* y [M,N] = act(s), s = a b + bias, or y + a b + bias (accumulate). a is [M,K], or [K,M] with transpose_a; b
 * is [K,N], or [N,K] with transpose_b (weights are stored [out,in]). a and b ct; y ct or f32 (f64 for f64).
 * Rows may be strided. bias [N] ct (or NULL). With an activation one of these may be given, both [M,N] of y's
 * type: pre takes s, as a backward pass needs it; with through, y = s act'(through) is that backward pass. s
 * is rounded to y's type before the activation, or not. */
typedef struct {
    const mbl_tensor_t *y, *a, *b, *bias, *pre, *through;
    bool transpose_a, transpose_b, accumulate;
    mbl_act_t act;
} mbl_matmul_args_t;

/* y = (x - mean) rstd (1 + scale) + shift, over the last axis: x, y [N,T,D] ct; scale, shift [N,D] ct (rows
 * may be strided); mean, rstd [N,T] st (or NULL both). */
typedef struct {
    const mbl_tensor_t *y, *mean, *rstd, *x, *scale, *shift;
    double eps;
} mbl_layer_norm_args_t;
/* dx [N,T,D] += ; dscale, dshift [N,D] st += (rows may be strided; or NULL both). */
typedef struct {
    const mbl_tensor_t *dx, *dscale, *dshift, *dy, *x, *mean, *rstd, *scale;
} mbl_layer_norm_bwd_args_t;
/* y = (x - mean) rstd weight + bias: x, y [R,D] ct; weight, bias [D] ct. Without a bias (NULL) an RMS norm: y
 * = x rsqrt(mean x^2 + eps) weight. Forward only (frozen text encoders). */
typedef struct {
    const mbl_tensor_t *y, *x, *weight, *bias;
    double eps;
} mbl_layer_norm_affine_args_t;

/* RMS norm of q and k per head, and the split into heads: of qkv [N,T,3D] ct (q, k, v side by side; rows may
 * be strided) the first two go to q, k [N,H,T_all,d] ct at tokens first..first+T-1 of T_all; v is read where
 * it is, by attention. weight_q, weight_k [d] ct (or NULL both: no norm). rstd_q, rstd_k [N,T,H] st (or NULL
 * both). y = x rsqrt(mean x^2 + eps) weight. */
typedef struct {
    const mbl_tensor_t *q, *k, *rstd_q, *rstd_k, *qkv, *weight_q, *weight_k;
    size_t first;
    double eps;
} mbl_qk_norm_args_t;
/* dqkv [N,T,3D] (rows may be strided) = in its first 2D columns, the others are kept: attention_bwd has
 * written dv there. dweight_q, dweight_k [d] st += (or NULL both). dq, dk [N,H,T_all,d]. */
typedef struct {
    const mbl_tensor_t *dqkv, *dweight_q, *dweight_k, *dq, *dk, *qkv, *rstd_q, *rstd_k, *weight_q, *weight_k;
    size_t first;
} mbl_qk_norm_bwd_args_t;

/* softmax(scale q k') v, heads merged again: q, k [N,H,T,d] ct; v1 [N,T1,D] ct holds the values of the first
 * T1 tokens, v2 [N,T-T1,D] (or NULL when T1 = T) those of the others, and out1, out2 take the result
 * likewise. Rows of v1 and v2 may be strided, both alike and samples one behind the other: columns of qkv.
 * lse [N,H,T] st log-sum-exp (or NULL). causal: token i sees 0..i. bias [H,2T-1] st (or NULL): bias[h, j - i
 * + T - 1] is added to the scaled score of query i and key j; no backward pass. */
typedef struct {
    const mbl_tensor_t *out1, *out2, *lse, *q, *k, *v1, *v2, *bias;
    double scale;
    bool causal;
} mbl_attention_args_t;
/* dq, dk [N,H,T,d] = , dv1, dv2 = like v1, v2, with strides of their own. Not causal. */
typedef struct {
    const mbl_tensor_t *dq, *dk, *dv1, *dv2, *dout1, *dout2, *out1, *out2, *lse, *q, *k, *v1, *v2;
    double scale;
} mbl_attention_bwd_args_t;

/* y = act(x); dx = dy act'(x). Any shape, contiguous, ct. y may be x; dx may be dy. */
typedef struct {
    const mbl_tensor_t *y, *x;
    mbl_act_t act;
} mbl_act_args_t;
typedef struct {
    const mbl_tensor_t *dx, *dy, *x;
    mbl_act_t act;
} mbl_act_bwd_args_t;

/* y = x + gate h: x, h, y [N,T,D] ct, gate [N,D] ct (rows may be strided). y may be x. */
typedef struct {
    const mbl_tensor_t *y, *x, *gate, *h;
} mbl_gate_args_t;
/* dh [N,T,D] = gate dy; dgate [N,D] st += sum over T of dy h (rows may be strided; or NULL, then h may be
 * NULL). */
typedef struct {
    const mbl_tensor_t *dh, *dgate, *dy, *gate, *h;
} mbl_gate_bwd_args_t;

/* Images [N,C,Hh,Ww] <-> tokens [N,(Hh/p)(Ww/p),C p p] in the given order within a token; f32 or ct on
 * either side. */
typedef struct {
    const mbl_tensor_t *tokens, *image;
    size_t patch;
    mbl_patch_order_t order;
} mbl_patchify_args_t;
typedef struct {
    const mbl_tensor_t *image, *tokens;
    size_t patch;
    mbl_patch_order_t order;
} mbl_unpatchify_args_t;

/* y [N,F] ct = [cos(t f_j), sin(t f_j)], f_j = 10000^(-j/(F/2)), t [N] f32 (f64 for f64), multiplied by
 * `factor` first. */
typedef struct {
    const mbl_tensor_t *y, *t;
    double factor;
} mbl_timestep_args_t;
/* y [N,T,D] = table[ids] + position: table [V,D] ct, ids [N,T] i32 in [0,V), position [>=T,D] ct (or NULL).
 */
typedef struct {
    const mbl_tensor_t *y, *table, *ids, *position;
} mbl_embed_args_t;
/* y [N,T,D] += rows [T,D]; ct. */
typedef struct {
    const mbl_tensor_t *y, *rows;
} mbl_add_rows_args_t;
/* dst = src converted between f32, bf16 and f64; same shape, rows may be strided. */
typedef struct {
    const mbl_tensor_t *dst, *src;
} mbl_convert_args_t;
/* y = a x + b y; any shape, contiguous; x and y of one type (f32, bf16 or f64). b = 0 does not read y. */
typedef struct {
    const mbl_tensor_t *y, *x;
    double a, b;
} mbl_axpby_args_t;
/* y [D] st += column sums of x [R,D] ct (rows may be strided). */
typedef struct {
    const mbl_tensor_t *y, *x;
} mbl_column_sum_args_t;

/* Gradients per sample, contracted at once with K coefficients (src/rl/README.md, two backward passes):
 * acc [K,P,Q] f64 += factor sum_i coefficient[k,i] a_i' b_i, with a [N,T,P], b [N,T,Q] ct (rows may be
 * strided) and coefficient [K,N] f32. The K blocks of acc may be strided (stride[0]). Products in ct,
 * accumulated in f32 within a sample, f64 across samples. */
typedef struct {
    const mbl_tensor_t *acc, *a, *b, *coefficient;
    double factor;
} mbl_sample_grad_args_t;

/* DiffusionNFT loss terms and seeds (src/rl/README.md); all [N,E] f32 (or f64), t [N] and
 * per-sample outputs [N] of the same type. e = xt - t v_old - x0, d = v - v_old. Gives u = d(L+ - L-)/dv, h =
 * d(L+ + L-)/2dv, dkl = 2 (v - v_ref)/E (h, dkl or NULL; v_ref NULL exactly when dkl is), loss_plus,
 * loss_minus = L+/-, kl = mean (v - v_ref)^2 (NULL with dkl). */
typedef struct {
    const mbl_tensor_t *u, *h, *dkl, *loss_plus, *loss_minus, *kl, *v, *v_old, *v_ref, *xt, *x0, *t;
    double beta;
} mbl_nft_args_t;
/* y [N,E] = sum_j coefficient[j,i] x_j[i,:] over up to four terms; f32 or f64; coefficient [n_terms,N] of the
 * same type; y may be any x_j. A NULL x_j ends the list. Sampler steps, noising and seeds are all this. */
enum { MBL_ROWS_TERMS = 4 };
typedef struct {
    const mbl_tensor_t *y, *coefficient, *x[MBL_ROWS_TERMS];
} mbl_rows_combine_args_t;
/* y [N,E] f32 (or f64): row i is the normal stream mbl_rng(seed, purpose, step, sample[i]), sample [N] i64.
 */
typedef struct {
    const mbl_tensor_t *y, *sample;
    uint64_t seed;
    uint32_t purpose, step;
} mbl_normal_args_t;

/* gram [K,K] f64 on the HOST = x x' with x [K,n] f64 or f32 (rows may be strided), f64 accumulation in a
 * fixed order. */
typedef struct {
    const mbl_tensor_t *gram, *x;
} mbl_gram_args_t;
/* sums [2] f64 on the HOST = sum (x - y)^2 and sum x^2; x, y [n] f32 or f64, f64 accumulation in a fixed
 * order. */
typedef struct {
    const mbl_tensor_t *sums, *x, *y;
} mbl_distance_args_t;
/* sum [1] i64 on the HOST = the sum, modulo 2^64, of mbl_checksum_word over the 32-bit words of x [n] f32 or
 * f64: one wrong bit changes it. */
typedef struct {
    const mbl_tensor_t *sum, *x;
} mbl_checksum_args_t;
/* y [n] f64 or f32 = sum_k coefficient[k] x[k,:]; x [K,n] of the same type (rows may be strided);
 * coefficient: K numbers on the host. */
typedef struct {
    const mbl_tensor_t *y, *x;
    const double *coefficient;
} mbl_combine_args_t;
/* AdamW with decoupled weight decay on a shard: w, m, v [n] f32 (or f64), g [n] f32 or f64 times grad_scale;
 * step counts from 1. */
typedef struct {
    const mbl_tensor_t *w, *m, *v, *g;
    double lr, beta1, beta2, eps, weight_decay, grad_scale;
    uint64_t step;
} mbl_adamw_args_t;

/* ---- required, of image decoders; forward only: those are frozen ---- */

/* y [N,H,W,O] = conv(x) + bias, or y += (accumulate): x [N,Hx,Wx,C], first enlarged with every pixel repeated
 * up x up times (1: as it is) and framed by `pad` rows and columns of zeros, seen through windows of kh x kw
 * at stride 1 and correlated with weight [O,kh,kw,C]; so H = up Hx + 2 pad - kh + 1, W alike, pad < kh, kw.
 * bias [O] (or NULL). All ct and whole. A weight as files store it, [O,C,k,k], gets the order above by
 * patchify with patch k and MBL_PATCH_PQC, tokens [O,1,k k C]. */
typedef struct {
    const mbl_tensor_t *y, *x, *weight, *bias;
    size_t pad, up;
    bool accumulate;
} mbl_conv2d_args_t;

/* Group norm over images as tokens: y = act((x - mean) rstd weight + bias), mean and rstd over all T tokens
 * of a sample and the D / groups neighbouring channels of a group; act is silu, or nothing. x, y [N,T,D] ct;
 * weight, bias [D] ct. Sums of f32 or bf16 are f32 over a few tokens and f64 beyond. y may be x. */
typedef struct {
    const mbl_tensor_t *y, *x, *weight, *bias;
    size_t groups;
    double eps;
    bool silu;
} mbl_group_norm_args_t;

/* Pixels to bytes: y [N,E] u8 = x / 2 + 1/2 clamped to 0..1, times 255, rounded to even, as diffusers' image
 * processor does it, the last two in f32; what is no number gives 0. broken [N] i32 = 1 where a sample has
 * numbers that are not finite, else 0. x [N,E] ct. */
typedef struct {
    const mbl_tensor_t *y, *broken, *x;
} mbl_to_bytes_args_t;

/* ---- optional, with a default from the above ---- */

/* y = x + gate h (+ gate2 h2, or NULL both), then z = layer_norm(y) as mbl_layer_norm_args_t says: one pass
 * over memory. */
typedef struct {
    const mbl_tensor_t *y, *z, *mean, *rstd, *x, *gate, *h, *scale, *shift;
    double eps;
    const mbl_tensor_t *gate2, *h2;
} mbl_gate_norm_args_t;

/* slot name; required or optional */
#define MBL_OPS_LIST(X)                                                                                      \
    X(matmul, REQUIRED)                                                                                      \
    X(layer_norm, REQUIRED)                                                                                  \
    X(layer_norm_bwd, REQUIRED)                                                                              \
    X(layer_norm_affine, REQUIRED)                                                                           \
    X(qk_norm, REQUIRED)                                                                                     \
    X(qk_norm_bwd, REQUIRED)                                                                                 \
    X(attention, REQUIRED)                                                                                   \
    X(attention_bwd, REQUIRED)                                                                               \
    X(act, REQUIRED)                                                                                         \
    X(act_bwd, REQUIRED)                                                                                     \
    X(gate, REQUIRED)                                                                                        \
    X(gate_bwd, REQUIRED)                                                                                    \
    X(patchify, REQUIRED)                                                                                    \
    X(unpatchify, REQUIRED)                                                                                  \
    X(timestep, REQUIRED)                                                                                    \
    X(embed, REQUIRED)                                                                                       \
    X(add_rows, REQUIRED)                                                                                    \
    X(convert, REQUIRED)                                                                                     \
    X(axpby, REQUIRED)                                                                                       \
    X(column_sum, REQUIRED)                                                                                  \
    X(sample_grad, REQUIRED)                                                                                 \
    X(nft, REQUIRED)                                                                                         \
    X(rows_combine, REQUIRED)                                                                                \
    X(normal, REQUIRED)                                                                                      \
    X(gram, REQUIRED)                                                                                        \
    X(distance, REQUIRED)                                                                                    \
    X(checksum, REQUIRED)                                                                                    \
    X(combine, REQUIRED)                                                                                     \
    X(adamw, REQUIRED)                                                                                       \
    X(conv2d, REQUIRED)                                                                                      \
    X(group_norm, REQUIRED)                                                                                  \
    X(to_bytes, REQUIRED)                                                                                    \
    X(gate_norm, OPTIONAL)

typedef enum {
#define MBL_OP_ENUM(name, need) MBL_OP_##name,
    MBL_OPS_LIST(MBL_OP_ENUM)
#undef MBL_OP_ENUM
        MBL_OP_COUNT
} mbl_op_t;

typedef struct {
    const char *name;
    const char *missing; /* why this build lacks it and how to get it; NULL where it is built in */
    bool automatic;      /* "auto" may pick it */
    mbl_space_t space;   /* where its tensors live */
    mbl_status_t (*open)(mbl_ops_t *ops, int threads);
    void (*close)(mbl_ops_t *ops);
    void (*describe)(mbl_ops_t *ops, char *out, size_t size); /* the device, in one line (or NULL) */
    bool (*bf16_is_native)(
        mbl_ops_t *ops); /* whether it has instructions for products of bf16 (or NULL: no) */
    mbl_status_t (*alloc)(mbl_ops_t *ops, size_t bytes, void **out); /* zeroed, 64-byte aligned */
    void (*free)(mbl_ops_t *ops, void *ptr);
    mbl_status_t (*copy)(mbl_ops_t *ops, void *dst, mbl_space_t dst_space, const void *src,
                         mbl_space_t src_space,
                         size_t bytes); /* on return the host's side may be read or reused */
    mbl_status_t (*zero)(mbl_ops_t *ops, void *ptr, size_t bytes);
    mbl_status_t (*sync)(mbl_ops_t *ops); /* everything asked for is done */
    void *(*stream)(mbl_ops_t *ops);      /* optional: the queue all work goes to in order, a cudaStream_t */
    /* optional: host memory that copies to and from the device are fast with; plain memory where empty */
    mbl_status_t (*alloc_host)(mbl_ops_t *ops, size_t bytes, void **out);
    void (*free_host)(mbl_ops_t *ops, void *ptr);
    /* optional: see mbl_ops_memory_left */
    mbl_status_t (*memory_left)(mbl_ops_t *ops, size_t *bytes);
    /* optional, both or none: see mbl_ops_mark; the host's clock where empty */
    mbl_status_t (*mark)(mbl_ops_t *ops, size_t i);
    mbl_status_t (*between)(mbl_ops_t *ops, size_t from, size_t to, double *seconds);
    /* optional: a recorded part, see mbl_ops_record_begin */
    mbl_status_t (*record_begin)(mbl_ops_t *ops);
    mbl_status_t (*record_end)(mbl_ops_t *ops, mbl_status_t status);
#define MBL_OP_SLOT(name, need) mbl_status_t (*name)(mbl_ops_t * ops, const mbl_##name##_args_t *args);
    MBL_OPS_LIST(MBL_OP_SLOT)
#undef MBL_OP_SLOT
} mbl_ops_table_t;

typedef struct {
    uint64_t calls;
    double seconds; /* on the device, from mark to mark; only while profiling */
} mbl_op_stats_t;

enum {
    MBL_OPS_MARKS = 8,      /* for callers */
    MBL_OPS_PROFILED = 256, /* calls between two waits of a profile, each with two marks behind those */
    MBL_OPS_ALL_MARKS = MBL_OPS_MARKS + 2 * MBL_OPS_PROFILED
};

struct mbl_ops {
    const mbl_ops_table_t *table;
    void *impl;
    int threads;
    bool profile;             /* set to count seconds too; mbl_ops_profiled has the last of them */
    bool record;              /* set to let a device keep recorded parts (nothing while profiling) */
    uint64_t waits;           /* how often the host waited for a device so far; 0 where there is none */
    const char *part, *lower; /* see mbl_ops_part */
    const volatile sig_atomic_t *stop; /* see mbl_ops_stop */
    mbl_op_stats_t stats[MBL_OP_COUNT];
    mbl_op_t profiled[MBL_OPS_PROFILED]; /* [n_profiled], which the stats do not have yet */
    size_t n_profiled;
    double mark[MBL_OPS_ALL_MARKS]; /* of backends without marks of their own */
};

/* name: "cpu", "check" (a checking wrapper round cpu: poisons outputs, refuses stale or uninitialised reads),
 * "cuda", "fake" (cpu's operations on addresses that fault on the host, see fake_device.c); "auto" is what
 * the environment variable MARBLE_DEVICE names, or the fastest that works here. threads 0: OMP_NUM_THREADS,
 * or the CPUs that the process may use (base/cpus.h). Errors: ERR_CONFIG for an unknown name (lists those
 * there are), ERR_UNSUPPORTED for one this build lacks (says how to get it). Close with mbl_ops_close. */
mbl_status_t mbl_ops_open(const char *name, int threads, mbl_ops_t **out);
void mbl_ops_close(mbl_ops_t *ops);
/* Whether products of bf16 are faster here than of f32. */
bool mbl_ops_bf16_is_native(mbl_ops_t *ops);

/* How many bytes of the backend's memory may still be taken, by all processes that use it; SIZE_MAX where
 * that is not known. */
mbl_status_t mbl_ops_memory_left(mbl_ops_t *ops, size_t *bytes);

/* What the tensors from now on are for, and what lowers what they take ("a smaller KEY"): for the message
 * where there is no memory for one. Both are kept as they are; NULL, NULL: a step of a run. */
void mbl_ops_part(mbl_ops_t *ops, const char *part, const char *lower);
/* From now on every operation looks at *stop first and is ERR_STOPPED, not done, where that is nonzero: for
 * work of which a single pass may take minutes, and of which nothing is kept when it is stopped. NULL: never.
 */
void mbl_ops_stop(mbl_ops_t *ops, const volatile sig_atomic_t *stop);
/* The same for work that is no operation, a piece of it at a time: MBL_OK or ERR_STOPPED. */
mbl_status_t mbl_ops_go_on(const mbl_ops_t *ops);
/* For backends: ERR_MEM with that part, what is missing and the keys. `memory`: "device memory"; left: bytes,
 * SIZE_MAX where that is not known. */
mbl_status_t mbl_ops_no_memory(const mbl_ops_t *ops, const char *memory, size_t bytes, size_t left);

/* A zeroed contiguous tensor in the backend's memory space; ndim dims follow (size_t). Free with
 * mbl_tensor_free. */
mbl_status_t mbl_tensor_new(mbl_ops_t *ops, mbl_dtype_t dtype, mbl_tensor_t *out, int ndim, ...);
void mbl_tensor_free(mbl_ops_t *ops, mbl_tensor_t *t); /* NULL or empty is fine; clears *t */
/* Whole-tensor copies between host memory and a contiguous tensor, bytes = count * dtype size, and within a
 * backend. */
mbl_status_t mbl_tensor_upload(mbl_ops_t *ops, const mbl_tensor_t *t, const void *host);
mbl_status_t mbl_tensor_download(mbl_ops_t *ops, const mbl_tensor_t *t, void *host);
mbl_status_t mbl_tensor_copy(mbl_ops_t *ops, const mbl_tensor_t *dst,
                             const mbl_tensor_t *src); /* one type, contiguous */
mbl_status_t mbl_tensor_zero(mbl_ops_t *ops, const mbl_tensor_t *t);

/* A recorded part: operations that come again and again with the same arguments, all pointers and scalars
 * alike, between begin and end; nothing else may use the device's stream there. A device sends what it has
 * seen before at once (cuda: as a graph), others do nothing. Results are the same to the bit; errors of the
 * device may appear only at the end. Parts do not nest. end takes how the part went and passes a failure on,
 * without having asked the device for the part. */
mbl_status_t mbl_ops_record_begin(mbl_ops_t *ops);
mbl_status_t mbl_ops_record_end(mbl_ops_t *ops, mbl_status_t status);

/* Marks in the queue of a device's work: mark i (below MBL_OPS_MARKS) is passed when all that was asked for
 * before it is done. Seconds between two marks; waits until both are passed. */
mbl_status_t mbl_ops_mark(mbl_ops_t *ops, size_t i);
mbl_status_t mbl_ops_between(mbl_ops_t *ops, size_t from, size_t to, double *seconds);
/* Waits, and counts the calls of a profile that are not in the stats yet. */
mbl_status_t mbl_ops_profiled(mbl_ops_t *ops);

/* Host memory for copies, from the backend where it has a kind of its own. Free with mbl_host_free. */
mbl_status_t mbl_host_new(mbl_ops_t *ops, size_t bytes, void **out);
void mbl_host_free(mbl_ops_t *ops, void *ptr); /* NULL is fine */

#define MBL_OP_DECLARE(name, need)                                                                           \
    mbl_status_t mbl_op_##name(mbl_ops_t *ops, const mbl_##name##_args_t *args);
MBL_OPS_LIST(MBL_OP_DECLARE)
#undef MBL_OP_DECLARE

/* Shorter to write: MBL_OP(ops, matmul, .y = &y, .a = &x, .b = &w, .transpose_b = true) */
#define MBL_OP(ops, name, ...) mbl_op_##name((ops), &(const mbl_##name##_args_t){__VA_ARGS__})

/* What an operand is to an operation: the same table drives the checks, the checking backend and byte counts.
 */
typedef enum { MBL_IN, MBL_OUT, MBL_INOUT, MBL_PART /* written in part, the rest is kept */ } mbl_role_t;
typedef struct {
    const char *name;
    size_t offset; /* of the tensor pointer in the argument struct */
    mbl_role_t role;
    bool optional;
} mbl_operand_t;
/* The operands of an operation, [*n]. */
const mbl_operand_t *mbl_op_operands(mbl_op_t op, size_t *n);
const char *mbl_op_name(mbl_op_t op);
/* The role in one call: matmul's and conv2d's y is MBL_OUT unless it accumulates, axpby's where b = 0,
 * qk_norm's q and k where all tokens are written. */
mbl_role_t mbl_op_role(mbl_op_t op, const mbl_operand_t *operand, const void *args);
/* Whether what an operation gives lies on the host: it waits for the device, and no recorded part has it. */
static inline bool mbl_op_to_host(mbl_op_t op) {
    return op == MBL_OP_gram || op == MBL_OP_distance || op == MBL_OP_checksum;
}

#endif
