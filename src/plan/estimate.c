/* Bounds and estimates, from counts. Every number that is no datasheet's stands here, with where it is from.
 */
#include "plan/estimate.h"

#include <math.h>
#include <string.h>

const mbl_plan_source_t mbl_plan_sources[] = {
    {"products 0.85 of the tensor cores' rate: 80 to 90 % (FlashAttention-3, arXiv 2407.08608, "
     "introduction); convolutions as the products that they are made of: assumed"},
    {"attention 0.60 of it on A100: 50 to 73 % (FlashAttention-2, arXiv 2307.08691, abstract); 0.35 on H100 "
     "and "
     "H200, of kernels that use mma.sync, as ours do (FlashAttention-3, abstract); on B200 as many a "
     "multiprocessor as on H100: assumed"},
    {"everything else 0.85 of the memory's bandwidth: assumed"},
    {"tails: tiles of 128 x 256 in whole rounds over the multiprocessors; two blocks of attention on each"},
    {"0.5 us between kernels of a graph (NVIDIA, Getting Started with CUDA Graphs: 3.4 us for one of 2.9)"},
    {"NCCL 0.82 of the links' rate (NVIDIA/nccl-tests issue 212: 370 of 450 GB/s by rings on eight H100); "
     "3.4 us "
     "a step of a ring within a host, 14 between hosts, 0.6 and 5 of a tree for small ones (NCCL's tuning "
     "table)"},
    {NULL}};

static const double PRODUCTS = 0.85, BANDWIDTH = 0.85, GAP = 0.5e-6, LINKS = 0.82;
static const double RING_STEP[2] = {3.4e-6, 14e-6}, TREE_STEP[2] = {0.6e-6, 5e-6}; /* in a host, between */

static double larger(double a, double b) {
    return a > b ? a : b;
}

/* What attention reaches of the tensor cores' rate. */
static double attention_share(const mbl_gpu_t *gpu) {
    const mbl_gpu_t *hopper = mbl_gpu_find("h100");
    if (strcmp(gpu->name, "a100") == 0)
        return 0.6;
    if (strcmp(gpu->name, "b200") != 0)
        return 0.35;
    return 0.35 * hopper->peak[MBL_UNIT_TENSOR] / (double)hopper->processors * (double)gpu->processors /
           gpu->peak[MBL_UNIT_TENSOR];
}

/* How much longer the blocks take than if every multiprocessor were busy to the end. Less than one round is
 * cut finer by cublasLt, and no matter of rounds. */
static double rounds(const mbl_gpu_t *gpu, const mbl_cost_t *cost) {
    const double full =
        (double)cost->blocks / (double)(gpu->processors * (cost->at_once ? cost->at_once : 1));
    return full > 1 ? ceil(full) / full : 1;
}

void mbl_plan_estimate_call(const mbl_gpu_t *gpu, int row, const mbl_cost_t *cost, double *kernels,
                            double *tail) {
    const bool attention = row == MBL_OP_attention || row == MBL_OP_attention_bwd;
    const double share = attention ? attention_share(gpu) : PRODUCTS;
    const double tensor = cost->flops[MBL_UNIT_TENSOR] / (gpu->peak[MBL_UNIT_TENSOR] * share);
    double other = cost->bytes / (gpu->bandwidth * BANDWIDTH);
    for (int unit = 0; unit < MBL_UNITS; unit++)
        if (unit != MBL_UNIT_TENSOR)
            other = larger(other, cost->flops[unit] / gpu->peak[unit]);
    *kernels = larger(tensor, other);
    *tail = larger(tensor * rounds(gpu, cost), other) - *kernels;
}

double mbl_plan_message(const mbl_gpu_t *gpu, size_t ranks, double bytes, bool large) {
    const size_t hosts = (ranks + MBL_PLAN_HOST - 1) / MBL_PLAN_HOST;
    double rate = gpu->link * LINKS;
    if (ranks < 2)
        return 0;
    /* a ring for each adapter of a host: its GPUs share all of them */
    if (hosts > 1)
        rate = fmin(gpu->link, gpu->network * MBL_PLAN_HOST) * LINKS;
    const double between = (double)(hosts > 1 ? hosts : 0),
                 within = (double)ranks - 1 - larger(between - 1, 0);
    if (large)
        return bytes * (double)(ranks - 1) / (double)ranks / rate + within * RING_STEP[0] +
               between * RING_STEP[1];
    return 2 * (log2((double)(ranks < MBL_PLAN_HOST ? ranks : MBL_PLAN_HOST)) * TREE_STEP[0] +
                (hosts > 1 ? ceil(log2((double)hosts)) * TREE_STEP[1] : 0)) +
           bytes / rate;
}

/* The messages of an optimizer step. Those that begin before the last backward pass are hidden behind it. */
static void add_messages(const mbl_gpu_t *gpu, const mbl_plan_shape_t *shape, const mbl_plan_t *plan,
                         double pass, mbl_plan_estimate_t *out) {
    const double times = (double)plan->phase[MBL_PLAN_UPDATE].times;
    for (size_t i = 0; i < plan->messages; i++) {
        const mbl_plan_message_t *m = &plan->message[i];
        const double seconds = mbl_plan_message(gpu, shape->ranks, (double)m->bytes, m->large);
        out->messages += times * seconds;
        out->exposed += times * (m->hidden ? larger(seconds - pass, 0) : seconds);
    }
}

/* A phase as often as it is run; returns the seconds of one run. */
static double add_phase(const mbl_gpu_t *gpu, const mbl_plan_count_t *count, mbl_plan_estimate_t *out) {
    double once = 0;
    for (size_t i = 0; i < count->n; i++) {
        const mbl_cost_item_t *item = &count->item[i];
        const double calls = (double)item->calls, all = calls * count->share * (double)count->times,
                     gaps = GAP * (double)item->cost.launches;
        double kernels, tail;
        mbl_plan_estimate_call(gpu, item->row, &item->cost, &kernels, &tail);
        out->bound += all * mbl_roofline(gpu, &item->cost, 0);
        out->kernels += all * kernels;
        out->tails += all * tail;
        out->gaps += all * gaps;
        once += calls * (kernels + tail + gaps);
    }
    return once;
}

void mbl_plan_estimate_text(const mbl_gpu_t *gpu, const mbl_plan_t *plan, mbl_plan_estimate_t *out) {
    memset(out, 0, sizeof *out);
    (void)add_phase(gpu, &plan->phase[MBL_PLAN_TEXT], out);
    out->seconds = out->kernels + out->tails + out->gaps;
}

void mbl_plan_estimate(const mbl_gpu_t *gpu, const mbl_plan_shape_t *shape, const mbl_plan_t *plan,
                       mbl_plan_estimate_t *out) {
    double micro_batch = 0;
    memset(out, 0, sizeof *out);
    for (mbl_plan_phase_t phase = 0; phase < MBL_PLAN_PHASES; phase++) {
        const double once = add_phase(gpu, &plan->phase[phase], out);
        if (phase == MBL_PLAN_TRAIN)
            micro_batch = once;
    }
    /* A training micro-batch is three passes forward and two backward, or two, and three with kl_apart; a
     * backward pass without weights' gradients costs about as much as one forward. */
    const double passes = 2 + (shape->kl ? 1 : 0) + 2 + (shape->kl_apart ? 1 : 0);
    add_messages(gpu, shape, plan, micro_batch / passes, out);
    out->seconds = out->kernels + out->tails + out->gaps + out->exposed;
}
