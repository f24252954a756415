/* Own matrix products: how a product is cut into tasks, and what is packed where. Columns come in chunks
 * whose part of b, packed by all threads, stays in the shared cache; a task is some rows, and where there
 * are few, some panels of the chunk. */
#include "ops/cpu/gemm.h"
#include "base/mem.h"

#include <omp.h>
#include <string.h>

enum {
    CHUNK_BYTES = 4 << 20, /* of packed columns */
    CHUNK_COLUMNS = 512,   /* at most, where sums of parts of K are kept beside them */
    TASK_ROWS = 48,        /* about: rows of a that stay in the second cache */
    ONE_THREAD = 1 << 17   /* products of so few multiplications are not worth waking threads for */
};

typedef struct {
    const mbl_gemm_kernel_t *kernel;
    const mbl_matmul_args_t *args;
    size_t m, n, k, parts; /* K in this many parts */
    size_t tiles, blocks;  /* of rows: tiles, and tasks of some tiles */
    size_t chunk, groups;  /* columns packed at a time; and tasks that share them */
    int threads;
    bool gathered;                 /* a is copied before use */
    size_t part_row, worker, a_at; /* floats of a worker's scratch, and before its copy of a */
    float *bias, *packed,
        *workers; /* workers: the scratch of every thread, part [rows, part_row], then a [rows, depth] */
} plan_t;

const mbl_gemm_kernel_t *mbl_gemm_kernel(const char *name) {
#if defined(__x86_64__)
    if (strcmp(name, mbl_gemm_avx2.name) == 0)
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? &mbl_gemm_avx2 : NULL;
#endif
    return strcmp(name, mbl_gemm_portable.name) == 0 ? &mbl_gemm_portable : NULL;
}

static size_t up(size_t x, size_t to) {
    return (x + to - 1) / to * to;
}

static size_t least(size_t a, size_t b) {
    return a < b ? a : b;
}

/* The first of `n` things in part `i` of `parts` that differ by one at most. */
static size_t start_of(size_t n, size_t parts, size_t i) {
    return i * (n / parts) + least(i, n % parts);
}

static plan_t plan_of(const mbl_gemm_kernel_t *kernel, const mbl_matmul_args_t *args, int threads) {
    plan_t p = {.kernel = kernel, .args = args, .m = args->y->dim[0], .n = args->y->dim[1]};
    size_t width = kernel->columns;
    p.k = args->a->dim[!args->transpose_a];
    p.parts = p.k > MBL_GEMM_DEPTH ? (p.k + MBL_GEMM_DEPTH - 1) / MBL_GEMM_DEPTH : 1;
    p.tiles = (p.m + kernel->rows - 1) / kernel->rows;
    p.blocks = (p.tiles * kernel->rows + TASK_ROWS - 1) / TASK_ROWS;
    p.chunk = p.k > 0 ? CHUNK_BYTES / sizeof(float) / p.k / width * width : p.n;
    p.chunk = p.chunk < width ? width : p.chunk;
    if (p.parts > 1 && p.chunk > CHUNK_COLUMNS)
        p.chunk = CHUNK_COLUMNS;
    p.chunk = least(p.chunk, up(p.n, kernel->lanes));
    bool small = p.m <= ONE_THREAD && p.n <= ONE_THREAD && p.m * p.n <= ONE_THREAD / (p.k + 1);
    p.threads = small ? 1 : threads;
    size_t panels = (p.chunk + width - 1) / width;
    p.groups =
        p.blocks >= (size_t)p.threads ? 1 : least(panels, ((size_t)p.threads + p.blocks - 1) / p.blocks);
    p.gathered = args->a->dtype != MBL_F32 || args->transpose_a;
    p.part_row = p.parts > 1 ? up(p.chunk, width) : 0;
    return p;
}

/* Where everything lies, from the arena's base on; with NULL bytes are only counted. */
static void carve(plan_t *p, mbl_arena_t *arena) {
    size_t tall = p->blocks ? (p->tiles + p->blocks - 1) / p->blocks * p->kernel->rows : 0;
    size_t depth = (p->k + p->parts - 1) / p->parts, columns = up(p->n, p->kernel->lanes);
    mbl_arena_t worker = {NULL, 0, 0};
    mbl_arena_take(&worker, tall, p->part_row * sizeof(float));
    mbl_arena_take(&worker, p->gathered ? tall : 0, depth * sizeof(float));
    p->a_at = p->gathered ? (worker.used - tall * depth * sizeof(float)) / sizeof(float) : 0;
    p->worker = up(worker.used, 64) / sizeof(float);
    p->bias = mbl_arena_take(arena, p->args->bias ? columns : 0, sizeof(float));
    p->packed = mbl_arena_take(arena, p->chunk, p->k * sizeof(float));
    p->workers = mbl_arena_take(arena, (size_t)p->threads, up(worker.used, 64));
}

