/* An optimizer step, from images with advantages to new weights: form the rewards' gradients and their Gram
 * matrix, solve for the weights, combine the gradients to one direction, apply it. Training, `marble bench`
 * and `marble plan` all call this, so what is timed and counted is what trains. */
#ifndef MBL_RL_UPDATE_H
#define MBL_RL_UPDATE_H

#include "rl/amortise.h"
#include "rl/balance.h"
#include "rl/gradient.h"
#include "rl/noise.h"
#include "rl/optimizer.h"
#include "rl/policy.h"
#include "rl/reference.h"

/* The sets of a step (sets.h), and the step that was taken. */
enum { MBL_MAX_SETS = MBL_SETS_MAX + 1 };

typedef struct {
    mbl_comm_t *comm;
    mbl_ops_t *ops;
    size_t padded; /* length of the flat vectors: ranks * shard */
    /* carried from step to step, and in checkpoints */
    mbl_policy_t policy;
    mbl_optimizer_t optimizer;
    mbl_balance_state_t balance;
    mbl_amortise_t cache;
    /* room for gradients, made by mbl_update_prepare */
    mbl_gradient_t *gradient;
    size_t parts, micro_batch;
    mbl_tensor_t sets;      /* f64 [S, padded], S the most sets of a step */
    mbl_tensor_t shard;     /* f64 [S + 1, count] of the sums over ranks, and a row for what else adds to D */
    mbl_tensor_t direction; /* f64 [count] */
    mbl_tensor_t half;      /* f64 [S, count]; only with mbl_update_room_t.halves */
    uint8_t *part_of;       /* [rows]; NULL without mbl_update_room_t.rows */
    uint8_t *kl_rows;       /* [kl_rows]; NULL without mbl_update_room_t.kl_rows */
    mbl_reference_t reference;
} mbl_update_t;

/* Fresh adapters and moments, sharded over the ranks of comm, for which `lora` is laid out (whole matrices
 * lie in one shard). Free with mbl_update_free. */
mbl_status_t mbl_update_new(mbl_comm_t *comm, mbl_ops_t *ops, const mbl_dit_t *model, const mbl_lora_t *lora,
                            uint64_t seed, mbl_update_t *out);
void mbl_update_free(mbl_update_t *update);

/* The largest step that will be asked for. */
typedef struct {
    size_t parts; /* reward parts R: K, or K + 1 with an objective of the method's own */
    size_t masks; /* distinct masks of those (masks.h): up to R; 0: one */
    bool kl_apart;
    size_t micro_batch; /* samples that belong together: of a partial Gram matrix, of marble_reference */
    size_t at_once;     /* pass through the model at once; 0: as many as belong together */
    size_t again;       /* blocks of the model that are made again in backward passes (model/dit.h) */
    size_t rows;        /* samples here * timesteps, of steps that solve on a part of them; 0: none does */
    size_t kl_rows;     /* the same, of steps that take the KL term of a fraction of them */
    bool halves;        /* steps may compare alpha between halves */
    const mbl_batch_t *reference; /* steps of marble_reference on batches of this shape; NULL: none */
} mbl_update_room_t;
/* Room for steps; mbl_update_free frees it, after a failure too. In two parts for who looks at the memory
 * that is left between them: sets, whose size no micro-batch changes, and the passes' activations. */
mbl_status_t mbl_update_prepare(mbl_update_t *update, mbl_pipeline_t *pipeline,
                                const mbl_update_room_t *room);
mbl_status_t mbl_update_prepare_sets(mbl_update_t *update, const mbl_update_room_t *room);
mbl_status_t mbl_update_prepare_passes(mbl_update_t *update, mbl_pipeline_t *pipeline,
                                       const mbl_update_room_t *room);

typedef struct {
    /* Rows and loss. The update sets current, old, old_is_current, c, part_of, part, kl_rows, kl_scale, add
     * and ready itself. */
    mbl_gradient_args_t gradient;
    mbl_balance_options_t balance;   /* and `sets` of these */
    double kl_fraction;              /* of the rows that the KL term is taken of; 0: of all */
    const mbl_reward_stats_t *stats; /* [K] of the batch's scores */
    uint64_t step;                   /* the number of this step, from 1 */
    bool begins;          /* the first of a stage: averages from before say nothing of it, and it solves */
    bool warmup;          /* equal weights, which do not enter the average */
    bool solve;           /* whatever the cache says */
    size_t refresh_every; /* steps between solves */
    bool smooth;          /* a step that solves uses the averaged alpha */
    double gram_fraction; /* of the rows that the solve sees */
    bool diagnose;        /* form all gradients for cosines though the method does not need them */
    bool halves;          /* alpha from two disjoint halves of the solve's rows too */
    mbl_shrink_t shrink;  /* of a solve's alpha (noise.h), by such halves */
    mbl_optimizer_options_t optimizer;
    double ema;
} mbl_update_options_t;

