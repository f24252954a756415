/* What the files of a gradient run share. */
#ifndef MBL_RL_GRADIENT_INTERNAL_H
#define MBL_RL_GRADIENT_INTERNAL_H

#include "rl/gradient.h"

/* Losses of so many micro-batches wait on the device until the host reads them, all at once: a read waits for
 * everything asked for before it. */
enum { HELD_LOSSES = 32, LOSS_NUMBERS = 3 /* of a row: both losses, the KL term */ };
typedef struct {
    size_t first, n;
    bool kl;
} held_losses_t;

struct mbl_gradient {
    mbl_pipeline_t *pipeline;
    mbl_ops_t *ops;
    mbl_dit_t *model;
    size_t rows, parts, elements; /* of a micro-batch; elements per sample */
    size_t size;                  /* of the adapter, with its holes */
    mbl_tape_t *keep, *none;
    mbl_tensor_t x0, noise, xt, v, v_old, v_ref, u, h, dkl, seed; /* [rows, C, H, W] */
    mbl_tensor_t t, loss_plus, loss_minus, kl;                    /* [rows] */
    mbl_tensor_t mix;                                             /* [MBL_ROWS_TERMS, rows] */
    mbl_tensor_t coefficient;                                     /* [parts, rows] f32 */
    mbl_tensor_t sample;                                          /* [rows] i64 */
    mbl_tensor_t losses;                                          /* [HELD_LOSSES * LOSS_NUMBERS, rows] */
    held_losses_t held[HELD_LOSSES];
    size_t n_held;
    mbl_conditions_t conditions;
    float *host_f32;  /* staging: max(parts, MBL_ROWS_TERMS, HELD_LOSSES * LOSS_NUMBERS) * rows */
    double *host_f64; /* the same */
    int64_t *host_i64;
    uint32_t *order; /* [MBL_SAMPLER_MAX_STEPS] */
};

/* The micro-batch under way: rows first .. first + n - 1 of the batch at position `slot` of each sample's
 * timestep order. */
typedef struct {
    const mbl_gradient_args_t *args;
    size_t first, n, slot;
    bool last;    /* none of this run's follows it */
    bool kl;      /* the KL term is taken of its rows */
    double scale; /* (clip / beta) / global rows */
    mbl_tensor_t x0, noise, xt, v, v_old, v_ref, u, h, dkl, seed, t, loss_plus, loss_minus, kl_rows;
    mbl_conditions_t conditions;
} mbl_micro_t;

/* What a row weighs in the mean of part r, where one over all rows weighs 1. */
static inline double mbl_micro_weight(const mbl_micro_t *m, size_t r, size_t i) {
    return mbl_masks_weight(m->args->masks, r, m->first + i, m->args->batch->n);
}

/* A row that the KL term is taken of stands for as many. */
static inline double mbl_gradient_kl_scale(const mbl_gradient_args_t *args) {
    return args->kl_rows ? args->kl_scale : 1;
}

/* Copies a micro-batch's losses to where they wait: those of the next one come to the same place. Where
 * HELD_LOSSES wait already, reads them first. */
mbl_status_t mbl_gradient_hold_losses(mbl_gradient_t *g, const mbl_micro_t *m, mbl_gradient_stats_t *stats);
/* Reads and adds the losses that wait, in the order of their micro-batches. `m`: any of the run's. */
mbl_status_t mbl_gradient_read_losses(mbl_gradient_t *g, const mbl_micro_t *m, mbl_gradient_stats_t *stats);

#endif
