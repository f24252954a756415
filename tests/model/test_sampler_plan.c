/* src/model/sampler_plan: sigmas against diffusers', coefficients against DPM-Solver++ written out, orders of
 * convergence on an equation with a known solution. */
#include "support.h"
#include "model/sampler.h"

#include <math.h>
#include <string.h>

/* diffusers' DPMSolverMultistepScheduler(use_flow_sigmas, algorithm_type dpmsolver++, solver_type midpoint,
 * lower_order_final) on the same sigmas, in its own terms: h, r0, D0, D1. */
static void reference_step(const mbl_sampler_plan_t *plan, size_t i, double *x, double *x0, double *x0_prev) {
    double t = plan->sigma[i + 1], s0 = plan->sigma[i], alpha = 1 - t;
    double lambda_t = log(1 - t) - log(t), lambda_0 = log(1 - s0) - log(s0);
    double expm = exp(-(lambda_t - lambda_0)) - 1; /* exp(-h) - 1; -1 at both ends */
    *x = t / s0;
    *x0 = -alpha * expm;
    *x0_prev = 0;
    if (plan->solver != MBL_SOLVER_DPM2 || i == 0 || i + 1 == plan->steps)
        return;
    double s1 = plan->sigma[i - 1], lambda_1 = log(1 - s1) - log(s1);
    double r0 = (lambda_0 - lambda_1) / (lambda_t - lambda_0), d1 = -0.5 * alpha * expm / r0;
    *x0 += d1;
    *x0_prev -= d1;
}

static void coefficients_are_the_solvers(void **state) {
    (void)state;
    for (int solver = 0; solver < 3; solver++) {
        for (size_t steps = 1; steps <= MBL_SAMPLER_MAX_STEPS; steps = steps * 2 + (steps == 2)) {
            mbl_sampler_plan_t plan;
            assert_int_equal(mbl_sampler_plan((mbl_solver_t)solver, steps,
                                              &(mbl_sigma_schedule_t){MBL_SCHEDULE_LINEAR, 3, false}, &plan),
                             MBL_OK);
            assert_true(plan.sigma[0] == 1 && plan.sigma[steps] == 0);
            for (size_t i = 0; i < steps; i++) {
                double x, x0, x0_prev, s = 1 - (double)i / (double)steps;
                reference_step(&plan, i, &x, &x0, &x0_prev);
                assert_near(plan.sigma[i], 3 * s / (1 + 2 * s), 1e-15);
                assert_near(plan.step[i].x, x, 1e-14);
                assert_near(plan.step[i].x0, x0, 1e-13);
                assert_near(plan.step[i].x0_prev, x0_prev, 1e-13);
            }
        }
    }
}

/* Values of diffusers 0.42 on five steps with shift 3: DPMSolverMultistepScheduler.step fed with unit vectors
 * for x and the x0 predictions (its sigmas replaced by ours; it steps in f32). */
static void coefficients_of_diffusers(void **state) {
    (void)state;
    static const double want[5][3] = {
#include "golden/dpm2_steps.inc"
    };
    mbl_sampler_plan_t plan;
    assert_int_equal(
        mbl_sampler_plan(MBL_SOLVER_DPM2, 5, &(mbl_sigma_schedule_t){MBL_SCHEDULE_LINEAR, 3, false}, &plan),
        MBL_OK);
    for (int i = 0; i < 5; i++) {
        assert_near(plan.step[i].x, want[i][0], 1e-7);
        assert_near(plan.step[i].x0, want[i][1], 1e-7);
        assert_near(plan.step[i].x0_prev, want[i][2], 1e-7);
    }
}

/* sigmas of diffusers' FlowMatchEulerDiscreteScheduler(shift=3) for 1 to 50 steps, one after the other; it
 * computes them in f32. */
static void sigmas_of_diffusers(void **state) {
    (void)state;
    static const double want[] = {
#include "golden/schedules.inc"
    };
    size_t at = 0;
    for (size_t steps = 1; steps <= 50; steps++) {
        mbl_sampler_plan_t plan;
        assert_int_equal(
            MBL_OK, mbl_sampler_plan(MBL_SOLVER_DPM2, steps, &(mbl_sigma_schedule_t){.shift = 3}, &plan));
        for (size_t i = 0; i <= steps; i++, at++) {
            assert_near(plan.sigma[i], want[at], 1e-7);
            assert_true(i == steps || plan.time[i] == plan.sigma[i]);
        }
        for (size_t i = 0; i < steps; i++) {
            double x, x0, x0_prev;
            reference_step(&plan, i, &x, &x0, &x0_prev);
            assert_near(plan.step[i].x, x, 1e-14);
            assert_near(plan.step[i].x0, x0, 1e-13);
            assert_near(plan.step[i].x0_prev, x0_prev, 1e-13);
        }
    }
    assert_int_equal(at, sizeof want / sizeof *want);
}

/* The model's timestep 1000 sigma without its fraction: ten steps of shift 3 as DiffusionNFT samples them.
 * Where it is whole in f32 it stays: 750 and 500 of the linear schedule. */
static void integer_timesteps(void **state) {
    (void)state;
    static const int want[10] = {1000, 960, 913, 857, 790, 707, 602, 464, 278, 8};
    mbl_sampler_plan_t plan;
    assert_int_equal(MBL_OK,
                     mbl_sampler_plan(MBL_SOLVER_EULER, 10,
                                      &(mbl_sigma_schedule_t){MBL_SCHEDULE_DIFFUSERS, 3, true}, &plan));
    for (int i = 0; i < 10; i++)
        assert_near(plan.time[i] * 1000, want[i], 1e-9);
    assert_near(plan.sigma[1], 0.960129, 1e-6); /* the steps are as they were */
    assert_int_equal(MBL_OK, mbl_sampler_plan(MBL_SOLVER_EULER, 4,
                                              &(mbl_sigma_schedule_t){MBL_SCHEDULE_LINEAR, 3, true}, &plan));
    assert_near(plan.time[2] * 1000, 750, 1e-9);
    assert_near(plan.time[3] * 1000, 500, 1e-9);
}

