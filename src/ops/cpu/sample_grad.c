/* Gradients per sample contracted at once with K coefficients, on the CPU (method.md section 4). The output
 * is cut into tiles; a thread forms its tile of every sample's product, some samples at a time, then adds
 * them to the tile of all K blocks. So samples are added in order, whatever the thread count. */
#include "ops/cpu/cpu.h"
#include "ops/cpu/rows.h"

#include <string.h>

/* Sums here may use fused multiply-add: no other form of the same sum has to give the same bits. */
#ifdef __clang__
#pragma STDC FP_CONTRACT ON
#define FUSED
#else
#define FUSED __attribute__((optimize("fp-contract=fast")))
#endif

/* Numbers of a tile; samples and tokens taken at a time; the register blocks of the two kernels. */
enum { TILE = 1024, TILE_SIDE = 64, BATCH = 48, TOKENS = 64 };
enum { BLOCK_P = 8, BLOCK_Q = 16, BLOCK_K = 5, LANES = 8 };
typedef double lanes_t __attribute__((vector_size(LANES * sizeof(double))));

/* The samples with a coefficient that is not 0, and factor * coefficient [active, K padded to BLOCK_K]. */
typedef struct {
    size_t tile_p, tile_q; /* long rows where there are any: memory is read in them */
    size_t *sample, active, k, padded;
    double *coefficient;
} plan_t;

/* y += the first `count` (at most BLOCK_Q) of s. */
static inline FUSED void add_block(double *y, const lanes_t s[2], size_t count) {
    lanes_t y0, y1;
    if (count >= BLOCK_Q) {
        memcpy(&y0, y, sizeof y0);
        memcpy(&y1, y + LANES, sizeof y1);
        y0 += s[0];
        y1 += s[1];
        memcpy(y, &y0, sizeof y0);
        memcpy(y + LANES, &y1, sizeof y1);
        return;
    }
    for (size_t j = 0; j < count; j++)
        y[j] += s[j / LANES][j % LANES];
}

/* Adds the tiles of `count` samples, product [count, TILE], times their coefficients to rows p0.. of acc. */
static FUSED void contract(const mbl_tensor_t *acc, const plan_t *plan, size_t first, size_t count,
                           const double *product, size_t p0, size_t np, size_t q0, size_t nq) {
    for (size_t p = 0; p < np; p++)
        for (size_t q = 0; q < nq; q += BLOCK_Q)
            for (size_t k = 0; k < plan->k; k += BLOCK_K) {
                const double *x = product + p * plan->tile_q + q,
                             *c = plan->coefficient + first * plan->padded + k;
                lanes_t s[BLOCK_K][2] = {0};
                for (size_t i = 0; i < count; i++, x += TILE, c += plan->padded) {
                    lanes_t x0, x1;
                    memcpy(&x0, x, sizeof x0);
                    memcpy(&x1, x + LANES, sizeof x1);
                    for (int r = 0; r < BLOCK_K; r++) {
                        s[r][0] += c[r] * x0;
                        s[r][1] += c[r] * x1;
                    }
                }
                for (size_t r = 0; r < BLOCK_K && k + r < plan->k; r++)
                    add_block(MBL_ROW3(double, acc, k + r, p0 + p) + q0 + q, s[r], nq - q);
            }
}

#define MBL_TEMPLATE "ops/cpu/sample_grad.inc"
#include "ops/cpu/each_type.h"

static mbl_status_t make_plan(mbl_ops_t *ops, const mbl_sample_grad_args_t *args, plan_t *plan) {
    size_t samples = args->a->dim[0], k = args->coefficient->dim[0];
    size_t padded = (k + BLOCK_K - 1) / BLOCK_K * BLOCK_K;
    void *work;
    MBL_TRY(mbl_cpu_workspace(ops, samples * (padded * sizeof(double) + sizeof(size_t)), &work));
    bool narrow = args->b->dim[2] <= BLOCK_Q;
    *plan = (plan_t){narrow ? TILE_SIDE : BLOCK_Q,
                     narrow ? BLOCK_Q : TILE_SIDE,
                     (size_t *)((double *)work + samples * padded),
                     0,
                     k,
                     padded,
                     work};
    for (size_t i = 0; i < samples; i++) {
        double *row = plan->coefficient + plan->active * padded;
        bool any = false;
        for (size_t j = 0; j < padded; j++) {
            row[j] = j < k ? args->factor * (double)MBL_ROW2(const float, args->coefficient, j)[i] : 0;
            any = any || row[j] != 0;
        }
        if (any)
            plan->sample[plan->active++] = i;
    }
    return MBL_OK;
}

mbl_status_t mbl_cpu_sample_grad(mbl_ops_t *ops, const mbl_sample_grad_args_t *args) {
    plan_t plan;
    MBL_TRY(make_plan(ops, args, &plan));
    size_t across = (args->b->dim[2] + plan.tile_q - 1) / plan.tile_q;
    size_t down = (args->a->dim[2] + plan.tile_p - 1) / plan.tile_p;
#pragma omp parallel for num_threads(ops->threads) schedule(static)
    for (size_t tile = 0; tile < across * down; tile++)
        MBL_BY_TYPE(args->a->dtype, sample_grad_tile, args, &plan, tile / across * plan.tile_p,
                    tile % across * plan.tile_q);
    return MBL_OK;
}
