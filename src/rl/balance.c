/* From a Gram matrix to the direction of the step. */
#include "rl/balance.h"

#include "base/clock.h"
#include "rl/constraint.h"
#include "rl/guard.h"
#include "rl/objective.h"
#include "rl/reference.h"

#include <math.h>
#include <string.h>

/* The Gram matrix [k, k] of the rewards' gradients; also which rewards are usable. */
static void reward_gram(const double *gram, const mbl_sets_t *sets, const bool *active, size_t k,
                        double *rewards, mbl_balance_step_t *out) {
    size_t m = mbl_sets_count(sets);
    for (size_t i = 0; i < k; i++)
        for (size_t j = 0; j < k; j++)
            rewards[i * k + j] = mbl_sets_inner(sets, gram, i, j);
    out->n_used = 0;
    for (size_t i = 0; i < k; i++) {
        double own = gram[i * m + i], square = rewards[i * k + i];
        out->norm[i] = square > 0 ? sqrt(square) : 0;
        out->measured[i] = isfinite(own) && isfinite(square) && own > 1e-24 && square > 1e-24;
        out->used[i] = out->measured[i] && (!active || active[i]);
        out->n_used += out->used[i];
        if (!isfinite(square))
            out->norm[i] = NAN;
    }
}

/* Shorter than this, of its longest reward, a group's mean gradient is rounding error. */
static const double GROUP_CANCELLED = 1e-7;

/* Leaves out the rewards of groups whose gradients cancel; whether there were any. */
static bool drop_cancelled(const mbl_objectives_t *objectives, const double *objective_gram, size_t k,
                           mbl_balance_step_t *out) {
    bool dropped = false;
    for (size_t o = 0; o < objectives->n; o++) {
        double longest = 0, length = sqrt(fmax(0, objective_gram[o * objectives->n + o]));
        for (size_t i = 0; i < k; i++)
            if (out->used[i] && objectives->of[i] == o)
                longest = fmax(longest, out->norm[i]);
        if (objectives->size[o] < 2 || length > GROUP_CANCELLED * longest)
            continue;
        for (size_t i = 0; i < k; i++)
            if (out->used[i] && objectives->of[i] == o) {
                out->used[i] = false;
                out->n_used--;
                dropped = true;
            }
    }
    return dropped;
}

/* The Gram matrix [k, k] of what is balanced: the rewards' gradients, or their parts alone. */
static void balanced_gram(const mbl_balance_options_t *options, const mbl_sets_t *sets, const double *gram,
                          size_t k, double *out) {
    size_t m = mbl_sets_count(sets);
    bool together = options->common == MBL_COMMON_TOGETHER;
    for (size_t i = 0; i < k; i++)
        for (size_t j = 0; j < k; j++)
            out[i * k + j] = together ? mbl_sets_inner(sets, gram, i, j) : gram[i * m + j];
}

/* <a_i, c> of what is added once where the common part is apart: c is the mean of the used rewards' own. */
static double along_common(const mbl_sets_t *sets, const double *gram, const bool *used, size_t k, size_t i) {
    double sum = 0, n = 0;
    for (size_t j = 0; j < k; j++)
        if (used[j]) {
            sum += mbl_sets_common(sets, gram, j, i);
            n++;
        }
    return sum / n;
}

/* The method's answer for the objectives. */
static mbl_status_t answer_objectives(const mbl_balance_options_t *options,
                                      const mbl_objectives_t *objectives, const double *gram,
                                      const double *with_common, const double *pressure,
                                      mbl_method_answer_t *answer) {
    double norm[MBL_MAX_REWARDS], weights[MBL_MAX_REWARDS], sum = 0;
    size_t n = objectives->n;
    for (size_t o = 0; o < n; o++) {
        norm[o] = sqrt(gram[o * n + o]);
        sum += objectives->weight[o];
    }
    bool as_given = mbl_method_is(options->method, MBL_METHOD_MICRO_BATCHES);
    for (size_t o = 0; o < n; o++) /* of mean 1 */
        weights[o] = objectives->weight[o] * (as_given ? 1 : (double)n / sum);
    mbl_method_args_t args = {.n = n,
                              .gram = gram,
                              .norm = norm,
                              .weights = weights,
                              .common = options->common == MBL_COMMON_OFFSET ? with_common : NULL,
                              .floor = options->floor,
                              .cagrad_c = options->cagrad_c};
    return mbl_constraint_solve(mbl_method_solver(options->method), &args, pressure, answer);
}