mbl_status_t mbl_gemm_bytes(const mbl_gemm_kernel_t *kernel, const mbl_matmul_args_t *args, int threads,
                            size_t *out) {
    plan_t p = plan_of(kernel, args, threads);
    mbl_arena_t count = {NULL, 0, 0};
    carve(&p, &count);
    MBL_REQUIRE(count.used < SIZE_MAX / 2, "a matrix product of %zu x %zu x %zu is too large", p.m, p.n, p.k);
    *out = up(count.used, 64);
    return MBL_OK;
}

static void fill_bias(const plan_t *p) {
    const mbl_tensor_t *bias = p->args->bias;
    for (size_t j = 0; j < up(p->n, p->kernel->lanes); j++)
        p->bias[j] = j >= p->n                 ? 0
                     : bias->dtype == MBL_BF16 ? mbl_bf16_to_f32(((const uint16_t *)bias->data)[j])
                                               : ((const float *)bias->data)[j];
}

/* Rows of task `block` times columns [column, column + columns) of the chunk that begins at `chunk`. */
static void run_task(const plan_t *p, size_t block, size_t chunk, size_t column, size_t columns,
                     float *worker) {
    size_t tile = start_of(p->tiles, p->blocks, block), end = start_of(p->tiles, p->blocks, block + 1);
    size_t row = start_of(p->m, p->tiles, tile);
    const mbl_tensor_t *a = p->args->a;
    mbl_gemm_task_t t = {.args = p->args,
                         .row = row,
                         .rows = start_of(p->m, p->tiles, end) - row,
                         .tiles = end - tile,
                         .column = column,
                         .columns = columns,
                         .b = p->packed + (column - chunk) * p->k,
                         .k = p->k,
                         .bias = p->args->bias ? p->bias + column : NULL,
                         .part = worker,
                         .part_row = p->part_row};
    for (size_t i = 0; i < p->parts; i++) {
        t.first = start_of(p->k, p->parts, i);
        t.depth = start_of(p->k, p->parts, i + 1) - t.first;
        t.a = p->gathered ? worker + p->a_at : (const float *)a->data + row * a->stride[0] + t.first;
        t.a_row = p->gathered ? t.depth : a->stride[0];
        if (p->gathered)
            p->kernel->load(worker + p->a_at, p->args, row, t.rows, t.first, t.depth);
        p->kernel->multiply(&t);
    }
}

/* One thread's share of everything; all threads of the team are in here. */
static void run_thread(const plan_t *p, float *worker) {
    const size_t width = p->kernel->columns;
    for (size_t first = 0; first < p->n; first += p->chunk) {
        size_t columns = least(p->chunk, p->n - first), panels = (columns + width - 1) / width;
#pragma omp for schedule(static)
        for (size_t i = 0; i < panels; i++)
            p->kernel->pack(p->packed + i * width * p->k, p->args, first + i * width,
                            least(width, columns - i * width));
#pragma omp for schedule(static)
        for (size_t i = 0; i < p->blocks * p->groups; i++) {
            size_t from = start_of(panels, p->groups, i % p->groups) * width;
            size_t to = least(start_of(panels, p->groups, i % p->groups + 1) * width, columns);
            if (from < to)
                run_task(p, i / p->groups, first, first + from, to - from, worker);
        }
    }
}

void mbl_gemm_run(const mbl_gemm_kernel_t *kernel, const mbl_matmul_args_t *args, int threads, void *work) {
    plan_t p = plan_of(kernel, args, threads);
    mbl_arena_t arena = {work, SIZE_MAX, 0};
    carve(&p, &arena);
    if (args->bias)
        fill_bias(&p);
#pragma omp parallel num_threads(p.threads) if (p.threads > 1)
    run_thread(&p, p.workers + (size_t)omp_get_thread_num() * p.worker);
}
