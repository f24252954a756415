/* The QP of MARBLE by a primal active-set method in two passes over the simplex. The first finds the support
 * with cheap regularised Cholesky steps. The second works with the exact spectrum of the reduced Hessian: it
 * removes what the regularisation left, and where the objective is flat (equal or dependent gradients) it
 * picks the optimum of least norm, so that the answer does not depend on the order of the rewards. */
#include "rl/qp.h"

#include <math.h>
#include <string.h>

enum { N = MBL_QP_MAX, ROUNDS = 40 };

/* Relative to the scale of the problem; all well below the certificate's 1e-10. */
static const double RIDGE = 1e-12;     /* of the first pass */
static const double FLAT = 1e-14;      /* times the dimension: an eigenvalue that counts as zero */
static const double DESCENT = 1e-12;   /* a multiplier this negative is worth another variable */
static const double NOISE = 1e-14;     /* a step component this small, of a step of one, is rounding */
static const double SUPPORT = 1e-12;   /* of the simplex: more than this is in the support */
static const double TOLERANCE = 1e-10; /* of the certificate */

/* minimise 1/2 x'Hx + b'x over the simplex, where alpha = floor + (1 - k floor) x */
typedef struct {
    size_t k, m;          /* variables; free ones */
    double h[N][N], b[N]; /* divided by `scale` of the whole problem */
    double hmax;          /* largest |h| */
    double x[N], g[N];    /* the point and its gradient Hx + b */
    size_t w[N];          /* the free variables, w[0 .. m) */
    bool is_free[N];      /* whether a variable is among them */
    bool banned[N];       /* came in for the norm's sake and went out again: not a second time */
    double d[N];          /* the step, over w */
    bool ray;             /* d leads downhill for ever */
    double u[N];          /* Householder vector that takes the ones to an axis, over w */
    double value[N];      /* spectrum of H over w orthogonal to the ones, m - 1 values ... */
    double vector[N][N];  /* ... and row j its j-th eigenvector, in the reflected coordinates 1 .. m - 1 */
    double work[N][N];
    bool spectrum_is_fresh; /* belongs to the current w */
    int iterations;
} qp_t;

static double dot(const double *a, const double *b, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

static void find_gradient(qp_t *q) {
    for (size_t i = 0; i < q->k; i++)
        q->g[i] = dot(q->h[i], q->x, q->k) + q->b[i];
}

static void add_free(qp_t *q, size_t i) {
    q->w[q->m++] = i;
    q->is_free[i] = true;
    q->spectrum_is_fresh = false;
}

static void drop_free(qp_t *q, size_t at) {
    size_t i = q->w[at];
    q->x[i] = 0;
    q->is_free[i] = false;
    q->w[at] = q->w[--q->m];
    q->spectrum_is_fresh = false;
}

/* First pass: the step to the minimum over the free variables with sum 0, of H + RIDGE. */
static void ridge_step(qp_t *q) {
    size_t m = q->m;
    double least = RIDGE * (q->hmax > 0 ? q->hmax : 1), ones[N], grad[N];
    for (size_t i = 0; i < m; i++) {
        for (size_t j = 0; j <= i; j++) {
            double sum = q->h[q->w[i]][q->w[j]] + (i == j ? least : 0) - dot(q->work[i], q->work[j], j);
            q->work[i][j] = i > j ? sum / q->work[j][j] : sqrt(sum > least ? sum : least);
        }
        ones[i] = (1 - dot(q->work[i], ones, i)) / q->work[i][i];
        grad[i] = (q->g[q->w[i]] - dot(q->work[i], grad, i)) / q->work[i][i];
    }
    /* With L L' = H: d = L'^-1 (mu L^-1 1 - L^-1 g), and sum d = 0 gives mu. */
    double mu = dot(ones, grad, m) / dot(ones, ones, m);
    for (size_t i = m; i-- > 0;) {
        double sum = mu * ones[i] - grad[i];
        for (size_t j = i + 1; j < m; j++)
            sum -= q->work[j][i] * q->d[j];
        q->d[i] = sum / q->work[i][i];
    }
    q->ray = false;
}

/* v <- (I - 2 u u') v over the free variables: to and from coordinates whose first axis is along the ones. */
static void reflect(const qp_t *q, double *v) {
    double along = 2 * dot(q->u, v, q->m);
    for (size_t i = 0; i < q->m; i++)
        v[i] -= along * q->u[i];
}

/* One Jacobi rotation that makes a[p][r] zero; v collects the rotations in its rows. */
static void rotate(double a[N][N], double v[N][N], size_t n, size_t p, size_t r) {
    double theta = (a[r][r] - a[p][p]) / (2 * a[p][r]);
    double t = (theta < 0 ? -1 : 1) / (fabs(theta) + sqrt(theta * theta + 1));
    double c = 1 / sqrt(t * t + 1), s = t * c;
    for (size_t i = 0; i < n; i++) {
        double x = a[i][p], y = a[i][r];
        a[i][p] = c * x - s * y;
        a[i][r] = s * x + c * y;
    }
    for (size_t i = 0; i < n; i++) {
        double x = a[p][i], y = a[r][i];
        a[p][i] = c * x - s * y;
        a[r][i] = s * x + c * y;
        x = v[p][i], y = v[r][i];
        v[p][i] = c * x - s * y;
        v[r][i] = s * x + c * y;
    }
    a[p][r] = a[r][p] = 0;
}

/* Eigenvalues on the diagonal of a [n, n], eigenvectors in the rows of v, by cyclic Jacobi: slow, and
 * accurate to the last bit that matters. */
static void jacobi(double a[N][N], double v[N][N], size_t n) {
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++)
            v[i][j] = i == j;
    for (int sweep = 0; sweep < ROUNDS; sweep++) {
        double off = 0, all = 0;
        for (size_t i = 0; i < n; i++)
            for (size_t j = 0; j < n; j++) {
                all = fmax(all, fabs(a[i][j]));
                if (i != j)
                    off = fmax(off, fabs(a[i][j]));
            }
        if (off <= 1e-18 * all)
            return;
        for (size_t p = 0; p + 1 < n; p++)
            for (size_t r = p + 1; r < n; r++)
                if (fabs(a[p][r]) > 1e-19 * all)
                    rotate(a, v, n, p, r);
    }
}

