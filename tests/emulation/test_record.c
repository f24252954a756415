/* Recorded parts of the cuda backend: the same results with graphs and without, to the bit, whatever changes
 * between one time and the next; graphs are used where they can be, and only there. */
#include "support.h"

#include "ops/ops.h"

#include <cuda_runtime_api.h>

#include <stddef.h>
#include <string.h>

#define OK(expr) assert_int_equal((expr), MBL_OK)
enum { N = 6, E = 40, ROUNDS = 5 };

static struct {
    int captures, launches;
    bool refuse;
} seen;

cudaError_t __real_cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode);
cudaError_t __wrap_cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode);
cudaError_t __wrap_cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode) {
    seen.captures++;
    return seen.refuse ? cudaErrorStreamCaptureUnsupported : __real_cudaStreamBeginCapture(stream, mode);
}

cudaError_t __real_cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream);
cudaError_t __wrap_cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream);
cudaError_t __wrap_cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
    seen.launches++;
    return __real_cudaGraphLaunch(exec, stream);
}

/* The same numbers on a backend that records and on one that does not. */
typedef struct {
    mbl_ops_t *ops;
    mbl_tensor_t x, w, y, z, mix, sum; /* [N,E], [E,E], [N,E], [N,E], [2,N], [E] */
} side_t;

typedef struct {
    double factor;
    bool upload; /* in the middle of the part */
    bool wrong;  /* an operation that is refused at the end */
} part_t;

static void open_side(side_t *s, bool record) {
    OK(mbl_ops_open("cuda", 1, &s->ops));
    s->ops->record = record;
    OK(mbl_tensor_new(s->ops, MBL_F32, &s->x, 2, (size_t)N, (size_t)E));
    OK(mbl_tensor_new(s->ops, MBL_F32, &s->w, 2, (size_t)E, (size_t)E));
    OK(mbl_tensor_new(s->ops, MBL_F32, &s->y, 2, (size_t)N, (size_t)E));
    OK(mbl_tensor_new(s->ops, MBL_F32, &s->z, 2, (size_t)N, (size_t)E));
    OK(mbl_tensor_new(s->ops, MBL_F32, &s->mix, 2, (size_t)2, (size_t)N));
    OK(mbl_tensor_new(s->ops, MBL_F32, &s->sum, 1, (size_t)E));
}

static void close_side(side_t *s) {
    mbl_tensor_t *all[] = {&s->x, &s->w, &s->y, &s->z, &s->mix, &s->sum};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        mbl_tensor_free(s->ops, all[i]);
    mbl_ops_close(s->ops);
}

static void fill(const side_t *s, const mbl_tensor_t *t, int salt) {
    float host[E * E];
    size_t n = mbl_tensor_count(t);
    for (size_t i = 0; i < n; i++)
        host[i] = (float)((int)((i * 37 + (size_t)salt * 101) % 199) - 99) / 64;
    OK(mbl_tensor_upload(s->ops, t, host));
}

static mbl_status_t body(const side_t *s, const part_t *part, int round) {
    MBL_TRY(MBL_OP(s->ops, matmul, .y = &s->y, .a = &s->x, .b = &s->w, .act = MBL_ACT_GELU_TANH));
    MBL_TRY(mbl_tensor_zero(s->ops, &s->sum));
    MBL_TRY(MBL_OP(s->ops, axpby, .y = &s->y, .x = &s->x, .a = part->factor, .b = 1));
    MBL_TRY(mbl_tensor_copy(s->ops, &s->z, &s->y));
    if (part->upload)
        fill(s, &s->x, 1000 + round);
    MBL_TRY(MBL_OP(s->ops, act, .y = &s->z, .x = &s->z, .act = MBL_ACT_SILU));
    MBL_TRY(MBL_OP(s->ops, rows_combine, .y = &s->z, .coefficient = &s->mix, .x = {&s->z, &s->x}));
    MBL_TRY(MBL_OP(s->ops, column_sum, .y = &s->sum, .x = &s->z));
    MBL_TRY(MBL_OP(s->ops, axpby, .y = &s->z, .x = &s->y, .a = 0.5, .b = part->factor));
    return part->wrong ? MBL_OP(s->ops, axpby, .y = &s->z, .x = &s->w, .a = 1, .b = 1) : MBL_OK;
}

static mbl_status_t run(const side_t *s, const part_t *part, int round) {
    fill(s, &s->x, round);
    fill(s, &s->mix, 7 * round + 1);
    OK(mbl_ops_record_begin(s->ops));
    return mbl_ops_record_end(s->ops, body(s, part, round));
}