typedef struct {
    double loss, kl; /* of all ranks; NAN: no reward applies to any sample, the KL term is off */
    /* of the direction, before the clip; 0 or NAN: there was none, the weights stayed */
    double norm;
    /* loss, KL and all gradients formed; where one is not, the step is left out: the update stays as it was,
     * and alpha, norms and cosines are NAN */
    bool finite;
    bool balanced;  /* `balance` holds this step's weights */
    bool refreshed; /* ... solved for in this step, from gram_share of its rows; else cached ones */
    bool cosines;   /* ... and norms and cosines of the whole step */
    bool halves;    /* alpha_half holds what either half of the solve's rows says alone */
    double gram_share, alpha_half[2][MBL_MAX_REWARDS];
    double noise_ratio[MBL_MAX_REWARDS]; /* where `halves`: of the reward parts (noise.h) */
    double shrunk; /* the factor that balance.alpha was shrunk by, towards the target: 1 not at all */
    double alpha_raw[MBL_MAX_REWARDS]; /* of the solution, where refreshed; balance.alpha is what was used */
    mbl_balance_step_t balance;
    /* where `paired`: cosines of every two rewards' gradients [K, K], of the rows that the solve saw */
    bool paired;
    double cos_pair[MBL_MAX_REWARDS * MBL_MAX_REWARDS];
    double cos_step[MBL_MAX_REWARDS]; /* cos(-step taken, g_k); NAN where either is none */
    struct {
        double train, gram, qp;
    } seconds; /* of this rank */
} mbl_update_result_t;

/* The whole of it. A failure, ERR_STOPPED among them, before the weights move leaves the update as it was.
 * Collective. */
mbl_status_t mbl_update_step(mbl_update_t *update, const mbl_update_options_t *options,
                             mbl_update_result_t *out);

/* Forgets the average of alpha and the lengths of cached steps: the next step solves. For gradients that are
 * balanced by other keys or weights from now on. Local. */
void mbl_update_forget(mbl_update_t *update);

/* ---- its parts ---- */

/* A step under way. Its direction is D = sum_j coefficient_j shard_j over the first m rows of the shard,
 * which are `sets` (or one), plus the shard's last row where `rest`; or it stands in `direction` already
 * where `formed`. */
typedef struct {
    const mbl_update_options_t *options;
    mbl_update_result_t *out;
    mbl_gradient_args_t args;
    bool refresh, diagnose, rest, formed;
    size_t m;
    mbl_sets_t sets;
    double first_half; /* where there are halves: the first one's part of their rows */
    double c[MBL_MAX_SETS], coefficient[MBL_MAX_SETS], norm;
    mbl_balance_state_t balance; /* as they will be after the step */
    mbl_amortise_t cache;
} mbl_update_step_t;

/* Clears *out. */
void mbl_update_begin(const mbl_update_t *update, const mbl_update_options_t *options,
                      mbl_update_result_t *out, mbl_update_step_t *step);
/* The gradients that step->args ask for (all sets, or one with c), summed over ranks into the first rows of
 * the shard (or `shard`), and their Gram matrix. Collective. */
mbl_status_t mbl_update_form(mbl_update_t *update, mbl_update_step_t *step, double *gram);
mbl_status_t mbl_update_form_into(mbl_update_t *update, mbl_update_step_t *step, const mbl_tensor_t *shard,
                                  double *gram);
/* Which part of a step's rows a Gram matrix saw. */
typedef struct {
    double rows, mask[MBL_MAX_PARTS]; /* of all, and of those of every mask [M] */
} mbl_update_share_t;
/* Weights from the Gram matrix of all sets; share NULL: of all rows. Collective. */
mbl_status_t mbl_update_solve(mbl_update_t *update, mbl_update_step_t *step, const double *gram,
                              const mbl_update_share_t *share);
/* D into update->direction. Collective. */
mbl_status_t mbl_update_combine(mbl_update_t *update, mbl_update_step_t *step);
/* Moves the weights along D; leaves them (and the moments) alone when there is none, and everything when what
 * D is made of is not finite. Collective. */
mbl_status_t mbl_update_apply(mbl_update_t *update, mbl_update_step_t *step);

#endif
