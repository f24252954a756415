/* The rows of a partial Gram matrix. */
#include "support.h"

#include "rl/gram_part.h"

#include <string.h>

/* As many rows as asked for, spread over the chunks, of this slice only, the same for any number of ranks and
 * other ones in another step. */
static void part_of_the_gram_matrix(void **state) {
    enum { SAMPLES = 40, SIZE = 4, SLOTS = 6, SPLIT = 13 };
    int64_t sample[SAMPLES];
    uint8_t whole[SLOTS * SAMPLES], two[2][SLOTS * SAMPLES], other[SLOTS * SAMPLES];
    mbl_batch_t batch = {.n = SAMPLES, .n_global = SAMPLES, .group_size = SIZE, .sample = sample};
    mbl_gram_part_t options = {
        .fraction = 0.3, .micro_batch = 9, .timesteps = SLOTS, .slice = 1, .slices = 2, .seed = 3, .step = 8};
    (void)state;
    for (size_t i = 0; i < SAMPLES; i++)
        sample[i] = (int64_t)i;
    /* chunks of 2 groups (8 samples), 5 chunks, 3 timesteps: 4.5 of 15 units */
    double share = mbl_gram_part(&options, &batch, whole);
    assert_near(share, 5.0 / 15, 1e-12);
    for (size_t chunk = 0; chunk < 5; chunk++) {
        size_t rows = 0;
        for (size_t slot = 0; slot < SLOTS; slot++)
            for (size_t i = 8 * chunk; i < 8 * chunk + 8; i++) {
                rows += whole[slot * SAMPLES + i] == MBL_PART_GRAM;
                assert_true(slot % 2 == 1 || whole[slot * SAMPLES + i] == MBL_PART_REST);
                assert_int_equal(whole[slot * SAMPLES + i], whole[slot * SAMPLES + 8 * chunk]);
            }
        assert_int_equal(rows, 8);
    }
    for (size_t rank = 0; rank < 2; rank++) { /* group 3 and chunk 1 lie on both */
        mbl_batch_t own = batch;
        own.sample = sample + rank * SPLIT;
        own.n = rank ? SAMPLES - SPLIT : SPLIT;
        assert_near(mbl_gram_part(&options, &own, two[rank]), share, 0);
        for (size_t slot = 0; slot < SLOTS; slot++)
            for (size_t i = 0; i < own.n; i++)
                assert_int_equal(two[rank][slot * own.n + i], whole[slot * SAMPLES + rank * SPLIT + i]);
    }
    options.halves = true; /* the same rows; 3 and 2 of the 5 chunks in either half */
    assert_near(mbl_gram_part(&options, &batch, other), share, 0);
    for (size_t i = 0; i < sizeof whole; i++)
        assert_int_equal(other[i], whole[i] == MBL_PART_REST  ? MBL_PART_REST
                                   : i % SAMPLES / 8 % 2 == 0 ? MBL_PART_GRAM
                                                              : MBL_PART_HALF);
    mbl_gram_part_t all =
        options; /* one micro-batch would hold all: chunks of two groups, of no image in both */
    all.fraction = 1;
    all.micro_batch = 40;
    size_t rows[3] = {0};
    assert_near(mbl_gram_part(&all, &batch, other), 1, 0);
    for (size_t i = 0; i < sizeof whole; i++)
        rows[other[i]] += i / SAMPLES % 2;
    assert_int_equal(rows[MBL_PART_GRAM], 3 * 24);
    assert_int_equal(rows[MBL_PART_HALF], 3 * 16);
    options.halves = false;
    options.step++;
    mbl_gram_part(&options, &batch, other);
    assert_memory_not_equal(other, whole, sizeof whole);
    options.fraction = 0.01;
    assert_near(mbl_gram_part(&options, &batch, other), 1.0 / 30, 1e-12); /* one group */
    options.fraction = 1;
    assert_near(mbl_gram_part(&options, &batch, other), 1, 0);
}

/* Rows of the KL term: over many steps every row of the slice comes as often as its weight says, those of a
 * short last chunk too, and any number of ranks chooses the same. */
static void kl_rows_are_unbiased(void **state) {
    enum { SAMPLES = 20, SLOTS = 5, STEPS = 4000, FIRST = 7 };
    int64_t sample[SAMPLES];
    uint8_t rows[SLOTS * SAMPLES], part[SLOTS * SAMPLES], late[SLOTS * SAMPLES];
    double seen[SLOTS * SAMPLES] = {0};
    mbl_batch_t batch = {.n = SAMPLES, .n_global = SAMPLES, .group_size = 4, .sample = sample};
    mbl_gram_part_t options = {
        .fraction = 0.4, .micro_batch = 8, .timesteps = SLOTS, .slice = 1, .slices = 2, .seed = 3};
    size_t differ = 0;
    (void)state;
    for (size_t i = 0; i < SAMPLES; i++)
        sample[i] = (int64_t)i;
    for (options.step = 0; options.step < STEPS; options.step++) {
        /* chunks of one group, 5 of them, at 2 timesteps: 4 of 10 units */
        assert_near(mbl_kl_part(&options, &batch, rows), 2.5, 1e-12);
        mbl_gram_part(&options, &batch, part);
        for (size_t i = 0; i < SLOTS * SAMPLES; i++) {
            seen[i] += 2.5 * rows[i] / STEPS;
            differ += rows[i] != (part[i] == MBL_PART_GRAM);
        }
    }
    for (size_t i = 0; i < SLOTS * SAMPLES; i++) /* deviation sqrt(1.5 / 4000) = 0.02 */
        assert_near(seen[i], i / SAMPLES % 2 ? 1 : 0, i / SAMPLES % 2 ? 0.1 : 0);
    assert_true(differ > 0); /* a choice of its own */
    mbl_batch_t second = batch;
    second.sample = sample + FIRST;
    second.n = SAMPLES - FIRST;
    mbl_kl_part(&options, &batch, rows);
    mbl_kl_part(&options, &second, late);
    for (size_t slot = 0; slot < SLOTS; slot++)
        assert_memory_equal(late + slot * second.n, rows + slot * SAMPLES + FIRST, second.n);
    options.fraction = 1;
    assert_near(mbl_kl_part(&options, &batch, rows), 1, 0);
    /* 20 samples in chunks of 8, the last one of 4, at 2 timesteps: 3 of 6 units. Odds are the units' */
    options.fraction = 0.5;
    options.micro_batch = 8;
    options.slices = 1;
    options.slice = 0;
    batch.group_size = 8; /* groups of a batch are whole; chunks here need not be */
    assert_near(mbl_kl_part(&options, &batch, rows), 15.0 / 8, 1e-12);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(part_of_the_gram_matrix),
        cmocka_unit_test(kl_rows_are_unbiased),
    };
    return cmocka_run_group_tests_name("gram_part", tests, NULL, NULL);
}