/* Alpha and coefficients of the usable rewards from the matrix over parts; unused ones get 0. The rewards of
 * an objective share its alpha evenly. */
static mbl_status_t solve(const mbl_balance_options_t *options, const mbl_sets_t *sets, const double *parts,
                          size_t k, mbl_balance_step_t *out) {
    double rewards[MBL_MAX_REWARDS * MBL_MAX_REWARDS], gram[MBL_MAX_REWARDS * MBL_MAX_REWARDS],
        with_common[MBL_MAX_REWARDS] = {0}, pressure[MBL_MAX_REWARDS];
    mbl_objectives_t objectives;
    mbl_method_answer_t answer = {0};
    balanced_gram(options, sets, parts, k, rewards);
    do {
        MBL_TRY(mbl_objectives(options, out->used, k, &objectives));
        mbl_objectives_gram(&objectives, rewards, out->used, k, gram);
    } while (drop_cancelled(&objectives, gram, k, out));
    if (objectives.n == 0)
        return MBL_OK;
    for (size_t i = 0; i < k; i++)
        if (out->used[i]) /* a constrained reward shares no objective */
            pressure[objectives.of[i]] = options->pressure ? options->pressure[i] : NAN;
    for (size_t i = 0; i < k; i++)
        if (out->used[i])
            with_common[objectives.of[i]] +=
                along_common(sets, parts, out->used, k, i) / objectives.size[objectives.of[i]];
    MBL_TRY(answer_objectives(options, &objectives, gram, with_common, pressure, &answer));
    out->kkt_residual = answer.kkt_residual;
    for (size_t i = 0; i < k; i++) {
        size_t o = objectives.of[i];
        if (!out->used[i])
            continue;
        out->alpha[i] = answer.alpha[o] / objectives.size[o];
        out->coefficient[i] = answer.coefficient[o] / objectives.size[o];
        out->length[i] = sqrt(gram[o * objectives.n + o]);
    }
    return MBL_OK;
}

/* Below this part of the square of the sum of its terms' lengths, |D|^2 is rounding error: D has cancelled
 * out. */
static const double CANCELLED = 1e-14;

/* Whether a reward's cosine says something of the balance: those of monitors and of rewards outside the stage
 * are measured only. */
static bool counts(const mbl_balance_step_t *step, const bool *active, size_t i) {
    return step->measured[i] && (!active || active[i]);
}

/* Cosines of all rewards that have a gradient, from <D, g_k>, and their summary over those that are trained.
 */
static void take_cosines(const double *along, const bool *active, size_t k, mbl_balance_step_t *out) {
    double sum = 0, squares = 0, low = INFINITY, part = INFINITY, n = 0;
    for (size_t i = 0; i < k; i++) {
        bool measured = out->measured[i] && out->direction_norm > 0;
        out->cos[i] = measured ? along[i] / (out->norm[i] * out->direction_norm) : 0;
        if (!counts(out, active, i))
            continue;
        n++;
        sum += out->cos[i];
        low = fmin(low, out->cos[i]);
        part = fmin(part, out->cos_part[i]);
    }
    double mean = n > 0 ? sum / n : 0;
    for (size_t i = 0; i < k; i++)
        squares += counts(out, active, i) ? (out->cos[i] - mean) * (out->cos[i] - mean) : 0;
    out->cos_min = n > 0 ? low : 0;
    out->cos_part_min = n > 0 ? part : 0;
    out->cos_mean = mean;
    out->cos_var = n > 0 ? squares / n : 0;
}

/* cos(D, a_k) from <D, a_k> and |a_k|^2. */
static double part_cosine(const mbl_balance_step_t *out, size_t k, double along, double square) {
    return out->measured[k] && out->direction_norm > 0 ? along / (sqrt(square) * out->direction_norm) : 0;
}