/* H over the free variables, orthogonal to the ones, as spectrum. */
static void find_spectrum(qp_t *q) {
    size_t m = q->m;
    if (q->spectrum_is_fresh)
        return;
    double root = sqrt((double)m), norm = sqrt(2 + 2 / root);
    for (size_t i = 0; i < m; i++)
        q->u[i] = (1 / root + (i == 0)) / norm;
    for (size_t i = 0; i < m; i++) {
        for (size_t j = 0; j < m; j++)
            q->work[i][j] = q->h[q->w[i]][q->w[j]];
        reflect(q, q->work[i]);
    }
    for (size_t j = 1; j < m; j++) {
        double column[N];
        for (size_t i = 0; i < m; i++)
            column[i] = q->work[i][j];
        reflect(q, column);
        for (size_t i = 1; i < m; i++)
            q->work[i - 1][j - 1] = column[i];
    }
    jacobi(q->work, q->vector, m - 1);
    for (size_t j = 0; j + 1 < m; j++)
        q->value[j] = q->work[j][j];
    q->spectrum_is_fresh = true;
}

static double flat_below(const qp_t *q) {
    return FLAT * (double)q->m * q->hmax;
}

/* Second pass: the step to the minimum over the free variables, and of those the one of least norm; or, when
 * a linear term leads downhill along a flat direction, that direction. */
static void exact_step(qp_t *q) {
    size_t m = q->m;
    double grad[N], x[N], slope[N], steepest = 0;
    find_spectrum(q);
    for (size_t i = 0; i < m; i++)
        grad[i] = q->g[q->w[i]], x[i] = q->x[q->w[i]];
    reflect(q, grad);
    reflect(q, x);
    for (size_t j = 0; j + 1 < m; j++) {
        slope[j] = dot(q->vector[j], grad + 1, m - 1);
        if (q->value[j] <= flat_below(q))
            steepest = fmax(steepest, fabs(slope[j]));
    }
    q->ray = steepest > DESCENT;
    memset(q->d, 0, sizeof q->d);
    for (size_t j = 0; j + 1 < m; j++) {
        bool flat = q->value[j] <= flat_below(q);
        double along = q->ray ? (flat ? slope[j] : 0)
                       : flat ? dot(q->vector[j], x + 1, m - 1)
                              : slope[j] / q->value[j];
        for (size_t i = 1; i < m; i++)
            q->d[i] -= along * q->vector[j][i - 1];
    }
    reflect(q, q->d);
}

