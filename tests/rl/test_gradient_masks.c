/* Rewards that apply to some of the samples: their gradients from two backward passes (three with the KL term
 * apart) equal one pass for each over its own samples, on any number of ranks.   ctest-ranks: 2 3 4 */
#include "masks_case.h"
#include "ranks.h"

static void masked_gradients_equal_separate_passes(void **state) {
    mbl_comm_t *comm = *state;
    for (size_t which = 0; which < MASK_CASES; which++)
        for (int p = 0; p < 2; p++) {
            static const double tolerances[2] = {1e-12, 1e-5};
            masked_t m;
            open_masked(&m, comm, precisions[p].dtype, which);
            if (p == 0)
                check_masked(&m, comm, which, 0, false, tolerances[p]);
            if (which + 1 == MASK_CASES)
                check_masked(&m, comm, which, 0.75, false, tolerances[p]);
            check_masked(&m, comm, which, 0.75, true, tolerances[p]);
            close_masked(&m);
        }
}

/* A step with known weights: one pass for sum_k c_k g_k, the KL term once where it is apart and as often as
 * the weights say where it is not. */
static void known_weights_take_the_masked_gradients(void **state) {
    static const double c[PARTS] = {0.5, -1, 2, 0, 0.25};
    mbl_comm_t *comm = *state;
    for (size_t which = 0; which < MASK_CASES; which++)
        for (int apart = 0; apart < 2; apart++) {
            masked_t m;
            open_masked(&m, comm, MBL_F64, which);
            size_t size = m.c.tiny.size;
            double *want = new_rows(&m.c, 1), coefficient[MBL_SETS_MAX];
            m.args.kl_apart = apart;
            run_masked(&m, comm);
            mbl_sets_t sets = mbl_sets(PARTS, &m.masks, apart);
            memcpy(coefficient, c, sizeof c);
            mbl_sets_spread(&sets, NULL, coefficient);
            for (size_t j = 0; j < mbl_sets_count(&sets); j++)
                for (size_t i = 0; i < size; i++)
                    want[i] += coefficient[j] * m.sum[j * size + i];
            m.args.c = c;
            run_masked(&m, comm);
            check_close(m.sum, want, size, 1e-12, "known weights", which);
            mbl_free(want);
            close_masked(&m);
        }
}

/* A solve on part of the rows: sets scaled by the share of their mask's rows are the means over those rows,
 * and with the rest they make up the whole. */
static void parts_of_masked_rows(void **state) {
    mbl_comm_t *comm = *state;
    masked_t m;
    open_masked(&m, comm, MBL_F64, 2);
    size_t size = m.c.tiny.size, n = m.own.n, sets = mbl_gradient_sets(&m.args);
    double *whole = new_rows(&m.c, MBL_SETS_MAX), *sum = new_rows(&m.c, MBL_SETS_MAX);
    uint8_t part_of[4 * N];
    for (size_t slot = 0; slot < 4; slot++)
        for (size_t i = 0; i < n; i++) /* by the sample's number, whichever rank has it */
            part_of[slot * n + i] = (m.own.sample[i] + (int64_t)slot) % 3 == 0;
    run_masked(&m, comm);
    memcpy(whole, m.sum, sets * size * sizeof *whole);
    m.args.part_of = part_of;
    for (m.args.part = 0; m.args.part < 2; m.args.part++) {
        run_masked(&m, comm);
        for (size_t i = 0; i < sets * size; i++)
            sum[i] += m.sum[i];
    }
    for (size_t j = 0; j < sets; j++)
        check_close(sum + j * size, whole + j * size, size, 1e-12, "set of parts", j);
    mbl_free(whole);
    mbl_free(sum);
    close_masked(&m);
}

/* The KL term of chosen rows, each standing for as many: apart or riding along, the policy's sets untouched.
 */