/* cos(D, g_k), cos(D, a_k) and |D| from the matrix over the sets. */
static void diagnose(const double *gram, const mbl_sets_t *sets, const bool *active, size_t k,
                     mbl_balance_step_t *out) {
    size_t m = mbl_sets_count(sets);
    double inner[MBL_SETS_MAX], along[MBL_MAX_REWARDS], square = 0, longest = 0;
    for (size_t i = 0; i < m; i++) {
        inner[i] = 0;
        for (size_t j = 0; j < m; j++)
            inner[i] += out->coefficient[j] != 0 ? gram[i * m + j] * out->coefficient[j] : 0;
        if (out->coefficient[i] == 0)
            continue;
        square += out->coefficient[i] * inner[i];
        longest += fabs(out->coefficient[i]) * sqrt(fmax(0, gram[i * m + i]));
    }
    out->direction_norm = square > CANCELLED * longest * longest ? sqrt(square) : 0;
    for (size_t i = 0; i < k; i++) {
        out->cos_part[i] = part_cosine(out, i, inner[i], gram[i * m + i]);
        along[i] = inner[i] + (sets->of[i] == MBL_NO_MASK ? 0 : inner[sets->parts + sets->of[i]]);
    }
    take_cosines(along, active, k, out);
}

void mbl_balance_average(double rho, size_t k, mbl_balance_step_t *step, mbl_balance_state_t *state) {
    double sum = 0;
    for (size_t i = 0; i < k; i++) {
        if (!step->used[i])
            continue;
        double old = state->seen[i] ? state->alpha_mean[i] : step->alpha[i];
        state->alpha_mean[i] = rho * old + (1 - rho) * step->alpha[i];
        state->seen[i] = true;
        sum += state->alpha_mean[i];
    }
    for (size_t i = 0; i < k; i++)
        step->alpha_mean[i] = step->used[i] && sum > 0 ? state->alpha_mean[i] / sum : 0;
}

/* An objective of its own is followed as it is; what each reward weighs in it is reported only. */
static void follow_objective(const mbl_balance_options_t *options, const mbl_sets_t *sets, const double *gram,
                             size_t k, mbl_balance_step_t *step) {
    double own = gram[k * mbl_sets_count(sets) + k], whole = mbl_sets_inner(sets, gram, k, k);
    if (isfinite(own) && own > 1e-24 && isfinite(whole))
        step->coefficient[k] = 1;
    mbl_sets_spread(sets, NULL, step->coefficient);
    for (size_t i = 0; i < k; i++)
        if (!options->active || options->active[i])
            step->alpha[i] = step->alpha_mean[i] = options->weights ? options->weights[i] : 1.0 / (double)k;
}

mbl_status_t mbl_balance_local(const mbl_balance_options_t *options, const double *gram, size_t k,
                               mbl_balance_state_t *state, mbl_balance_step_t *out) {
    double rewards[MBL_MAX_REWARDS * MBL_MAX_REWARDS];
    bool summed = mbl_method_has_objective(options->method);
    bool together = options->common == MBL_COMMON_TOGETHER;
    mbl_sets_t one = mbl_sets(k + summed, NULL, false);
    const mbl_sets_t *sets = options->sets ? options->sets : &one;
    double start = mbl_now();
    MBL_REQUIRE(k >= 1 && k <= MBL_MAX_REWARDS, "%zu rewards; 1 to %d are possible", k, MBL_MAX_REWARDS);
    MBL_REQUIRE(sets->parts == k + summed, "balance: %zu reward parts; expected %zu", sets->parts,
                k + summed);
    MBL_REQUIRE(together || (!summed && (options->common == MBL_COMMON_APART ||
                                         mbl_method_is(options->method, MBL_METHOD_OFFSET))),
                "balance: method %s cannot set the common part apart", mbl_method_name(options->method));
    mbl_balance_step_t step;
    bool averages_all = mbl_method_is(options->method, MBL_METHOD_MICRO_BATCHES);
    memset(&step, 0, sizeof step);
    reward_gram(gram, sets, options->active, k, rewards, &step);
    if (summed) {
        follow_objective(options, sets, gram, k, &step);
    } else if (step.n_used > 0) {
        MBL_TRY(solve(options, sets, gram, k, &step));
        mbl_sets_spread(sets, together ? NULL : step.used, step.coefficient);
        if (!averages_all)
            mbl_balance_average(options->rho, k, &step, state);
    }
    if (averages_all) {
        mbl_reference_smooth(options->rho, step.alpha, k, state);
        memcpy(step.alpha_mean, state->alpha_mean, sizeof step.alpha_mean);
    }
    diagnose(gram, sets, options->active, k, &step);
    if (options->guard) {
        MBL_TRY(mbl_guard(gram, sets, k, &step));
        diagnose(gram, sets, options->active, k, &step);
    }
    step.seconds = mbl_now() - start;
    *out = step;
    return MBL_OK;
}

