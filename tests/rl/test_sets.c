/* src/rl/sets.c: the cosines of rewards' gradients from the Gram matrix of the sets. The rest of it is tested
 * with what uses it: test_balance.c, test_update.c. */
#include "support.h"

#include "rl/sets.h"

#include <math.h>

/* a_1 = (1, 0), a_2 = (0, 1), c = (1, 1): g = (2, 1) and (1, 2). A third reward that has no gradient. */
static void cosines_of_whole_gradients(void **state) {
    static const double set[4][2] = {{1, 0}, {0, 1}, {NAN, 0}, {1, 1}};
    double gram[16], cosines[9];
    (void)state;
    mbl_sets_t sets = mbl_sets(3, NULL, false);
    assert_int_equal(mbl_sets_count(&sets), 4);
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++)
            gram[4 * i + j] = set[i][0] * set[j][0] + set[i][1] * set[j][1];
    mbl_sets_cosines(&sets, gram, 3, cosines);
    assert_near(cosines[0], 1, 1e-15);
    assert_near(cosines[1], 0.8, 1e-15);
    assert_near(cosines[3], 0.8, 1e-15);
    assert_near(cosines[4], 1, 1e-15);
    for (int i = 0; i < 3; i++)
        assert_true(isnan(cosines[6 + i]) && isnan(cosines[3 * i + 2]));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(cosines_of_whole_gradients)};
    return cmocka_run_group_tests_name("sets", tests, NULL, NULL);
}
