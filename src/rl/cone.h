/* The quadratic program of a projection onto a cone, as a pure function of numbers:
 *     minimise 1/2 x' C x + b' x   subject to   x >= 0
 * C positive semidefinite, b in its range (else there may be no minimum). Dense, active set, f64. */
#ifndef MBL_RL_CONE_H
#define MBL_RL_CONE_H

#include "rl/qp.h"

/* C [k, k] row-major, symmetric; b, x [k]; 1 <= k <= MBL_QP_MAX. *residual: max |min(x_i, (Cx + b)_i)| over
 * the largest |C|. Where several x are optimal one near the least norm is found. ERR_NUMERIC when the
 * residual exceeds 1e-7. Allocates nothing. */
mbl_status_t mbl_cone_solve(const double *c, const double *b, size_t k, double *x, double *residual);

#endif
