/* Attention against plain f64 loops, its gradient against finite differences, f32 and bf16 against f64.
 * ctest-backends: fake cuda
 * ctest-isas: portable avx2 */
#include "base/rng.h"
#include "mirror.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    size_t n, h, t, t1, d;
    bool causal, bias;
} shape_t;

/* Everything of one case. Index 0..3 of in and grad: q, k, and the two parts of v, which are columns of
 * `qkv`. */
enum { OPERANDS = 4 };
typedef struct {
    mbl_ops_t *ops;
    shape_t s;
    mbl_tensor_t in[OPERANDS], grad[OPERANDS], qkv[2], dqkv[2], out[2], dout[2], lse, bias;
    double scale;
} case_t;

/* Random numbers that bf16 holds exactly, so that all types get the same inputs. */
static void fill(const mbl_tensor_t *t, uint64_t sample) {
    if (!t->data)
        return;
    mbl_rng_t rng = mbl_rng(11, MBL_RNG_NOISE, 0, sample);
    float pair[2];
    for (size_t i = 0; i < mbl_tensor_count(t); i++) {
        mbl_rng_normal2(&rng, pair);
        mirror_put(t, i, (double)mbl_bf16_to_f32(mbl_bf16_from_f32(pair[0])));
    }
    mirror_push(t);
}

static void open_case_on(const char *backend, case_t *c, shape_t s, mbl_dtype_t type, int threads) {
    memset(c, 0, sizeof *c);
    c->s = s;
    c->scale = 1 / sqrt((double)s.d);
    assert_int_equal(mbl_ops_open(backend, threads, &c->ops), MBL_OK);
    for (int i = 0; i < 2; i++) {
        c->in[i] = mirror_new(c->ops, type, 4, s.n, s.h, s.t, s.d);
        c->grad[i] = mirror_new(c->ops, type, 4, s.n, s.h, s.t, s.d);
        fill(&c->in[i], (uint64_t)i);
    }
    const size_t tokens[] = {s.t1, s.t - s.t1};
    for (int i = 0; i < 2; i++) {
        if (tokens[i] == 0)
            continue;
        c->qkv[i] = mirror_new(c->ops, type, 3, s.n, tokens[i], 3 * s.h * s.d, 0);
        c->dqkv[i] = mirror_new(c->ops, type, 3, s.n, tokens[i], 3 * s.h * s.d, 0);
        fill(&c->qkv[i], (uint64_t)(2 + i));
        c->in[2 + i] = mbl_tensor_columns(&c->qkv[i], 2 * s.h * s.d, s.h * s.d);
        c->grad[2 + i] = mbl_tensor_columns(&c->dqkv[i], 2 * s.h * s.d, s.h * s.d);
        c->out[i] = mirror_new(c->ops, type, 3, s.n, tokens[i], s.h * s.d, 0);
        c->dout[i] = mirror_new(c->ops, type, 3, s.n, tokens[i], s.h * s.d, 0);
        fill(&c->dout[i], (uint64_t)(10 + i));
    }
    if (s.bias) {
        c->bias = mirror_new(c->ops, mbl_dtype_stat(type), 2, s.h, 2 * s.t - 1, (size_t)0, (size_t)0);
        fill(&c->bias, 20);
    }
    c->lse = mirror_new(c->ops, mbl_dtype_stat(type), 3, s.n, s.h, s.t, 0);
}

static void open_case(case_t *c, shape_t s, mbl_dtype_t type, int threads) {
    open_case_on(test_backend(), c, s, type, threads);
}

static void close_case(case_t *c) {
    mbl_tensor_t *all[] = {&c->in[0],   &c->in[1],   &c->grad[0], &c->grad[1], &c->qkv[0],
                           &c->qkv[1],  &c->dqkv[0], &c->dqkv[1], &c->out[0],  &c->out[1],
                           &c->dout[0], &c->dout[1], &c->lse,     &c->bias};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        mirror_free(all[i]);
    mbl_ops_close(c->ops);
}