/* Goes along d until its end or the first bound, which is then dropped. Returns whether the end was reached.
 */
static bool walk(qp_t *q) {
    double t = q->ray ? INFINITY : 1, mean = 0, longest = q->ray ? 0 : 1;
    size_t blocked = q->m;
    for (size_t i = 0; i < q->m; i++) {
        mean += q->d[i] / (double)q->m;
        longest = fmax(longest, fabs(q->d[i]));
    }
    for (size_t i = 0; i < q->m; i++) {
        q->d[i] -= mean; /* a step of 1e12 has a sum that is zero only relative to that */
        if (q->d[i] < -NOISE * longest && -q->x[q->w[i]] > t * q->d[i]) {
            t = -q->x[q->w[i]] / q->d[i];
            blocked = i;
        }
    }
    if (isinf(t))
        return true; /* a ray of rounding errors */
    for (size_t i = 0; i < q->m; i++)
        q->x[q->w[i]] = fmax(q->x[q->w[i]] + t * q->d[i], 0);
    if (blocked < q->m && q->m > 1)
        drop_free(q, blocked);
    find_gradient(q);
    return blocked == q->m || q->m == 1;
}

/* The bound variable whose multiplier g - mu is most negative; k when there is none worth it. */
static size_t most_wanted(const qp_t *q) {
    double mu = dot(q->x, q->g, q->k), least = mu - DESCENT;
    size_t found = q->k;
    for (size_t i = 0; i < q->k; i++)
        if (!q->is_free[i] && q->g[i] < least)
            least = q->g[i], found = i;
    return found;
}

/* Among the bound variables with multiplier zero, the one that would shorten x most; k when there is none.
 * The least-norm optimum satisfies x = nu 1 + H z over the free variables for some z (sum 0); a bound
 * variable with 0 < nu + (H z)_i shortens it. */
static size_t most_shortening(const qp_t *q, double mu) {
    size_t m = q->m, found = q->k;
    double x[N], z[N] = {0}, padded[N] = {0}, nu = 0, best = 1e-9;
    for (size_t i = 0; i < m; i++)
        x[i] = q->x[q->w[i]];
    reflect(q, x);
    for (size_t j = 0; j + 1 < m; j++)
        if (q->value[j] > flat_below(q)) {
            double along = dot(q->vector[j], x + 1, m - 1) / q->value[j];
            for (size_t i = 1; i < m; i++)
                z[i] += along * q->vector[j][i - 1];
        }
    reflect(q, z);
    for (size_t i = 0; i < m; i++)
        padded[q->w[i]] = z[i];
    for (size_t i = 0; i < m; i++)
        nu += (q->x[q->w[i]] - dot(q->h[q->w[i]], padded, q->k)) / (double)m;
    for (size_t i = 0; i < q->k; i++) {
        double gain = nu + dot(q->h[i], padded, q->k);
        if (!q->is_free[i] && !q->banned[i] && q->g[i] - mu <= DESCENT && gain > best)
            best = gain, found = i;
    }
    return found;
}

/* The active-set loop of a pass, from a feasible x. */
static void pass(qp_t *q, void (*step)(qp_t *), bool exact) {
    size_t guest = q->k; /* the last one let in for the norm's sake */
    int limit = ROUNDS + ROUNDS / 4 * (int)q->k;
    for (int round = 0; round < limit; round++) {
        q->iterations++;
        step(q);
        double longest = 0;
        for (size_t i = 0; i < q->m; i++)
            longest = fmax(longest, fabs(q->d[i]));
        bool arrived = walk(q);
        if (guest < q->k && !q->is_free[guest])
            q->banned[guest] = true;
        if (!arrived || (exact && longest > 1e-6))
            continue; /* a long step is worth a second look, whose rounding errors are small */
        size_t next = most_wanted(q);
        if (next == q->k && exact)
            next = guest = most_shortening(q, dot(q->x, q->g, q->k));
        if (next == q->k)
            return;
        add_free(q, next);
    }
}

static double largest(const double *values, size_t n) {
    double most = 0;
    for (size_t i = 0; i < n; i++)
        most = fmax(most, fabs(values[i]));
    return most;
}

/* Objective and KKT residual of alpha from the numbers given by the caller. With the multiplier mu of the sum
 * as the mean gradient over the support, each variable must be at the floor or have gradient mu: |min(alpha -
 * floor, (g - mu) / scale)| measures stationarity, the multiplier's sign and complementarity at once. */
