/* The QP of MARBLE by a primal active-set method in two passes over the simplex, in the variables length
 * alpha, in which gradients of any lengths are alike. The first finds the support with cheap regularised
 * Cholesky steps. The second works with the exact spectrum of the reduced Hessian: it removes what the
 * regularisation left, and where the objective is flat (equal or dependent gradients) it picks the optimum of
 * least norm, so that the answer does not depend on the order of the rewards. */
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

/* minimise 1/2 x'Hx + b'x over x >= 0, p'x = 1, where alpha = floor + (1 - k floor) p x; p = 1 / length */
typedef struct {
    size_t k, m;          /* variables; free ones */
    double h[N][N], b[N]; /* divided by `scale` of the whole problem */
    double hmax;          /* largest |h| */
    double p[N];          /* of the sum; at most 1 */
    double x[N], g[N];    /* the point and its gradient Hx + b */
    size_t w[N];          /* the free variables, w[0 .. m) */
    bool is_free[N];      /* whether a variable is among them */
    bool banned[N];       /* came in for the norm's sake and went out again: not a second time */
    double d[N];          /* the step, over w */
    bool ray;             /* d leads downhill for ever */
    double u[N];          /* Householder vector that takes p to an axis, over w */
    double value[N];      /* spectrum of H over w orthogonal to p, m - 1 values ... */
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

/* First pass: the step to the minimum over the free variables with p'd = 0, of H + RIDGE. */
static void ridge_step(qp_t *q) {
    size_t m = q->m;
    double least = RIDGE * (q->hmax > 0 ? q->hmax : 1), along[N], grad[N];
    for (size_t i = 0; i < m; i++) {
        for (size_t j = 0; j <= i; j++) {
            double sum = q->h[q->w[i]][q->w[j]] + (i == j ? least : 0) - dot(q->work[i], q->work[j], j);
            q->work[i][j] = i > j ? sum / q->work[j][j] : sqrt(sum > least ? sum : least);
        }
        along[i] = (q->p[q->w[i]] - dot(q->work[i], along, i)) / q->work[i][i];
        grad[i] = (q->g[q->w[i]] - dot(q->work[i], grad, i)) / q->work[i][i];
    }
    /* With L L' = H: d = L'^-1 (mu L^-1 p - L^-1 g), and p'd = 0 gives mu. */
    double mu = dot(along, grad, m) / dot(along, along, m);
    for (size_t i = m; i-- > 0;) {
        double sum = mu * along[i] - grad[i];
        for (size_t j = i + 1; j < m; j++)
            sum -= q->work[j][i] * q->d[j];
        q->d[i] = sum / q->work[i][i];
    }
    q->ray = false;
}

/* v <- (I - 2 u u') v over the free variables: to and from coordinates whose first axis is along p. */
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

/* H over the free variables, orthogonal to p, as spectrum. */
static void find_spectrum(qp_t *q) {
    size_t m = q->m;
    if (q->spectrum_is_fresh)
        return;
    double square = 0;
    for (size_t i = 0; i < m; i++)
        square += q->p[q->w[i]] * q->p[q->w[i]];
    double root = sqrt(square), norm = sqrt(2 + 2 * q->p[q->w[0]] / root);
    for (size_t i = 0; i < m; i++)
        q->u[i] = (q->p[q->w[i]] / root + (i == 0)) / norm;
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
    double t = q->ray ? INFINITY : 1, along = 0, square = 0, longest = q->ray ? 0 : 1;
    size_t blocked = q->m;
    for (size_t i = 0; i < q->m; i++) {
        along += q->p[q->w[i]] * q->d[i];
        square += q->p[q->w[i]] * q->p[q->w[i]];
        longest = fmax(longest, fabs(q->d[i]));
    }
    for (size_t i = 0; i < q->m; i++) {
        q->d[i] -= along / square * q->p[q->w[i]]; /* p'd of a step of 1e12 is zero only relative to that */
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

/* The bound variable whose multiplier g - mu p is most negative; k when there is none worth it. */
static size_t most_wanted(const qp_t *q) {
    double mu = dot(q->x, q->g, q->k), least = -DESCENT;
    size_t found = q->k;
    for (size_t i = 0; i < q->k; i++)
        if (!q->is_free[i] && q->g[i] - mu * q->p[i] < least)
            least = q->g[i] - mu * q->p[i], found = i;
    return found;
}

/* Among the bound variables with multiplier zero, the one that would shorten x most; k when there is none.
 * The least-norm optimum satisfies x = nu p + H z over the free variables for some z (p'z = 0); a bound
 * variable with 0 < nu p_i + (H z)_i shortens it. */
static size_t most_shortening(const qp_t *q, double mu) {
    size_t m = q->m, found = q->k;
    double x[N], z[N] = {0}, padded[N] = {0}, nu = 0, square = 0, best = 1e-9;
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
    for (size_t i = 0; i < m; i++) {
        nu += q->p[q->w[i]] * (q->x[q->w[i]] - dot(q->h[q->w[i]], padded, q->k));
        square += q->p[q->w[i]] * q->p[q->w[i]];
    }
    for (size_t i = 0; i < q->k; i++) {
        double gain = nu / square * q->p[i] + dot(q->h[i], padded, q->k);
        if (!q->is_free[i] && !q->banned[i] && q->g[i] - mu * q->p[i] <= DESCENT && gain > best)
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

/* A problem as it is given: the matrix [k, k] in the variables x = length alpha. */
typedef struct {
    const double *c, *linear, *length; /* linear, length: NULL for none and for 1 */
    size_t k;
    double floor, scale;
} problem_t;

static double length_of(const problem_t *p, size_t i) {
    return p->length ? p->length[i] : 1;
}

/* What the floor's share of long gradients adds to any gradient's slope, which no choice of alpha takes away:
 * slopes are known to the rounding of this at best. Without lengths it is within the matrix's own scale. */
static double largest_of_floor(const problem_t *p) {
    double most = 0;
    for (size_t i = 0; i < p->k; i++) {
        double row = 0;
        for (size_t j = 0; j < p->k; j++)
            row += fabs(p->c[i * p->k + j]) * length_of(p, j);
        most = fmax(most, p->floor * row);
    }
    return most;
}

/* Objective and KKT residual of alpha from the numbers given by the caller. With the multiplier mu of the sum
 * as the mean gradient over the support, each variable must be at the floor or have gradient mu / length:
 * |min(length (alpha - floor), (g - mu / length) / scale)| measures stationarity, the multiplier's sign and
 * complementarity at once. */
static void certify(const problem_t *p, mbl_qp_result_t *out) {
    double g[N], mu = 0, sum = 0, above = 0, quadratic = 0, straight = 0, residual = 0;
    size_t k = p->k;
    for (size_t i = 0; i < k; i++) {
        double row = 0, length = length_of(p, i);
        for (size_t j = 0; j < k; j++)
            row += 0.5 * (p->c[i * k + j] + p->c[j * k + i]) * length_of(p, j) * out->alpha[j];
        double b = p->linear ? p->linear[i] : 0, room = out->alpha[i] - p->floor;
        g[i] = row + b / length;
        quadratic += length * out->alpha[i] * row;
        straight += out->alpha[i] * b;
        sum += out->alpha[i];
        mu += room * length * g[i];
        above += room;
    }
    out->objective = 0.5 * quadratic + straight;
    for (size_t i = 0; i < k; i++) {
        double length = length_of(p, i), room = length * (out->alpha[i] - p->floor);
        double multiplier = above > 0 ? (g[i] - mu / above / length) / p->scale : 0;
        residual = fmax(residual, fabs(fmin(room, multiplier)));
    }
    out->kkt_residual = fmax(residual, fabs(sum - 1));
}

/* H, b and the start: the best corner. `room` = 1 - k floor. */
static void set_up(qp_t *q, const problem_t *p, double room) {
    size_t k = p->k;
    memset(q, 0, sizeof *q);
    q->k = k;
    for (size_t i = 0; i < k; i++) {
        double row = 0;
        for (size_t j = 0; j < k; j++) {
            double value = 0.5 * (p->c[i * k + j] / p->scale + p->c[j * k + i] / p->scale);
            row += value * length_of(p, j);
            q->h[i][j] = room * value;
            q->hmax = fmax(q->hmax, fabs(q->h[i][j]));
        }
        q->p[i] = 1 / length_of(p, i);
        q->b[i] = (p->linear ? p->linear[i] * q->p[i] / p->scale : 0) + p->floor * row;
    }
    size_t best = 0;
    double least = INFINITY;
    for (size_t i = 0; i < k; i++) {
        double x = length_of(p, i), value = (0.5 * q->h[i][i] * x + q->b[i]) * x;
        if (value < least)
            least = value, best = i;
    }
    q->x[best] = 1 / q->p[best];
    add_free(q, best);
    find_gradient(q);
}

static mbl_status_t check(const problem_t *p) {
    MBL_REQUIRE(p->k >= 1 && p->k <= N, "qp: %zu variables; expected 1 to %d", p->k, N);
    MBL_REQUIRE(p->floor >= 0 && (double)p->k * p->floor <= 1 + 1e-12,
                "qp: a floor of %g for %zu variables; expected 0 to 1/%zu", p->floor, p->k, p->k);
    for (size_t i = 0; i < p->k * p->k; i++)
        if (!isfinite(p->c[i]))
            return MBL_FAIL(MBL_ERR_NUMERIC, "qp: entry (%zu, %zu) of the matrix is %g", i / p->k, i % p->k,
                            p->c[i]);
    for (size_t i = 0; p->linear && i < p->k; i++)
        if (!isfinite(p->linear[i]))
            return MBL_FAIL(MBL_ERR_NUMERIC, "qp: entry %zu of the linear term is %g", i, p->linear[i]);
    for (size_t i = 0; p->length && i < p->k; i++)
        MBL_REQUIRE(p->length[i] >= 1 && isfinite(p->length[i]), "qp: length %zu is %g; expected 1 or more",
                    i, p->length[i]);
    return MBL_OK;
}

mbl_status_t mbl_qp_solve_lengths(const double *c, const double *linear, const double *length, size_t k,
                                  double floor, mbl_qp_result_t *out) {
    problem_t p = {.c = c, .linear = linear, .length = length, .k = k, .floor = floor};
    MBL_REQUIRE(c && out, "qp: solve needs a matrix and a place for the result");
    MBL_TRY(check(&p));
    double room = 1 - (double)k * floor, sum = 0;
    p.scale = largest(c, k * k);
    for (size_t i = 0; linear && i < k; i++)
        p.scale = fmax(p.scale, fabs(linear[i]) / length_of(&p, i));
    if (length)
        p.scale = fmax(p.scale, largest_of_floor(&p));
    p.scale = p.scale > 0 ? p.scale : 1;
    qp_t q;
    mbl_qp_result_t result = {0};
    if (room > SUPPORT) {
        set_up(&q, &p, room);
        pass(&q, ridge_step, false);
        pass(&q, exact_step, true);
        for (size_t i = 0; i < k; i++)
            sum += q.p[i] * q.x[i];
        for (size_t i = 0; i < k; i++) {
            result.alpha[i] = floor + room * (q.p[i] * q.x[i] / sum);
            result.active[i] = q.x[i] > SUPPORT;
        }
        result.iterations = q.iterations;
    } else {
        for (size_t i = 0; i < k; i++) /* the floor leaves one point */
            result.alpha[i] = 1 / (double)k;
    }
    certify(&p, &result);
    if (!(result.kkt_residual <= TOLERANCE))
        return MBL_FAIL(
            MBL_ERR_NUMERIC,
            "qp: residual %.2g after %d iterations, more than %g: is the matrix positive semidefinite?",
            result.kkt_residual, result.iterations, TOLERANCE);
    *out = result;
    return MBL_OK;
}

mbl_status_t mbl_qp_solve(const double *c, const double *linear, size_t k, double floor,
                          mbl_qp_result_t *out) {
    return mbl_qp_solve_lengths(c, linear, NULL, k, floor, out);
}
