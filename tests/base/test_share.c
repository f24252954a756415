/* src/base/share: ranges that cover everything once, as level as can be, whatever the number of ranks. */
#include "support.h"

#include "base/share.h"

static void check_cut(size_t n, size_t ranks) {
    size_t next = 0, least = SIZE_MAX, most = 0;
    for (size_t rank = 0; rank < ranks; rank++) {
        mbl_share_t share = mbl_share(n, ranks, rank);
        if (share.first != next)
            fail_msg("%zu on %zu ranks: rank %zu begins at %zu, expected %zu", n, ranks, rank, share.first,
                     next);
        next += share.n;
        least = share.n < least ? share.n : least;
        most = share.n > most ? share.n : most;
    }
    assert_int_equal(next, n);
    if (most - least > 1)
        fail_msg("%zu on %zu ranks: from %zu to %zu; expected a difference of one at most", n, ranks, least,
                 most);
    assert_int_equal(mbl_share(n, ranks, 0).n, most);
    if (n >= ranks)
        assert_true(least >= 1);
}

static void everything_is_cut_evenly(void **state) {
    (void)state;
    for (size_t n = 0; n <= 40; n++)
        for (size_t ranks = 1; ranks <= 45; ranks++)
            check_cut(n, ranks);
    check_cut(48 * 24, 64);
    check_cut(48 * 24, 512);
    check_cut((size_t)65536 * 4096, 65536);
}

/* Rank counts that divide the groups cut between groups, as ever. */
static void divisors_of_the_groups_have_whole_groups(void **state) {
    (void)state;
    for (size_t ranks = 1; ranks <= 48; ranks++)
        for (size_t rank = 0; 48 % ranks == 0 && rank < ranks; rank++) {
            mbl_share_t images = mbl_share(48 * 24, ranks, rank), groups = mbl_share_groups(images, 24);
            assert_int_equal(images.first, 48 / ranks * rank * 24);
            assert_int_equal(images.n, 48 / ranks * 24);
            assert_int_equal(groups.first, 48 / ranks * rank);
            assert_int_equal(groups.n, 48 / ranks);
        }
}

/* Groups counted image by image. */
static void check_groups(size_t n, size_t ranks, size_t size) {
    size_t most = 0;
    for (size_t rank = 0; rank < ranks; rank++) {
        mbl_share_t images = mbl_share(n, ranks, rank), groups = mbl_share_groups(images, size);
        size_t count = 0;
        for (size_t i = images.first; i < images.first + images.n; i++)
            count += i == images.first || i % size == 0;
        if (groups.n != count || (count > 0 && groups.first != images.first / size))
            fail_msg("%zu in groups of %zu on %zu ranks: rank %zu has %zu groups from %zu; expected %zu", n,
                     size, ranks, rank, groups.n, groups.first, count);
        most = count > most ? count : most;
    }
    assert_int_equal(mbl_share_most_groups(n, ranks, size), most);
}

static void groups_are_those_of_the_images(void **state) {
    (void)state;
    for (size_t groups = 1; groups <= 7; groups++)
        for (size_t size = 2; size <= 5; size++)
            for (size_t ranks = 1; ranks <= groups * size + 2; ranks++)
                check_groups(groups * size, ranks, size);
    assert_int_equal(mbl_share_most_groups(48 * 24, 64, 24), 2); /* 18 images each */
    assert_int_equal(mbl_share_most_groups(48 * 24, 512, 24), 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_is_cut_evenly),
        cmocka_unit_test(divisors_of_the_groups_have_whole_groups),
        cmocka_unit_test(groups_are_those_of_the_images),
    };
    return cmocka_run_group_tests_name("share", tests, NULL, NULL);
}
