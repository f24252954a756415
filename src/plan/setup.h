/* The setup of a plan: what a rank holds, and the phases of an epoch, made and run by the model's and the
 * method's own code on a backend; also on a real one, against which tests hold the counts. */
#ifndef MBL_PLAN_SETUP_H
#define MBL_PLAN_SETUP_H

#include "plan/comm.h"
#include "plan/plan.h"
#include "rl/merge.h"
#include "rl/update.h"

/* In the order train/loop.c makes it. */
typedef struct {
    const mbl_plan_shape_t *shape;
    mbl_ops_t *ops;                       /* set before opening, closed by the caller after the setup */
    size_t (*live)(const mbl_ops_t *ops); /* device memory taken; NULL: not asked for */
    mbl_pipeline_t *pipeline;
    mbl_lora_t *lora;
    mbl_conditions_t conditions, negative;
    mbl_plan_comm_t comm;
    mbl_update_t update;
    mbl_sampler_t *sampler, *evaluator;
    mbl_merge_t *merge; /* NULL: never */
    mbl_sampler_plan_t plan;
    mbl_tensor_t x0;
    float *a;
    uint32_t *prompt;
    int64_t *sample;
    uint8_t *no_rows; /* [most] mbl_gradient_args_t.part_of of a step without any */
    size_t most;      /* images of the larger micro-batch */
} mbl_plan_setup_t;

/* shape, ops and live are set, the rest is zero. *memory: its parts as far as they are made here. On
 * failure nothing is left. Weights are zero. */
mbl_status_t mbl_plan_setup_open(mbl_plan_setup_t *setup, mbl_plan_memory_t *memory);
/* The same without what depends on micro-batches; nothing can be run. */
mbl_status_t mbl_plan_setup_fixed(mbl_plan_setup_t *setup);
void mbl_plan_setup_close(mbl_plan_setup_t *setup);
/* Runs one unit of a phase. */
mbl_status_t mbl_plan_setup_run(mbl_plan_setup_t *setup, mbl_plan_phase_t phase);

#endif