static void names_of_schedules(void **state) {
    (void)state;
    mbl_sigma_schedule_kind_t kind = MBL_SCHEDULE_DIFFUSERS;
    assert_true(mbl_sigma_schedule_find("linear", &kind) && kind == MBL_SCHEDULE_LINEAR);
    assert_true(mbl_sigma_schedule_find("diffusers", &kind) && kind == MBL_SCHEDULE_DIFFUSERS);
    assert_false(mbl_sigma_schedule_find("karras", &kind));
}

static void bad_plans(void **state) {
    (void)state;
    mbl_sampler_plan_t plan;
    mbl_solver_t solver;
    assert_int_equal(
        mbl_sampler_plan(MBL_SOLVER_EULER, 0, &(mbl_sigma_schedule_t){MBL_SCHEDULE_LINEAR, 3, false}, &plan),
        MBL_ERR_CONFIG);
    assert_int_equal(mbl_sampler_plan(MBL_SOLVER_EULER, MBL_SAMPLER_MAX_STEPS + 1,
                                      &(mbl_sigma_schedule_t){MBL_SCHEDULE_LINEAR, 3, false}, &plan),
                     MBL_ERR_CONFIG);
    assert_int_equal(
        mbl_sampler_plan(MBL_SOLVER_EULER, 5, &(mbl_sigma_schedule_t){MBL_SCHEDULE_LINEAR, 0, false}, &plan),
        MBL_ERR_CONFIG);
    assert_int_equal(mbl_sampler_plan(MBL_SOLVER_EULER, 5,
                                      &(mbl_sigma_schedule_t){MBL_SCHEDULE_LINEAR, NAN, false}, &plan),
                     MBL_ERR_CONFIG);
    assert_non_null(strstr(mbl_fail_message(), "shift of nan"));
    assert_true(mbl_solver_find("dpm2", &solver) && solver == MBL_SOLVER_DPM2);
    assert_true(mbl_solver_find("euler", &solver) && solver == MBL_SOLVER_EULER);
    assert_false(mbl_solver_find("dpm3", &solver));
}

/* Error at sigma 0 on dx/ds = a x + b s, whose solution is known; v is the right side. */
static double linear_error(mbl_solver_t solver, size_t steps, double shift) {
    const double a = 1.3, b = -0.7, start = 0.9;
    mbl_sampler_plan_t plan;
    assert_int_equal(
        mbl_sampler_plan(solver, steps, &(mbl_sigma_schedule_t){MBL_SCHEDULE_LINEAR, shift, false}, &plan),
        MBL_OK);
    double x = start, before = 0;
    for (size_t i = 0; i < steps; i++) {
        double s = plan.sigma[i], now = x - s * (a * x + b * s);
        x = plan.step[i].x * x + plan.step[i].x0 * now + plan.step[i].x0_prev * before;
        before = now;
    }
    /* x = C exp(a s) - b s / a - b / a^2 */
    double c = (start + b / a + b / (a * a)) * exp(-a), exact = c - b / (a * a);
    return fabs(x - exact);
}

/* At both ends of the schedule the steps in log(alpha / sigma) are never small, so the error of dpm2 is
 * O(d^2 log 1/d) in the step d: the order seen is 1.72 from 128 to 256 steps and 1.86 from 2,048 to 4,096. */
static void orders_of_convergence(void **state) {
    (void)state;
    static const double want[3] = {1, 1, 1.72};
    for (int solver = 0; solver < 3; solver++) {
        double coarse = linear_error((mbl_solver_t)solver, 128, 1),
               fine = linear_error((mbl_solver_t)solver, 256, 1);
        double order = log2(coarse / fine);
        print_message("solver %d: errors %.3g, %.3g, order %.3f\n", solver, coarse, fine, order);
        assert_near(order, want[solver], 0.05);
    }
    assert_true(linear_error(MBL_SOLVER_DPM2, 256, 1) < linear_error(MBL_SOLVER_EULER, 256, 1) / 100);
    assert_true(linear_error(MBL_SOLVER_DPM2, 20, 3) < linear_error(MBL_SOLVER_EULER, 20, 3) / 8);
}

/* With a constant velocity every solver is exact in one step. */
static void straight_paths_are_exact(void **state) {
    (void)state;
    for (int solver = 0; solver < 3; solver++) {
        mbl_sampler_plan_t plan;
        assert_int_equal(mbl_sampler_plan((mbl_solver_t)solver, 7,
                                          &(mbl_sigma_schedule_t){MBL_SCHEDULE_LINEAR, 3, false}, &plan),
                         MBL_OK);
        double x = 2, before = 0;
        for (size_t i = 0; i < 7; i++) {
            double now = x - plan.sigma[i] * 0.75;
            x = plan.step[i].x * x + plan.step[i].x0 * now + plan.step[i].x0_prev * before;
            before = now;
        }
        assert_near(x, 1.25, 1e-14);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(coefficients_are_the_solvers), cmocka_unit_test(coefficients_of_diffusers),
        cmocka_unit_test(sigmas_of_diffusers),          cmocka_unit_test(integer_timesteps),
        cmocka_unit_test(names_of_schedules),           cmocka_unit_test(bad_plans),
        cmocka_unit_test(orders_of_convergence),        cmocka_unit_test(straight_paths_are_exact),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