static void same(const side_t *a, const side_t *b) {
    const mbl_tensor_t *of_a[] = {&a->y, &a->z, &a->sum}, *of_b[] = {&b->y, &b->z, &b->sum};
    float one[E * E], other[E * E];
    for (int i = 0; i < 3; i++) {
        OK(mbl_tensor_download(a->ops, of_a[i], one));
        OK(mbl_tensor_download(b->ops, of_b[i], other));
        assert_memory_equal(one, other, mbl_tensor_count(of_a[i]) * sizeof *one);
    }
}

/* Captures and launches of `rounds` times the part on both, compared each time. */
static void rounds(side_t sides[2], const part_t *part, int first, int count, int captures, int launches) {
    memset(&seen, 0, offsetof(__typeof__(seen), refuse));
    for (int round = first; round < first + count; round++) {
        OK(run(&sides[0], part, round));
        OK(run(&sides[1], part, round));
        same(&sides[0], &sides[1]);
    }
    assert_int_equal(seen.captures, captures);
    assert_int_equal(seen.launches, launches);
}

static int open_sides(void **state) {
    static side_t sides[2];
    for (int i = 0; i < 2; i++) {
        open_side(&sides[i], i == 1);
        fill(&sides[i], &sides[i].w, 3);
    }
    seen.refuse = false;
    *state = sides;
    return 0;
}

static int close_sides(void **state) {
    side_t *sides = *state;
    close_side(&sides[0]);
    close_side(&sides[1]);
    return 0;
}

/* The first time runs as usual, the second makes the graph. */
static void graph_repeats(void **state) {
    const part_t part = {.factor = 2};
    rounds(*state, &part, 0, ROUNDS, 1, ROUNDS - 1);
}

static void scalars_are_part_of_it(void **state) {
    for (int i = 0; i < 4; i++) {
        const part_t part = {.factor = 1 + i};
        rounds(*state, &part, i, 1, 0, 0);
    }
    for (int i = 0; i < 4; i++) {
        const part_t part = {.factor = 1 + i};
        rounds(*state, &part, 10 + i, 2, 1, 2);
    }
}

/* An upload cuts the part in two, each of at least four operations. */
static void uploads_cut(void **state) {
    const part_t part = {.factor = 2, .upload = true}, whole = {.factor = 2};
    rounds(*state, &whole, 0, 1, 0, 0); /* scratch memory is there */
    rounds(*state, &part, 1, ROUNDS, 2, 2 * (ROUNDS - 1));
}

/* Scratch memory moves when a larger operation asks for more: graphs that have its address are made anew. */
static void scratch_grows(void **state) {
    side_t *sides = *state;
    const part_t part = {.factor = 2};
    mbl_tensor_t x, sum;
    rounds(sides, &part, 0, 3, 1, 2);
    for (int i = 0; i < 2; i++) {
        OK(mbl_tensor_new(sides[i].ops, MBL_F32, &x, 2, (size_t)3000, (size_t)300));
        OK(mbl_tensor_new(sides[i].ops, MBL_F32, &sum, 1, (size_t)300));
        OK(MBL_OP(sides[i].ops, column_sum, .y = &sum, .x = &x));
        mbl_tensor_free(sides[i].ops, &x);
        mbl_tensor_free(sides[i].ops, &sum);
    }
    rounds(sides, &part, 3, 3, 1, 2);
}

/* A part that fails is not run, and the next one is a part of its own. */
static void failed_part(void **state) {
    side_t *sides = *state;
    const part_t part = {.factor = 2}, wrong = {.factor = 3, .wrong = true};
    rounds(sides, &part, 0, 3, 1, 2);
    mbl_fail_quiet(1);
    assert_int_equal(run(&sides[1], &wrong, 3), MBL_ERR_ARG);
    mbl_fail_quiet(0);
    same(&sides[0], &sides[1]);
    rounds(sides, &part, 4, 2, 0, 2);
}

static void no_capture(void **state) {
    const part_t part = {.factor = 2};
    seen.refuse = true;
    rounds(*state, &part, 0, ROUNDS, 1, 0);
}

/* More parts than graphs are kept: those met again in time have one. */
static void many_parts(void **state) {
    int first = 0;
    for (int pass = 0; pass < 3; pass++)
        for (int i = 0; i < 150; i++) {
            const part_t part = {.factor = i};
            rounds(*state, &part, first++, 1, 0, 0);
        }
    const part_t part = {.factor = 149};
    rounds(*state, &part, first, 3, 1, 3);
}

static void off(void **state) {
    side_t *sides = *state;
    const part_t part = {.factor = 2};
    sides[1].ops->record = false;
    rounds(sides, &part, 0, ROUNDS, 0, 0);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_sides, close_sides)
    const struct CMUnitTest tests[] = {TEST(graph_repeats), TEST(scalars_are_part_of_it),
                                       TEST(uploads_cut),   TEST(scratch_grows),
                                       TEST(failed_part),   TEST(no_capture),
                                       TEST(many_parts),    TEST(off)};
    return cmocka_run_group_tests_name("recorded parts", tests, NULL, NULL);
}
