/* Non-negative least squares by Lawson and Hanson's active set, on the normal equations. A ridge far below
 * the certificate stands in for the rank that a Gram matrix of dependent gradients lacks. */
#include "rl/cone.h"

#include <math.h>
#include <string.h>

enum { N = MBL_QP_MAX };

static const double RIDGE = 1e-12;    /* of the largest entry */
static const double DESCENT = 1e-11;  /* a multiplier this negative is worth another variable */
static const double TOLERANCE = 1e-7; /* of the certificate */

typedef struct {
    size_t k, m;
    const double *c, *b;
    double scale, x[N], y[N]; /* y: the minimum over the free variables, over w */
    size_t w[N];              /* the free variables */
    bool is_free[N];
} cone_t;

/* y = -(C + ridge)^-1 b over the free variables, by Cholesky. */
static void solve_free(cone_t *q) {
    double l[N][N];
    for (size_t i = 0; i < q->m; i++) {
        double y = -q->b[q->w[i]];
        for (size_t j = 0; j <= i; j++) {
            double sum = q->c[q->w[i] * q->k + q->w[j]] + (i == j ? RIDGE * q->scale : 0);
            for (size_t s = 0; s < j; s++)
                sum -= l[i][s] * l[j][s];
            l[i][j] = i > j ? sum / l[j][j] : sqrt(fmax(sum, RIDGE * q->scale));
        }
        for (size_t j = 0; j < i; j++)
            y -= l[i][j] * q->y[j];
        q->y[i] = y / l[i][i];
    }
    for (size_t i = q->m; i-- > 0;) {
        for (size_t j = i + 1; j < q->m; j++)
            q->y[i] -= l[j][i] * q->y[j];
        q->y[i] /= l[i][i];
    }
}

/* From x towards y as far as x >= 0 allows; the variables that reach 0 are dropped. Returns whether y was
 * reached. */
static bool walk(cone_t *q) {
    double t = 1;
    size_t blocked = q->m, kept = 0;
    for (size_t i = 0; i < q->m; i++) {
        double x = q->x[q->w[i]];
        if (q->y[i] < 0 && x / (x - q->y[i]) < t) {
            t = x / (x - q->y[i]);
            blocked = i;
        }
    }
    bool arrived = blocked == q->m;
    for (size_t i = 0; i < q->m; i++)
        q->x[q->w[i]] = i == blocked ? 0 : fmax(q->x[q->w[i]] + t * (q->y[i] - q->x[q->w[i]]), 0);
    for (size_t i = 0; !arrived && i < q->m; i++) {
        q->is_free[q->w[i]] = q->x[q->w[i]] > 0;
        if (q->x[q->w[i]] > 0)
            q->w[kept++] = q->w[i];
    }
    q->m = arrived ? q->m : kept;
    return arrived;
}

static double slope(const cone_t *q, size_t i) {
    double sum = q->b[i];
    for (size_t j = 0; j < q->k; j++)
        sum += q->c[i * q->k + j] * q->x[j];
    return sum;
}

mbl_status_t mbl_cone_solve(const double *c, const double *b, size_t k, double *x, double *residual) {
    MBL_REQUIRE(k >= 1 && k <= N, "cone: %zu variables; expected 1 to %d", k, N);
    cone_t q = {.k = k, .c = c, .b = b};
    for (size_t i = 0; i < k * k; i++)
        q.scale = fmax(q.scale, fabs(c[i]));
    for (size_t round = 0; round < 10 * k; round++) {
        size_t next = k;
        double least = -DESCENT * q.scale;
        for (size_t i = 0; i < k; i++) {
            double g = q.is_free[i] ? 0 : slope(&q, i);
            if (g < least)
                least = g, next = i;
        }
        if (next == k)
            break;
        q.w[q.m++] = next;
        q.is_free[next] = true;
        do
            solve_free(&q);
        while (!walk(&q));
    }
    double worst = 0;
    for (size_t i = 0; i < k; i++)
        worst = fmax(worst, fabs(fmin(q.x[i], slope(&q, i) / (q.scale > 0 ? q.scale : 1))));
    if (!(worst <= TOLERANCE))
        return MBL_FAIL(MBL_ERR_NUMERIC,
                        "cone: residual %.2g, more than %g: is the matrix positive semidefinite?", worst,
                        TOLERANCE);
    memcpy(x, q.x, k * sizeof *x);
    *residual = worst;
    return MBL_OK;
}