static void kl_of_chosen_rows(void **state) {
    mbl_comm_t *comm = *state;
    for (int apart = 0; apart < 2; apart++) {
        masked_t m;
        open_masked(&m, comm, MBL_F64, 1);
        size_t size = m.c.tiny.size, n = m.own.n, sets, last;
        uint8_t rows[4 * N];
        double *some = new_rows(&m.c, MBL_SETS_MAX), *none = new_rows(&m.c, MBL_SETS_MAX);
        m.args.kl_apart = apart;
        for (size_t slot = 0; slot < 4; slot++)
            for (size_t i = 0; i < n; i++)
                rows[slot * n + i] = (m.own.sample[i] / 2 + (int64_t)slot) % 3 == 0;
        m.args.kl_rows = rows;
        m.args.kl_scale = 2;
        mbl_gradient_stats_t chosen = run_masked(&m, comm), part;
        sets = mbl_gradient_sets(&m.args);
        memcpy(some, m.sum, sets * size * sizeof *some);
        m.args.kl = 0;
        mbl_gradient_stats_t without = run_masked(&m, comm);
        assert_near(chosen.loss, without.loss, 1e-12 * without.loss);
        memcpy(none, m.sum, (PARTS + m.masks.count) * size * sizeof *none);
        for (size_t j = 0; j < PARTS + (apart ? m.masks.count : 0); j++)
            check_close(some + j * size, none + j * size, size, 1e-12, "policy set", j);
        m.args.kl = 0.75; /* all KL rows of a run over the chosen rows only */
        m.args.kl_rows = NULL;
        m.args.part_of = rows;
        m.args.part = 1;
        part = run_masked(&m, comm);
        assert_near(chosen.kl, 2 * part.kl, 1e-12 * chosen.kl);
        last = PARTS + (apart ? m.masks.count : 0);
        memcpy(some, some + last * size, size * sizeof *some);
        memcpy(m.sum, m.sum + last * size, size * sizeof *some);
        if (!apart) { /* the common part of all samples: less its policy, over the rows of either run */
            double *policy = new_rows(&m.c, MBL_SETS_MAX);
            memcpy(policy, m.sum, size * sizeof *policy);
            m.args.kl = 0;
            run_masked(&m, comm);
            for (size_t i = 0; i < size; i++) {
                some[i] -= none[PARTS * size + i];
                m.sum[i] = policy[i] - m.sum[last * size + i];
            }
            mbl_free(policy);
        }
        for (size_t i = 0; i < size; i++)
            m.sum[i] *= 2;
        check_close(some, m.sum, size, 1e-11, "KL of chosen rows", (size_t)apart);
        mbl_free(some);
        mbl_free(none);
        close_masked(&m);
    }
}

/* A reward without a sample has no gradient, and changes neither the others' nor the loss. */
static void reward_without_samples(void **state) {
    mbl_comm_t *comm = *state;
    masked_t m;
    open_masked(&m, comm, MBL_F64, 1);
    size_t size = m.c.tiny.size, sets = mbl_gradient_sets(&m.args);
    double *with = new_rows(&m.c, MBL_SETS_MAX);
    memcpy(m.own_a + 4 * m.own.n, m.own_a, m.own.n * sizeof(float)); /* reward 4 repeats reward 0 */
    mbl_gradient_stats_t twice = run_masked(&m, comm);
    memcpy(with, m.sum, sets * size * sizeof *with);
    memset(m.valid + 4 * m.own.n, 0, m.own.n);
    assert_ok(mbl_masks(comm, m.valid, PARTS, m.own.n, N, &m.masks));
    assert_int_equal(m.masks.of[4], MBL_NO_MASK);
    assert_int_equal(mbl_gradient_sets(&m.args), sets);
    mbl_gradient_stats_t four = run_masked(&m, comm);
    for (size_t j = 0; j < sets; j++)
        if (j != 4)
            check_close(m.sum + j * size, with + j * size, size, 1e-14, "set", j);
    assert_near(norm_of(m.sum + 4 * size, size), 0, 0);
    double *alone = new_rows(&m.c, 1);
    double first = run_alone(&m, 1, 0, 0, alone).loss; /* the mean of five, one of them the first again */
    assert_near(twice.loss * 5 - first, four.loss * 4, 1e-11 * four.loss);
    mbl_free(alone);
    mbl_free(with);
    close_masked(&m);
}

int main(void) {
    mbl_comm_t *comm = open_ranks();
    if (!comm)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(masked_gradients_equal_separate_passes, comm),
        cmocka_unit_test_prestate(known_weights_take_the_masked_gradients, comm),
        cmocka_unit_test_prestate(parts_of_masked_rows, comm),
        cmocka_unit_test_prestate(kl_of_chosen_rows, comm),
        cmocka_unit_test_prestate(reward_without_samples, comm),
    };
    int failed = cmocka_run_group_tests_name("gradient masks", tests, NULL, NULL);
    mbl_comm_close(comm);
    return failed;
}
