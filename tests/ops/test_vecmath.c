/* The vectorised exponential and hyperbolic tangent against libm in f64, over their whole range. */
#include "ops/cpu/vecmath.h"
#include "support.h"

static void exponential(void **state) {
    (void)state;
    double worst = 0, at = 0;
    for (double x = -87.2; x < 88.2; x += 1.7e-4) {
        double want = exp((float)x), error = fabs((double)mbl_expf((float)x) / want - 1);
        if (error > worst)
            worst = error, at = x;
    }
    print_message("largest relative error of mbl_expf: %.3g at %g\n", worst, at);
    assert_near(worst, 0, 1.5e-7);
    assert_near(mbl_expf(0), 1, 0);
    assert_near(mbl_expf(-87.4f), 0, 0);
    assert_near(mbl_expf(-1e30f), 0, 0);
    assert_near(mbl_expf(-INFINITY), 0, 0);
    assert_true(isinf(mbl_expf(88.8f)) && isinf(mbl_expf(1e30f)) && isinf(mbl_expf(INFINITY)));
    assert_true(isnan(mbl_expf(NAN)));
}

static void hyperbolic_tangent(void **state) {
    (void)state;
    double worst = 0, at = 0;
    for (double x = 1e-6; x < 20; x += 3.1e-5) {
        double want = tanh((float)x), error = fabs((double)mbl_tanhf((float)x) / want - 1);
        if (error > worst)
            worst = error, at = x;
        assert_near(mbl_tanhf(-(float)x), -mbl_tanhf((float)x), 0);
    }
    print_message("largest relative error of mbl_tanhf: %.3g at %g\n", worst, at);
    assert_near(worst, 0, 2e-7);
    assert_near(mbl_tanhf(1e30f), 1, 0);
    assert_near(mbl_tanhf(-INFINITY), -1, 0);
    assert_near(mbl_tanhf(0), 0, 0);
    assert_true(isnan(mbl_tanhf(NAN)));
}

static void sigmoid(void **state) {
    (void)state;
    for (double x = -80; x < 80; x += 0.37)
        assert_near(mbl_sigmoidf((float)x) * (1 + exp(-(double)(float)x)), 1, 4e-7);
    assert_near(mbl_sigmoidf(-1000), 0, 0);
    assert_near(mbl_sigmoidf(1000), 1, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exponential),
        cmocka_unit_test(hyperbolic_tangent),
        cmocka_unit_test(sigmoid),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
