/* Sharded optimizers: every rank keeps the state of its shard of the flat weight vector, updates that shard,
 * and all gather the new weights. A new one is a file with mbl_optimizer_NAME and a word in the list. */
#ifndef MBL_RL_OPTIMIZER_H
#define MBL_RL_OPTIMIZER_H

#include "comm/comm.h"
#include "ops/ops.h"

#define MBL_OPTIMIZER_LIST(X) X(adamw)

typedef struct {
    double lr, beta1, beta2, eps, weight_decay;
    double grad_clip; /* global norm; 0 for none */
} mbl_optimizer_options_t;

enum { MBL_OPTIMIZER_STATES = 4 };

typedef struct mbl_optimizer mbl_optimizer_t;

typedef struct {
    const char *name;
    const char *states[MBL_OPTIMIZER_STATES]; /* vectors that it keeps, f32, 0 at first; by these names in
                                                 checkpoints */
    /* One step of this rank's shard of the weights along -g * scale. Local. */
    mbl_status_t (*step)(mbl_optimizer_t *optimizer, const mbl_optimizer_options_t *options,
                         const mbl_tensor_t *weights, const mbl_tensor_t *g, double scale);
} mbl_optimizer_table_t;

#define MBL_OPTIMIZER_DECLARE(name) extern const mbl_optimizer_table_t mbl_optimizer_##name;
MBL_OPTIMIZER_LIST(MBL_OPTIMIZER_DECLARE)
#undef MBL_OPTIMIZER_DECLARE

struct mbl_optimizer {
    const mbl_optimizer_table_t *table;
    mbl_ops_t *ops;
    mbl_tensor_t state[MBL_OPTIMIZER_STATES]; /* [count] f32 of this rank's shard */
    size_t n;                                 /* of them */
    size_t count;
    uint64_t steps; /* done so far */
};

/* For a vector padded to size * count (mbl_shard_count). Free with mbl_optimizer_free. */
mbl_status_t mbl_optimizer_new(mbl_ops_t *ops, const mbl_optimizer_table_t *table, size_t count,
                               mbl_optimizer_t *out);
void mbl_optimizer_free(mbl_optimizer_t *optimizer);

/* The dataset of a checkpoint that holds state i < n: "optimizer/m", into out [MBL_OPTIMIZER_NAME]; returns
 * out. */
enum { MBL_OPTIMIZER_NAME = 48 };
char *mbl_optimizer_dataset(const mbl_optimizer_t *optimizer, size_t i, char *out);

/* One step on weights [size * count] f32 with gradient shard [count] (f32 or f64) of global norm `norm`.
 * Collective. */
mbl_status_t mbl_optimizer_step(mbl_comm_t *comm, mbl_optimizer_t *optimizer,
                                const mbl_optimizer_options_t *options, const mbl_tensor_t *gradient,
                                double norm, const mbl_tensor_t *weights);

#endif
