/* What must not matter to the gradient sets: a shortcut, the division of timesteps and rows into slices,
 * parts, micro-batches and ranks, threads.   ctest-backends: fake cuda
 * ctest-isas: avx2 */
#include "gradient_case.h"

#include "base/share.h"

/* Where old holds current's values, skipping its forward pass changes nothing. */
static void shortcut_of_equal_adapters(void **state) {
    (void)state;
    for (size_t p = times(0, 1); p < 2; p++)
        for (int kl = (int)times(0, 1); kl < 2; kl++) {
            const double tolerance = p == 0 ? 1e-12 : 1e-6;
            case_t c;
            open_case(&c, precisions[p].dtype);
            size_t size = c.tiny.size;
            double *far = new_rows(&c, R + 1), *near = new_rows(&c, R + 1), weights[R] = {1, 2, 3, 4};
            tiny_set_adapter(&c.tiny, &c.tiny.old, 1, 0.2);
            c.args.kl = kl ? 0.25 : 0;
            mbl_gradient_stats_t long_way = run(&c, far);
            c.args.old_is_current = true;
            mbl_gradient_stats_t shortcut = run(&c, near);
            for (size_t r = 0; r < R + (size_t)kl; r++)
                if (r != UNSCORED)
                    check_close(near + r * size, far + r * size, size, tolerance, "shortcut", r);
            /* without KL there is no common part: rounding apart (the two forward passes need not agree to
             * the last bit) */
            double common = norm_of(far + R * size, size) / norm_of(far, size);
            assert_true(kl ? common > 1e-3 : common < tolerance);
            assert_near(norm_of(near + R * size, size) > 0, kl, 0);
            assert_near(shortcut.loss, long_way.loss, tolerance * fabs(long_way.loss));
            assert_near(shortcut.kl, long_way.kl, tolerance);
            c.args.c = weights;
            run(&c, near);
            c.args.old_is_current = false;
            run(&c, far);
            check_close(near, far, size, tolerance, "shortcut of one set", 0);
            mbl_free(far);
            mbl_free(near);
            close_case(&c);
        }
}

/* Two updates share five timesteps as 3 and 2: weighted by that they make up the whole. */
static void slices_partition_the_timesteps(void **state) {
    case_t c;
    (void)state;
    open_case(&c, MBL_F32);
    size_t n = (R + 1) * c.tiny.size;
    double *whole = new_rows(&c, R + 1), *part = new_rows(&c, R + 1), *sum = new_rows(&c, R + 1), loss = 0;
    c.args.timesteps = 5;
    mbl_gradient_stats_t all = run(&c, whole);
    c.args.slices = 2;
    for (c.args.slice = 0; c.args.slice < 2; c.args.slice++) {
        mbl_gradient_stats_t some = run(&c, part);
        double share = c.args.slice ? 0.4 : 0.6;
        assert_int_equal(some.rows, c.args.slice ? 2 * N : 3 * N);
        loss += share * some.loss;
        for (size_t i = 0; i < n; i++)
            sum[i] += share * part[i];
    }
    check_sets(&c, sum, whole, 1e-6, "sum of slices");
    assert_near(loss, all.loss, 1e-6 * all.loss);
    assert_true(relative_error_f64(part, whole, n) > 0.01); /* a slice alone is something else */
    mbl_free(whole);
    mbl_free(part);
    mbl_free(sum);
    close_case(&c);
}

/* Rows in two parts, one after the other into the same sets, are the whole; the second part with known
 * weights completes the weighted sum of the first. */
static void parts_of_rows_make_up_the_whole(void **state) {
    static const double weights[R] = {0.5, 0.3, 0.1, 0.1};
    case_t c;
    (void)state;
    open_case(&c, MBL_F32);
    size_t size = c.tiny.size;
    uint8_t part_of[4 * N];
    double *whole = new_rows(&c, R + 1), *part = new_rows(&c, R + 1), *one = new_rows(&c, 1),
           *want = new_rows(&c, 1);
    mbl_tensor_t sets;
    for (size_t i = 0; i < 4 * N; i++)
        part_of[i] = i % 7 < 3 || i / N == 2; /* runs of 4 and 3 rows, and a timestep of one part only */
    mbl_gradient_stats_t all = run(&c, whole), first, rest;
    assert_ok(mbl_tensor_new(c.tiny.ops, MBL_F64, &sets, 2, (size_t)R + 1, size));
    c.args.part_of = part_of;
    assert_ok(mbl_gradient_run(c.gradient, &c.args, &sets, &first));
    assert_ok(mbl_tensor_download(c.tiny.ops, &sets, part));
    c.args.part = 1;
    c.args.add = true;
    assert_ok(mbl_gradient_run(c.gradient, &c.args, &sets, &rest));
    double *sum = host_of(c.tiny.ops, &sets);
    check_sets(&c, sum, whole, 1e-6, "sum of parts");
    mbl_free(sum);
    assert_near(first.loss + rest.loss, all.loss, 1e-6 * all.loss);
    assert_near(first.kl + rest.kl, all.kl, 1e-6 * all.kl);
    assert_int_equal(first.rows + rest.rows, all.rows);
    assert_true(first.rows > 0 && rest.rows > 0 && relative_error_f64(part, whole, R * size) > 0.01);
    c.args.add = false;
    c.args.c = weights;
    run(&c, one);
    for (size_t i = 0; i < size; i++)
        for (size_t r = 0; r < R; r++) {
            one[i] += weights[r] * (part[r * size + i] + part[R * size + i]);
            want[i] += weights[r] * (whole[r * size + i] + whole[R * size + i]);
        }
    check_close(one, want, size, 1e-5, "weighted sum in two parts", 0);
    mbl_tensor_free(c.tiny.ops, &sets);
    mbl_free(whole);
    mbl_free(part);
    mbl_free(one);
    mbl_free(want);
    close_case(&c);
}

