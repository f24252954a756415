/* What the files of `marble plan` share. */
#ifndef MBL_CLI_PLAN_H
#define MBL_CLI_PLAN_H

#include "plan/estimate.h"

enum { MBL_PLAN_GPUS = 8 };

/* A plan and what it is printed for. */
typedef struct {
    const mbl_plan_shape_t *shape;
    const mbl_plan_t *plan;
    const mbl_gpu_t *gpu[MBL_PLAN_GPUS]; /* [gpus] */
    size_t gpus;
    double launch; /* seconds added for a launch */
    double memory; /* bytes of each GPU, instead of its own; 0: that */
    bool markdown, details;
} mbl_plan_view_t;

/* All calls of one row of a phase together. */
typedef struct {
    uint64_t calls;
    mbl_cost_t cost;
    double seconds[MBL_PLAN_GPUS];
} mbl_plan_sum_t;

/* Sums of a phase by row, sum [MBL_COST_ROWS + 1]; the last is all of it. */
void mbl_plan_sums(const mbl_plan_view_t *view, mbl_plan_phase_t phase, mbl_plan_sum_t *sum);
/* Seconds of a phase, as often as it is run, and of an epoch on GPU i of the view. */
double mbl_plan_phase(const mbl_plan_view_t *view, mbl_plan_phase_t phase, size_t i);
double mbl_plan_epoch(const mbl_plan_view_t *view, size_t i);

/* Bytes of GPU i of the view. */
double mbl_plan_gpu_memory(const mbl_plan_view_t *view, size_t i);

mbl_status_t mbl_plan_print(const mbl_plan_view_t *view);
/* One number of GPUs of a table by their number: a run's shape there, and its time. */
typedef struct {
    size_t ranks, images, rollout_batch, train_batch; /* images of all ranks */
    mbl_plan_estimate_t time;
} mbl_plan_point_t;
mbl_status_t mbl_plan_print_points(const mbl_plan_view_t *view, const mbl_plan_point_t *point, size_t n);
/* What the estimates are made of, a line each. */
void mbl_plan_print_sources(void);
/* One JSON object into a file, "-" for the standard output. */
mbl_status_t mbl_plan_write(const mbl_plan_view_t *view, const char *path);

#endif
