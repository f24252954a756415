/* The time of an epoch on a number of GPUs: the bound that the datasheets give, and an estimate from what
 * others measured of kernels of these kinds. Neither is a measurement of this program. */
#ifndef MBL_PLAN_ESTIMATE_H
#define MBL_PLAN_ESTIMATE_H

#include "ops/roofline.h"
#include "plan/plan.h"

/* Seconds of an epoch on one rank; an estimate is the sum of kernels, tails, gaps and exposed. */
typedef struct {
    double bound;    /* BOUND: every kernel at its roofline, messages hidden */
    double kernels;  /* estimates: at the part of the roofline that kernels of their kind reach */
    double tails;    /* of products and attention: multiprocessors without a block in the last round */
    double gaps;     /* between one kernel and the next */
    double messages; /* collectives of the optimizer steps, */
    double exposed;  /* and what of them no backward pass hides */
    double seconds;
} mbl_plan_estimate_t;

/* What an estimate is made of; the text names the source. The last has a NULL text. */
typedef struct {
    const char *text;
} mbl_plan_source_t;
extern const mbl_plan_source_t mbl_plan_sources[];

enum { MBL_PLAN_HOST = 8 }; /* GPUs of a host */

void mbl_plan_estimate(const mbl_gpu_t *gpu, const mbl_plan_shape_t *shape, const mbl_plan_t *plan,
                       mbl_plan_estimate_t *out);
/* Of encoding a rank's prompts, once; without messages. */
void mbl_plan_estimate_text(const mbl_gpu_t *gpu, const mbl_plan_t *plan, mbl_plan_estimate_t *out);
/* Of one call, without gaps: its kernels, and the tail beyond them. */
void mbl_plan_estimate_call(const mbl_gpu_t *gpu, int row, const mbl_cost_t *cost, double *kernels,
                            double *tail);
/* Seconds of a collective of so many bytes in all, on `ranks` GPUs. */
double mbl_plan_message(const mbl_gpu_t *gpu, size_t ranks, double bytes, bool large);

#endif