static void micro_batch_does_not_matter(void **state) {
    case_t c;
    (void)state;
    open_case(&c, MBL_F32);
    double *want = new_rows(&c, R + 1), *got = new_rows(&c, R + 1);
    mbl_gradient_stats_t all = run(&c, want);
    for (size_t rows = 1; rows <= 16; rows += rows == 1 ? 11 : 4) { /* 1, 12, 16 against 5 */
        mbl_gradient_t *gradient;
        assert_ok(mbl_gradient_new(c.tiny.pipeline, c.tiny.lora, rows, R + 2, 0, &gradient));
        mbl_gradient_stats_t stats = run_with(&c, gradient, &c.args, got);
        check_sets(&c, got, want, 1e-6, "micro-batches");
        assert_near(stats.loss, all.loss, 1e-6 * all.loss);
        assert_near(stats.kl, all.kl, 1e-6 * all.kl);
        mbl_gradient_free(gradient);
    }
    mbl_free(want);
    mbl_free(got);
    close_case(&c);
}

/* Ranks' shares, which begin and end inside groups, add up to what one rank has. */
static void shares_of_ranks_add_up(void **state) {
    enum { RANKS = 3 };
    case_t c;
    (void)state;
    open_case(&c, MBL_F32);
    size_t n = (R + 1) * c.tiny.size;
    double *whole = new_rows(&c, R + 1), *share = new_rows(&c, R + 1), *sum = new_rows(&c, R + 1);
    double loss = 0, kl = 0;
    mbl_gradient_stats_t all = run(&c, whole);
    for (size_t rank = 0; rank < RANKS; rank++) {
        const mbl_share_t own = mbl_share(N, RANKS, rank);
        const size_t first = own.first, count = own.n;
        float a[R * N];
        mbl_batch_t batch = c.batch;
        mbl_gradient_args_t args = c.args;
        batch.n = count;
        batch.prompt += first;
        batch.sample += first;
        batch.x0 = mbl_tensor_rows(&c.batch.x0, first, count);
        for (size_t r = 0; r < R; r++)
            memcpy(a + r * count, c.a + r * N + first, count * sizeof *a);
        args.batch = &batch;
        args.a = a;
        mbl_gradient_stats_t stats = run_with(&c, c.gradient, &args, share);
        loss += stats.loss;
        kl += stats.kl;
        for (size_t i = 0; i < n; i++)
            sum[i] += share[i];
    }
    check_sets(&c, sum, whole, 1e-6, "sum of shares");
    assert_near(loss, all.loss, 1e-6 * all.loss);
    assert_near(kl, all.kl, 1e-6 * all.kl);
    mbl_free(whole);
    mbl_free(share);
    mbl_free(sum);
    close_case(&c);
}

/* The same bits again, with fresh buffers too, and with two threads; on a model large enough to be shared. */
static void repeats_to_the_bit(void **state) {
    (void)state;
    for (size_t p = times(1, 2); p < PRECISIONS; p++) {
        const size_t heads = times(8, 2), image = times(16, 8);
        case_t c, two;
        mbl_gradient_t *fresh;
        open_case_of(&c, precisions[p].dtype, 1, heads, image);
        open_case_of(&two, precisions[p].dtype, 2, heads, image);
        c.args.timesteps = two.args.timesteps = SANITIZED ? 1 : 4;
        size_t bytes = (R + 1) * c.tiny.size * sizeof(double);
        double *first = new_rows(&c, R + 1), *again = new_rows(&c, R + 1);
        mbl_gradient_stats_t stats = run(&c, first);
        run(&c, again);
        assert_memory_equal(again, first, bytes);
        assert_ok(mbl_gradient_new(c.tiny.pipeline, c.tiny.lora, 5, R, 0, &fresh));
        run_with(&c, fresh, &c.args, again);
        assert_memory_equal(again, first, bytes);
        mbl_gradient_free(fresh);
        mbl_gradient_stats_t other = run(&two, again);
        assert_memory_equal(again, first, bytes);
        assert_near(other.loss, stats.loss, 0);
        mbl_free(first);
        mbl_free(again);
        close_case(&c);
        close_case(&two);
    }
}

int main(void) {
    need_backend();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shortcut_of_equal_adapters),      cmocka_unit_test(slices_partition_the_timesteps),
        cmocka_unit_test(parts_of_rows_make_up_the_whole), cmocka_unit_test(micro_batch_does_not_matter),
        cmocka_unit_test(shares_of_ranks_add_up),          cmocka_unit_test(repeats_to_the_bit),
    };
    return cmocka_run_group_tests_name("gradient of rows", tests, NULL, NULL);
}
