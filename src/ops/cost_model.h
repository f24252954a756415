/* The cost model: executes nothing and counts what the cuda backend would do with the same calls, from their
 * shapes alone. Addresses it gives out lead nowhere, so a model of any size takes no memory; what would be
 * copied to the host is zeros. Counts are of the kernels in gpu/: an emulated build's test compares launches
 * and memory with the real ones. */
#ifndef MBL_OPS_COST_MODEL_H
#define MBL_OPS_COST_MODEL_H

#include "ops/ops.h"

/* What does the arithmetic: tensor cores on bf16 operands, the f32 units (also for bf16 values outside
 * products), the f64 units. */
typedef enum { MBL_UNIT_TENSOR, MBL_UNIT_F32, MBL_UNIT_F64, MBL_UNITS } mbl_unit_t;

/* One call on the cuda backend. */
typedef struct {
    double flops[MBL_UNITS]; /* as executed: attention's backward pass forms its scores twice */
    double bytes;            /* moved between device memory and the processors, kernel by kernel */
    double least;            /* every input read once and every output written once */
    size_t launches;         /* kernels, products of cublasLt, copies and clears */
    size_t blocks, at_once;  /* of products and attention: blocks of the kernel with the arithmetic, and how
                                many a multiprocessor has at one time; 0: not known */
    size_t work;             /* bytes of scratch memory, shared by all calls */
} mbl_cost_t;

/* Operations, and what else goes to the device. */
enum { MBL_COST_ZERO = MBL_OP_COUNT, MBL_COST_COPY, MBL_COST_UPLOAD, MBL_COST_DOWNLOAD, MBL_COST_ROWS };
const char *mbl_cost_row_name(int row);

/* Calls of one row that cost the same. */
typedef struct {
    int row;
    uint64_t calls;
    mbl_cost_t cost; /* of one */
} mbl_cost_item_t;

/* Opened like any backend; close with mbl_ops_close. */
mbl_status_t mbl_cost_model_open(mbl_ops_t **out);
/* What was counted since the last time, [*n], and starts afresh. Valid until the next call is counted. */
const mbl_cost_item_t *mbl_cost_model_take(mbl_ops_t *ops, size_t *n);
/* Device memory in bytes: of tensors alive, and the most there was at once with scratch memory and cublasLt's
 * workspace. */
size_t mbl_cost_model_live(const mbl_ops_t *ops);
size_t mbl_cost_model_peak(const mbl_ops_t *ops);

/* The cost of a call by itself (cost_rules.c): args is op's argument struct. */
void mbl_cost_of(mbl_op_t op, const void *args, mbl_cost_t *out);

#endif
