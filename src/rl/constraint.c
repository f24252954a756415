/* Rewards with a lower limit. */
#include "rl/constraint.h"

#include <math.h>
#include <string.h>

enum { N = MBL_MAX_REWARDS };

/* As in the advantages: a reward whose scores are all alike has no scale of its own. */
static const double LEAST_SPREAD = 1e-4;
/* An augmented gradient shorter than this, of the gradient, has cancelled out: its objective is at rest. */
static const double AT_REST = 1e-10;

static double clamp(double x, double most) {
    return fmin(fmax(x, 0), most);
}

void mbl_constraint_update(const mbl_constraint_options_t *options, const double *min,
                           const mbl_reward_stats_t *stats, size_t k, mbl_constraint_state_t *state,
                           double *pressure) {
    for (size_t i = 0; i < k; i++) {
        double keep = state->seen[i] ? options->smooth : 0;
        pressure[i] = isnan(min[i]) ? NAN : clamp(state->multiplier[i], options->most);
        if (isnan(min[i]) || stats[i].valid == 0)
            continue;
        state->level[i] = keep * state->level[i] + (1 - keep) * stats[i].mean;
        state->spread[i] = keep * state->spread[i] + (1 - keep) * stats[i].std;
        state->seen[i] = true;
        double violation = (min[i] - state->level[i]) / (state->spread[i] + LEAST_SPREAD);
        state->multiplier[i] = clamp(state->multiplier[i] + options->rate * violation, options->most);
        pressure[i] = clamp(state->multiplier[i] + options->penalty * violation, options->most);
    }
}

/* The augmented gradients over the gradients: row [n] of each. */
typedef struct {
    size_t count;
    double row[N * N], gram[N * N], norm[N], weight[N];
} augmented_t;

/* The square of the length of a row. */
static double square_of(const mbl_method_args_t *args, const double *a, const double *b) {
    double sum = 0;
    for (size_t i = 0; i < args->n; i++)
        for (size_t j = 0; j < args->n; j++)
            sum += a[i] * args->gram[i * args->n + j] * b[j];
    return sum;
}

static void augment(const mbl_method_args_t *args, const double *pressure, double sum, augmented_t *out) {
    size_t n = args->n;
    double weights = 0;
    out->count = 0;
    for (size_t k = 0; k < n; k++) {
        double *row = out->row + out->count * n;
        if (!isnan(pressure[k]))
            continue;
        for (size_t j = 0; j < n; j++) {
            double part = j == k ? 1 : isnan(pressure[j]) ? 0 : pressure[j];
            row[j] = args->norm[k] * part / args->norm[j] / (1 + sum);
        }
        double square = square_of(args, row, row), least = AT_REST * args->norm[k];
        if (!(square > least * least))
            continue;
        out->norm[out->count] = sqrt(square);
        weights += out->weight[out->count] = args->weights[k];
        out->count++;
    }
    for (size_t a = 0; a < out->count; a++) {
        out->weight[a] *= (double)out->count / weights;
        for (size_t b = 0; b < out->count; b++)
            out->gram[a * out->count + b] = square_of(args, out->row + a * n, out->row + b * n);
    }
}

/* Towards the constraints alone: coefficients of mean length. */
static void pull(const mbl_method_args_t *args, const double *pressure, double sum,
                 mbl_method_answer_t *out) {
    double mean = 0;
    for (size_t i = 0; i < args->n; i++)
        mean += args->norm[i] / (double)args->n;
    for (size_t i = 0; i < args->n && sum > 0; i++)
        out->coefficient[i] = mean * pressure[i] / sum / args->norm[i];
}

static void find_shares(const mbl_method_args_t *args, mbl_method_answer_t *out) {
    double sum = 0;
    for (size_t i = 0; i < args->n; i++)
        sum += out->alpha[i] = out->coefficient[i] * args->norm[i];
    for (size_t i = 0; i < args->n; i++)
        out->alpha[i] = sum > 0 ? out->alpha[i] / sum : 0;
}

mbl_status_t mbl_constraint_solve(mbl_method_fn *method, const mbl_method_args_t *args,
                                  const double *pressure, mbl_method_answer_t *out) {
    augmented_t augmented;
    mbl_method_answer_t answer = {0};
    size_t n = args->n, free_rewards = 0;
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        free_rewards += isnan(pressure[i]);
        sum += isnan(pressure[i]) ? 0 : pressure[i];
    }
    if (free_rewards == n)
        return method(args, out);
    MBL_REQUIRE(!args->common,
                "constraints balance the common part with each reward (balance.common: together)");
    augment(args, pressure, sum, &augmented);
    if (free_rewards == 0)
        pull(args, pressure, sum, out);
    if (augmented.count > 0) {
        mbl_method_args_t of_augmented = *args;
        of_augmented.n = augmented.count;
        of_augmented.gram = augmented.gram;
        of_augmented.norm = augmented.norm;
        of_augmented.weights = augmented.weight;
        MBL_TRY(method(&of_augmented, &answer));
    }
    out->kkt_residual = answer.kkt_residual;
    for (size_t a = 0; a < augmented.count; a++)
        for (size_t j = 0; j < n; j++)
            out->coefficient[j] += answer.coefficient[a] * augmented.row[a * n + j];
    find_shares(args, out);
    return MBL_OK;
}
