/* The projection of a direction onto the cone of those that work against no reward's own part. */
#include "rl/guard.h"

#include "rl/cone.h"

#include <math.h>

/* <D, set_i> */
static double along(const double *gram, size_t m, const double *coefficient, size_t i) {
    double sum = 0;
    for (size_t j = 0; j < m; j++) /* sets that D leaves out may hold NaN */
        sum += coefficient[j] != 0 ? gram[i * m + j] * coefficient[j] : 0;
    return sum;
}

/* Over parts of length 1 and D of length 1, so that the certificate means the same for all lengths:
 * minimise 1/2 |D/|D| + sum x_i a_i/|a_i||^2. */
mbl_status_t mbl_guard(const double *gram, const mbl_sets_t *sets, size_t k, mbl_balance_step_t *step) {
    double unit[MBL_MAX_REWARDS * MBL_MAX_REWARDS], linear[MBL_MAX_REWARDS], length[MBL_MAX_REWARDS],
        x[MBL_MAX_REWARDS], residual, square = 0, least = 0;
    size_t m = mbl_sets_count(sets), n = 0, of[MBL_MAX_REWARDS];
    double norm = step->direction_norm;
    step->moved = 0;
    for (size_t i = 0; i < k; i++)
        if (step->used[i])
            of[n++] = i;
    if (n == 0 || !(norm > 0))
        return MBL_OK;
    for (size_t i = 0; i < n; i++) {
        length[i] = sqrt(gram[of[i] * m + of[i]]);
        linear[i] = along(gram, m, step->coefficient, of[i]) / (norm * length[i]);
        least = fmin(least, linear[i]);
    }
    if (least >= 0)
        return MBL_OK;
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++)
            unit[i * n + j] = gram[of[i] * m + of[j]] / (length[i] * length[j]);
    MBL_TRY(mbl_cone_solve(unit, linear, n, x, &residual));
    for (size_t i = 0; i < n; i++) {
        step->coefficient[of[i]] += x[i] * norm / length[i];
        for (size_t j = 0; j < n; j++)
            square += x[i] * unit[i * n + j] * x[j];
    }
    step->moved = sqrt(fmax(0, square));
    return MBL_OK;
}