static void take_measures(const mbl_balance_step_t *measured, mbl_balance_step_t *step) {
    memcpy(step->norm, measured->norm, sizeof step->norm);
    memcpy(step->measured, measured->measured, sizeof step->measured);
    memcpy(step->cos, measured->cos, sizeof step->cos);
    memcpy(step->cos_part, measured->cos_part, sizeof step->cos_part);
    step->direction_norm = measured->direction_norm;
    step->cos_min = measured->cos_min;
    step->cos_mean = measured->cos_mean;
    step->cos_var = measured->cos_var;
    step->cos_part_min = measured->cos_part_min;
}

void mbl_balance_measure(const double *gram, const mbl_sets_t *sets, const bool *active, size_t k,
                         mbl_balance_step_t *step) {
    double rewards[MBL_MAX_REWARDS * MBL_MAX_REWARDS];
    mbl_balance_step_t measured;
    memset(&measured, 0, sizeof measured);
    reward_gram(gram, sets, NULL, k, rewards, &measured);
    memcpy(measured.coefficient, step->coefficient, sizeof measured.coefficient);
    diagnose(gram, sets, active, k, &measured);
    take_measures(&measured, step);
}

void mbl_balance_measure_row(const double *gram, const mbl_sets_t *sets, const bool *active, size_t k,
                             mbl_balance_step_t *step) {
    double rewards[MBL_MAX_REWARDS * MBL_MAX_REWARDS], of_sets[MBL_SETS_MAX * MBL_SETS_MAX];
    double along[MBL_MAX_REWARDS];
    size_t n = mbl_sets_count(sets), m = n + 1;
    const double *row = gram + n * m;
    mbl_balance_step_t measured;
    memset(&measured, 0, sizeof measured);
    for (size_t i = 0; i < n; i++)
        memcpy(of_sets + i * n, gram + i * m, n * sizeof *of_sets);
    reward_gram(of_sets, sets, NULL, k, rewards, &measured);
    measured.direction_norm = row[n] > 0 && isfinite(row[n]) ? sqrt(row[n]) : 0;
    for (size_t i = 0; i < k; i++) {
        measured.cos_part[i] = part_cosine(&measured, i, row[i], gram[i * m + i]);
        along[i] = row[i] + (sets->of[i] == MBL_NO_MASK ? 0 : row[sets->parts + sets->of[i]]);
    }
    take_cosines(along, active, k, &measured);
    take_measures(&measured, step);
}

mbl_status_t mbl_balance(mbl_comm_t *comm, const mbl_balance_options_t *options, const double *gram, size_t k,
                         mbl_balance_state_t *state, mbl_balance_step_t *out) {
    struct {
        mbl_status_t status;
        mbl_balance_state_t state;
        mbl_balance_step_t step;
    } message;
    memset(&message, 0, sizeof message);
    if (comm->rank == 0) {
        message.state = *state;
        message.status = mbl_balance_local(options, gram, k, &message.state, &message.step);
    }
    MBL_TRY(mbl_comm_bcast(comm, &message, sizeof message, 0));
    MBL_TRY(message.status);
    *state = message.state;
    *out = message.step;
    return MBL_OK;
}
