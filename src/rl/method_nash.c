/* nash (Nash-MTL, arXiv 2202.01017): the bargain whose product of progresses is largest. G a = w / a, which
 * is where 1/2 a'Ga - sum w log a is least; found by damped Newton steps in f64. The answer does not depend
 * on the gradients' lengths.
 *
 * Where some combination of the gradients cancels out, such as opposite ones, nobody can progress without a
 * loss to another: there is no bargain, and a grows without bound. Short of that by no more than rounding the
 * equation cannot be solved either. The shares are then those of the shortest convex combination, marble's:
 * the combination that cancels, so that the step all but stands still. */
#include "rl/methods.h"
#include "rl/qp.h"

#include <math.h>

enum { N = MBL_MAX_REWARDS, ROUNDS = 200 };

/* Opposite gradients have no bargain: their a grows without bound unless it costs a little. */
static const double RIDGE = 1e-10;
/* The square of the shortest convex combination of unit gradients below which rounding may hide a bargain: a
 * is then of 1 / its length, and the equation loses a^2 2^-52. */
static const double NO_BARGAIN = 1e-6;

/* Solves (H) step = -gradient by Cholesky; returns the Newton decrement squared, -gradient'step. */
static double newton_step(double h[N][N], const double *gradient, size_t n, double *step) {
    double decrement = 0;
    for (size_t i = 0; i < n; i++) {
        step[i] = -gradient[i];
        for (size_t j = 0; j <= i; j++) {
            double sum = h[i][j];
            for (size_t s = 0; s < j; s++)
                sum -= h[i][s] * h[j][s];
            h[i][j] = i > j ? sum / h[j][j] : sqrt(fmax(sum, RIDGE));
            step[i] -= i > j ? h[i][j] * step[j] : 0;
        }
        step[i] /= h[i][i];
    }
    for (size_t i = n; i-- > 0;) {
        for (size_t j = i + 1; j < n; j++)
            step[i] -= h[j][i] * step[j];
        step[i] /= h[i][i];
        decrement -= gradient[i] * step[i];
    }
    return decrement;
}

/* The shares of the shortest convex combination, where there is no bargain. */
static void no_bargain(const mbl_method_args_t *args, const mbl_qp_result_t *shortest,
                       mbl_method_answer_t *out) {
    out->kkt_residual = shortest->kkt_residual;
    mbl_method_answer(args, shortest->alpha, out);
}

mbl_status_t mbl_method_nash(const mbl_method_args_t *args, mbl_method_answer_t *out) {
    double unit[N * N], h[N][N], a[N], gradient[N], step[N], least = INFINITY, residual = INFINITY;
    mbl_qp_result_t shortest;
    size_t n = args->n;
    mbl_method_unit_gram(args, unit);
    MBL_TRY(mbl_qp_solve(unit, NULL, n, 0, &shortest));
    const double square = fabs(2 * shortest.objective);
    if (square <= RIDGE) { /* what others get beside it would be of the ridge */
        no_bargain(args, &shortest, out);
        return MBL_OK;
    }
    for (size_t i = 0; i < n; i++) {
        a[i] = 1;
        least = fmin(least, args->weights[i]);
    }
    for (int round = 0; round < ROUNDS && residual > 1e-13; round++) {
        residual = 0;
        for (size_t i = 0; i < n; i++) {
            double progress = RIDGE * a[i];
            for (size_t j = 0; j < n; j++) {
                progress += unit[i * n + j] * a[j];
                h[i][j] = unit[i * n + j];
            }
            gradient[i] = progress - args->weights[i] / a[i];
            h[i][i] += RIDGE + args->weights[i] / a[i] / a[i];
            residual = fmax(residual, fabs(gradient[i] * a[i] / args->weights[i]));
        }
        /* self-concordant once divided by the least weight: this damping keeps a > 0 and always descends */
        double length = sqrt(fmax(newton_step(h, gradient, n, step), 0) / least);
        for (size_t i = 0; i < n; i++)
            a[i] += step[i] / (length > 0.25 ? 1 + length : 1);
    }
    if (!(residual <= 1e-8) && square <= NO_BARGAIN) {
        no_bargain(args, &shortest, out);
        return MBL_OK;
    }
    if (!(residual <= 1e-8)) /* the gradients do have a common direction */
        return MBL_FAIL(MBL_ERR_NUMERIC,
                        "nash: residual %.2g after %d steps: is the matrix positive semidefinite?", residual,
                        ROUNDS);
    out->kkt_residual = residual;
    mbl_method_answer(args, a, out);
    return MBL_OK;
}