static void forward(case_t *c) {
    assert_int_equal(MBL_OP(c->ops, attention, .out1 = &c->out[0], .out2 = c->out[1].data ? &c->out[1] : NULL,
                            .lse = &c->lse, .q = &c->in[0], .k = &c->in[1], .v1 = &c->in[2],
                            .v2 = c->out[1].data ? &c->in[3] : NULL, .scale = c->scale, .causal = c->s.causal,
                            .bias = c->s.bias ? &c->bias : NULL),
                     MBL_OK);
    for (int i = 0; i < 2; i++)
        if (c->out[i].data)
            mirror_pull(&c->out[i]);
    mirror_pull(&c->lse);
}

static void backward(case_t *c) {
    bool two = c->out[1].data != NULL;
    assert_int_equal(MBL_OP(c->ops, attention_bwd, .dq = &c->grad[0], .dk = &c->grad[1], .dv1 = &c->grad[2],
                            .dv2 = two ? &c->grad[3] : NULL, .dout1 = &c->dout[0],
                            .dout2 = two ? &c->dout[1] : NULL, .out1 = &c->out[0],
                            .out2 = two ? &c->out[1] : NULL, .lse = &c->lse, .q = &c->in[0], .k = &c->in[1],
                            .v1 = &c->in[2], .v2 = two ? &c->in[3] : NULL, .scale = c->scale),
                     MBL_OK);
    for (int i = 0; i < (two ? 4 : 3); i++)
        mirror_pull(&c->grad[i]);
}

/* Where the i-th element of a strided tensor is. */
static size_t place_of(const mbl_tensor_t *t, size_t i) {
    size_t at = 0;
    for (int d = t->ndim - 1; d >= 0; d--) {
        at += i % t->dim[d] * t->stride[d];
        i /= t->dim[d];
    }
    return at;
}

static size_t count_of(const mbl_tensor_t *t) {
    return t->data ? mbl_tensor_count(t) : 0;
}

/* Element c of head h of token t in a pair of merged tensors. */
static double merged(const case_t *c, const mbl_tensor_t pair[2], size_t n, size_t h, size_t t,
                     size_t column) {
    const shape_t *s = &c->s;
    const mbl_tensor_t *where = t < s->t1 ? &pair[0] : &pair[1];
    size_t row = n * where->dim[1] + (t < s->t1 ? t : t - s->t1);
    return mirror_get(where, row * where->stride[1] + h * s->d + column);
}

/* The definition, one query at a time: p [T] and the log-sum-exp. */
static double probabilities(const case_t *c, size_t n, size_t h, size_t i, double *p) {
    const shape_t *s = &c->s;
    size_t head = (n * s->h + h) * s->t, seen = s->causal ? i + 1 : s->t;
    double max = -INFINITY, sum = 0;
    for (size_t j = 0; j < seen; j++) {
        p[j] = 0;
        for (size_t x = 0; x < s->d; x++)
            p[j] +=
                mirror_get(&c->in[0], (head + i) * s->d + x) * mirror_get(&c->in[1], (head + j) * s->d + x);
        p[j] *= c->scale;
        if (s->bias)
            p[j] += mirror_get(&c->bias, h * (2 * s->t - 1) + j + s->t - 1 - i);
        max = fmax(max, p[j]);
    }
    for (size_t j = 0; j < seen; j++)
        sum += exp(p[j] - max);
    for (size_t j = 0; j < s->t; j++)
        p[j] = j < seen ? exp(p[j] - max) / sum : 0;
    return max + log(sum);
}

static void check_forward(const case_t *c, double tolerance) {
    const shape_t *s = &c->s;
    double *p = calloc(s->t, sizeof *p);
    assert_non_null(p);
    for (size_t n = 0; n < s->n; n++)
        for (size_t h = 0; h < s->h; h++)
            for (size_t i = 0; i < s->t; i++) {
                double lse = probabilities(c, n, h, i, p);
                assert_near(mirror_get(&c->lse, (n * s->h + h) * s->t + i), lse,
                            fmin(tolerance, 1e-5) * (1 + fabs(lse)));
                for (size_t x = 0; x < s->d; x++) {
                    double want = 0, size = 0;
                    for (size_t j = 0; j < s->t; j++) {
                        double v = merged(c, &c->in[2], n, h, j, x);
                        want += p[j] * v;
                        size += p[j] * fabs(v);
                    }
                    assert_near(merged(c, c->out, n, h, i, x), want, tolerance * size);
                }
            }
    free(p);
}

