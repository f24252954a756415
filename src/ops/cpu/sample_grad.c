/* Gradients per sample contracted at once with K coefficients, on the CPU (src/rl/README.md). The output
 * is cut into tiles; a thread forms its tile of every sample's product, some samples at a time, then adds
 * them to the tile of all K blocks. So samples are added in order, whatever the thread count. Sums may use
 * fused multiply-add (CMakeLists.txt): no other form of the same sum has to give the same bits. */
#include "ops/cpu/cpu.h"
#include "ops/cpu/isa_ops.h"
#include "ops/cpu/rows.h"
#include "ops/cpu/vector.h"

#include <string.h>

/* Numbers of a tile; samples and tokens taken at a time; K blocks that one pass over the products serves. */
enum { TILE = 1024, TILE_NARROW = 16, TILE_LONG = TILE / TILE_NARROW, BATCH = 16, TOKENS = 64, SETS = 5 };
/* Rows of a tile in registers, each of VECTORS vectors. */
enum { ROWS = MBL_VECTOR_BYTES == 64 ? 8 : 6, VECTORS = 2 };
#define INLINED static inline __attribute__((always_inline))

/* f64 sums come by two vectors, which is one of f32. */
enum { DOUBLES = MBL_VECTOR_BYTES / sizeof(double) };
typedef double doubles_t __attribute__((vector_size(MBL_VECTOR_BYTES)));
typedef float half_t __attribute__((vector_size(MBL_VECTOR_BYTES / 2)));

static inline doubles_t load_f32(const float *x) {
    half_t half;
    memcpy(&half, x, sizeof half);
    return __builtin_convertvector(half, doubles_t);
}
static inline doubles_t load_f64(const double *x) {
    doubles_t whole;
    memcpy(&whole, x, sizeof whole);
    return whole;
}
#define LOAD_DOUBLES(x) _Generic((x), const float * : load_f32, const double * : load_f64)(x)

/* The samples with a coefficient that is not 0, and factor * coefficient [active, K]. */
typedef struct {
    size_t tile_p, tile_q; /* long rows where there are any: memory is read in them */
    size_t *sample, active, k;
    double *coefficient;
} plan_t;

/* y += the first `count` of two vectors. */
static inline void add_doubles(double *y, const doubles_t s[2], size_t count) {
    if (count >= 2 * DOUBLES) {
        doubles_t y0 = load_f64(y) + s[0], y1 = load_f64(y + DOUBLES) + s[1];
        memcpy(y, &y0, sizeof y0);
        memcpy(y + DOUBLES, &y1, sizeof y1);
        return;
    }
    for (size_t j = 0; j < count; j++)
        y[j] += s[j / DOUBLES][j % DOUBLES];
}

#define MBL_TEMPLATE "ops/cpu/sample_grad.inc"
#include "ops/cpu/each_type.h"

static mbl_status_t make_plan(mbl_ops_t *ops, const mbl_sample_grad_args_t *args, plan_t *plan) {
    size_t samples = args->a->dim[0], k = args->coefficient->dim[0];
    void *work;
    MBL_TRY(mbl_cpu_workspace(ops, samples * (k * sizeof(double) + sizeof(size_t)), &work));
    bool narrow = args->b->dim[2] <= TILE_NARROW;
    *plan = (plan_t){.tile_p = narrow ? TILE_LONG : TILE_NARROW,
                     .tile_q = narrow ? TILE_NARROW : TILE_LONG,
                     .sample = (size_t *)((double *)work + samples * k),
                     .k = k,
                     .coefficient = work};
    for (size_t i = 0; i < samples; i++) {
        double *row = plan->coefficient + plan->active * k;
        bool any = false;
        for (size_t j = 0; j < k; j++) {
            row[j] = args->factor * (double)MBL_ROW2(const float, args->coefficient, j)[i];
            any = any || row[j] != 0;
        }
        if (any)
            plan->sample[plan->active++] = i;
    }
    return MBL_OK;
}

mbl_status_t MBL_ISA_NAME(mbl_cpu_sample_grad)(mbl_ops_t *ops, const mbl_sample_grad_args_t *args) {
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