static void certify(const double *c, const double *linear, size_t k, double floor, double scale,
                    mbl_qp_result_t *out) {
    double g[N], mu = 0, sum = 0, above = 0, quadratic = 0, straight = 0, residual = 0;
    for (size_t i = 0; i < k; i++) {
        double row = 0;
        for (size_t j = 0; j < k; j++)
            row += 0.5 * (c[i * k + j] + c[j * k + i]) * out->alpha[j];
        double b = linear ? linear[i] : 0, room = out->alpha[i] - floor;
        g[i] = row + b;
        quadratic += out->alpha[i] * row;
        straight += out->alpha[i] * b;
        sum += out->alpha[i];
        mu += room * g[i];
        above += room;
    }
    out->objective = 0.5 * quadratic + straight;
    for (size_t i = 0; i < k; i++) {
        double room = out->alpha[i] - floor, multiplier = above > 0 ? (g[i] - mu / above) / scale : 0;
        residual = fmax(residual, fabs(fmin(room, multiplier)));
    }
    out->kkt_residual = fmax(residual, fabs(sum - 1));
}

/* H, b and the start: the best corner of the simplex. `room` = 1 - k floor. */
static void set_up(qp_t *q, const double *c, const double *linear, size_t k, double floor, double scale,
                   double room) {
    memset(q, 0, sizeof *q);
    q->k = k;
    for (size_t i = 0; i < k; i++) {
        double row = 0;
        for (size_t j = 0; j < k; j++) {
            double value = 0.5 * (c[i * k + j] / scale + c[j * k + i] / scale);
            row += value;
            q->h[i][j] = room * value;
            q->hmax = fmax(q->hmax, fabs(q->h[i][j]));
        }
        q->b[i] = (linear ? linear[i] / scale : 0) + floor * row;
    }
    size_t best = 0;
    for (size_t i = 1; i < k; i++)
        if (0.5 * q->h[i][i] + q->b[i] < 0.5 * q->h[best][best] + q->b[best])
            best = i;
    q->x[best] = 1;
    add_free(q, best);
    find_gradient(q);
}

mbl_status_t mbl_qp_solve(const double *c, const double *linear, size_t k, double floor,
                          mbl_qp_result_t *out) {
    MBL_REQUIRE(c && out, "qp: solve needs a matrix and a place for the result");
    MBL_REQUIRE(k >= 1 && k <= N, "qp: %zu variables; 1 to %d are right", k, N);
    MBL_REQUIRE(floor >= 0 && (double)k * floor <= 1 + 1e-12,
                "qp: a floor of %g for %zu variables; between 0 and 1/%zu is right", floor, k, k);
    for (size_t i = 0; i < k * k; i++)
        if (!isfinite(c[i]))
            return MBL_FAIL(MBL_ERR_NUMERIC, "qp: entry (%zu, %zu) of the matrix is %g", i / k, i % k, c[i]);
    for (size_t i = 0; linear && i < k; i++)
        if (!isfinite(linear[i]))
            return MBL_FAIL(MBL_ERR_NUMERIC, "qp: entry %zu of the linear term is %g", i, linear[i]);
    double scale = fmax(largest(c, k * k), linear ? largest(linear, k) : 0), room = 1 - (double)k * floor;
    scale = scale > 0 ? scale : 1;
    qp_t q;
    mbl_qp_result_t result = {0};
    if (room > SUPPORT) {
        set_up(&q, c, linear, k, floor, scale, room);
        pass(&q, ridge_step, false);
        pass(&q, exact_step, true);
        double sum = 0;
        for (size_t i = 0; i < k; i++)
            sum += q.x[i];
        for (size_t i = 0; i < k; i++) {
            result.alpha[i] = floor + room * (q.x[i] / sum);
            result.active[i] = q.x[i] > SUPPORT;
        }
        result.iterations = q.iterations;
    } else {
        for (size_t i = 0; i < k; i++) /* the floor leaves one point */
            result.alpha[i] = 1 / (double)k;
    }
    certify(c, linear, k, floor, scale, &result);
    if (!(result.kkt_residual <= TOLERANCE))
        return MBL_FAIL(
            MBL_ERR_NUMERIC,
            "qp: residual %.2g after %d iterations, more than %g: is the matrix positive semidefinite?",
            result.kkt_residual, result.iterations, TOLERANCE);
    *out = result;
    return MBL_OK;
}