static const shape_t shapes[] = {
    {2, 2, 80, 64, 32, false, false},  {1, 1, 1, 1, 1, false, false},     {1, 3, 17, 16, 3, false, false},
    {2, 1, 5, 5, 8, false, false},     {1, 2, 97, 90, 17, false, false},  {1, 1, 200, 1, 64, false, false},
    {2, 2, 77, 77, 16, true, false},   {1, 1, 130, 130, 33, true, false}, {1, 2, 3, 2, 1, true, false},
    {1, 1, 70, 70, 512, false, false}, {2, 3, 77, 77, 64, false, true},   {1, 2, 205, 205, 16, false, true},
    {2, 2, 33, 20, 40, true, true},    {1, 1, 1, 1, 3, false, true},
};
enum { SHAPES = sizeof shapes / sizeof shapes[0] };

static void forward_all(mbl_dtype_t type, double tolerance) {
    for (size_t i = 0; i < SHAPES; i++) {
        case_t c;
        open_case(&c, shapes[i], type, 2);
        forward(&c);
        check_forward(&c, tolerance);
        close_case(&c);
    }
}

static void forward_f64(void **state) {
    (void)state;
    forward_all(MBL_F64, 1e-13);
}
/* Scores of a few units carry d roundings into the exponent; then T more. */
static void forward_f32(void **state) {
    (void)state;
    forward_all(MBL_F32, 4e-6);
}
/* Inputs are exact in bf16 and scores are kept in f32: the result is rounded, and on a GPU the probabilities
 * are too, as factors of the tensor cores. */
static void forward_bf16(void **state) {
    (void)state;
    bool device = strcmp(test_backend(), "cuda") == 0;
    forward_all(MBL_BF16, (device ? 0x1p-7 : 0x1p-8) + 4e-6);
}

/* sum of out * dout, the function whose gradient attention_bwd gives. */
static double loss(case_t *c) {
    forward(c);
    double sum = 0;
    for (int i = 0; i < 2; i++)
        for (size_t j = 0; c->out[i].data && j < mbl_tensor_count(&c->out[i]); j++)
            sum += mirror_get(&c->out[i], j) * mirror_get(&c->dout[i], j);
    return sum;
}

/* The differences are those of the cpu backend, whose f64 forward pass is that of every other (forward_f64):
 * an emulated GPU would take minutes. */
static void gradient_is_that_of_finite_differences(void **state) {
    (void)state;
    static const shape_t small[] = {
        {2, 2, 7, 5, 3, false, false}, {1, 1, 1, 1, 2, false, false}, {1, 1, 101, 60, 5, false, false}};
    for (size_t k = 0; k < sizeof small / sizeof small[0]; k++) {
        case_t c, probe;
        open_case(&c, small[k], MBL_F64, 1);
        open_case_on("cpu", &probe, small[k], MBL_F64, 1);
        forward(&c);
        backward(&c);
        for (int w = 0; w < OPERANDS; w++)
            for (size_t i = 0; i < count_of(&c.in[w]); i += k == 2 ? 13 : 1) {
                const size_t at = place_of(&c.in[w], i);
                const double x = mirror_get(&c.in[w], at), step = 1e-4;
                double difference = 0; /* fourth order: 8 (f(x+h) - f(x-h)) - (f(x+2h) - f(x-2h)) over 12 h */
                for (int side = -2; side <= 2; side++) {
                    static const double weight[] = {1, -8, 0, 8, -1};
                    mirror_put(&probe.in[w], at, x + side * step);
                    mirror_push(&probe.in[w]);
                    difference += side ? weight[side + 2] * loss(&probe) : 0;
                }
                mirror_put(&probe.in[w], at, x);
                mirror_push(&probe.in[w]);
                assert_near(mirror_get(&c.grad[w], place_of(&c.grad[w], i)), difference / (12 * step), 1e-9);
            }
        close_case(&probe);
        close_case(&c);
    }
}

static double error_against(const mbl_tensor_t *a, const mbl_tensor_t *b) {
    double difference = 0, norm = 0;
    for (size_t i = 0; i < count_of(a); i++) {
        const size_t at = place_of(a, i);
        difference += pow(mirror_get(a, at) - mirror_get(b, at), 2);
        norm += pow(mirror_get(b, at), 2);
    }
    return sqrt(difference / fmax(norm, 1e-300));
}

static void gradients_agree_between_types(void **state) {
    (void)state;
    for (size_t i = 0; i < SHAPES; i++) {
        if (shapes[i].causal || shapes[i].bias || shapes[i].t == 1)
            continue;
        case_t exact;
        open_case(&exact, shapes[i], MBL_F64, 1);
        forward(&exact);
        backward(&exact);
        for (int type = 0; type < 2; type++) {
            case_t c;
            open_case(&c, shapes[i], type ? MBL_BF16 : MBL_F32, 2);
            forward(&c);
            backward(&c);
            for (int w = 0; w < OPERANDS; w++) /* bf16: rounding of the result and of out in delta */
                assert_near(error_against(&c.grad[w], &exact.grad[w]), 0, type ? 0x1p-7 : 2e-6);
            close_case(&c);
        }
        close_case(&exact);
    }
}

/* The bits of a sample's results are the same alone and in a batch, with one thread and with three. */
static void samples_and_threads_do_not_matter(void **state) {
    (void)state;
    for (int type = 0; type < 2; type++) {
        mbl_dtype_t dtype = type ? MBL_BF16 : MBL_F32;
        case_t one, many;
        open_case(&one, (shape_t){1, 4, 80, 64, 32, false, false}, dtype, 1);
        open_case(&many, (shape_t){5, 4, 80, 64, 32, false, false}, dtype, 3);
        forward(&one);
        backward(&one);
        forward(&many);
        backward(&many);
        for (int i = 0; i < 2; i++)
            assert_memory_equal(mirror_at(one.out[i].data), mirror_at(many.out[i].data),
                                mbl_tensor_count(&one.out[i]) * mbl_dtype_size(dtype));
        for (int i = 0; i < OPERANDS; i++)
            for (size_t j = 0; j < count_of(&one.grad[i]); j++)
                assert_true(mirror_get(&one.grad[i], place_of(&one.grad[i], j)) ==
                            mirror_get(&many.grad[i], place_of(&one.grad[i], j)));
        for (int i = 0; i < 2; i++) /* what is not the values' gradient stays as it was */
            for (size_t j = 0; j < mbl_tensor_count(&many.dqkv[i]); j++)
                assert_true(j % many.dqkv[i].dim[2] >= 2 * 4 * 32 || mirror_get(&many.dqkv[i], j) == 0);
        close_case(&one);
        close_case(&many);
    }
}

/* Scores far apart and large neither overflow nor give NaN. */
static void large_scores_are_fine(void **state) {
    (void)state;
    case_t c;
    open_case(&c, (shape_t){1, 1, 20, 20, 16, false, false}, MBL_F32, 1);
    for (size_t i = 0; i < mbl_tensor_count(&c.in[0]); i++)
        mirror_put(&c.in[0], i, mirror_get(&c.in[0], i) * 300);
    mirror_push(&c.in[0]);
    forward(&c);
    backward(&c);
    /* the largest score is about 1,000: its rounding moves probabilities by 1e-4 */
    check_forward(&c, 1e-3);
    for (size_t i = 0; i < mbl_tensor_count(&c.in[0]); i++)
        for (int w = 0; w < 3; w++)
            assert_true(isfinite(mirror_get(&c.grad[w], place_of(&c.grad[w], i))));
    close_case(&c);
}

int main(void) {
    need_backend();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forward_f64),
        cmocka_unit_test(forward_f32),
        cmocka_unit_test(forward_bf16),
        cmocka_unit_test(gradient_is_that_of_finite_differences),
        cmocka_unit_test(gradients_agree_between_types),
        cmocka_unit_test(samples_and_threads_do_not_matter),
        cmocka_unit_test(large_scores_are_fine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
