/* Health alarms from the numbers of a step. */
#include "rl/alarms.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum {
    FIRST_STEPS = 3, /* whose latents x0_norm_drift compares with */
    ENOUGH = 8       /* scores, for a mean that reward_collapse compares with */
};

const char *mbl_alarm_name(mbl_alarm_t alarm) {
    static const char *const names[] = {
#define NAME(name) #name,
        MBL_ALARM_LIST(NAME)
#undef NAME
    };
    return names[alarm];
}

/* Whether `now` has held for `steps` steps in a row; 0 steps are never reached. */
static bool lasts(uint64_t *run, bool now, size_t steps) {
    *run = now ? *run + 1 : 0;
    return steps > 0 && *run >= steps;
}

static void found(mbl_alarm_findings_t *out, mbl_alarm_t alarm, bool is, double value, size_t reward) {
    if (!is || (out->found[alarm] && out->value[alarm] >= value))
        return;
    out->found[alarm] = true;
    out->value[alarm] = value;
    out->reward[alarm] = reward;
}

static void check_adapters(const mbl_alarm_limits_t *limits, const mbl_alarm_numbers_t *n,
                           mbl_alarm_state_t *state, mbl_alarm_findings_t *out) {
    uint64_t *run = &state->run[MBL_ALARM_old_equals_new];
    if (n->finite) { /* else that is the reason */
        bool equal = lasts(run, n->old_deviate == 0 || !n->moved, limits->old_equals_new);
        found(out, MBL_ALARM_old_equals_new, equal, (double)*run, 0);
    }
    found(out, MBL_ALARM_old_drift, limits->old_drift > 0 && n->old_deviate > limits->old_drift,
          n->old_deviate, 0);
    run = &state->run[MBL_ALARM_non_finite];
    out->give_up = lasts(run, !n->finite, limits->non_finite);
    found(out, MBL_ALARM_non_finite, *run > 0 && limits->non_finite > 0, (double)*run, 0);
    found(out, MBL_ALARM_replica_mismatch, limits->replica_mismatch > 0 && !n->replicas_same, 1, 0);
}

static void check_images(const mbl_alarm_limits_t *limits, const mbl_alarm_numbers_t *n,
                         mbl_alarm_state_t *state, mbl_alarm_findings_t *out) {
    if (state->x0_steps < FIRST_STEPS) {
        state->x0_norm += n->x0_norm;
        state->x0_steps++;
    }
    double first = state->x0_norm / (double)state->x0_steps;
    double drift = first > 0 ? n->x0_norm / first - 1 : 0;
    bool far = limits->x0_norm_drift > 0 && !(fabs(drift) <= limits->x0_norm_drift);
    bool is = lasts(&state->run[MBL_ALARM_x0_norm_drift], far, limits->patience);
    found(out, MBL_ALARM_x0_norm_drift, is, drift, 0);
}

static void check_alpha(const mbl_alarm_limits_t *limits, const mbl_alarm_numbers_t *n,
                        mbl_alarm_state_t *state, mbl_alarm_findings_t *out) {
    size_t largest = 0;
    if (!n->solves)
        return;
    for (size_t k = 1; k < n->k; k++)
        largest = n->alpha[k] > n->alpha[largest] ? k : largest;
    bool one = n->used > 1 && n->alpha[largest] > limits->alpha_collapse;
    bool is = lasts(&state->run[MBL_ALARM_alpha_collapse], one, limits->patience);
    found(out, MBL_ALARM_alpha_collapse, is, n->alpha[largest], largest);
    state->unsolved = n->solved ? 0 : state->unsolved + 1;
    is = limits->alpha_stale > 0 && state->unsolved > limits->alpha_stale;
    found(out, MBL_ALARM_alpha_stale, is, (double)state->unsolved, 0);
}

/* The most negative cosine of the rewards that a step trains; steps without any say nothing either way. */
static void check_cosines(const mbl_alarm_limits_t *limits, const mbl_alarm_numbers_t *n,
                          mbl_alarm_state_t *state, mbl_alarm_findings_t *out) {
    size_t worst = 0;
    double least = INFINITY;
    for (size_t k = 0; n->cos && k < n->k; k++) {
        double cosine = fmin(n->cos[k], n->cos_part[k]); /* of the one that is no NAN */
        if (!(cosine < least) || (n->active && !n->active[k]))
            continue;
        least = cosine;
        worst = k;
    }
    if (isinf(least))
        return;
    bool is = lasts(&state->run[MBL_ALARM_against_reward], mbl_is_against(least), limits->against_reward);
    found(out, MBL_ALARM_against_reward, is, least, worst);
}

static void check_rewards(const mbl_alarm_limits_t *limits, const mbl_alarm_numbers_t *n,
                          mbl_alarm_state_t *state, mbl_alarm_findings_t *out) {
    for (size_t k = 0; k < n->k; k++) {
        const mbl_reward_stats_t *s = &n->stats[k];
        if (n->monitor && n->monitor[k])
            continue;
        double flat = s->groups ? (double)s->flat_groups / (double)s->groups : 0;
        double failed = s->failed ? (double)s->failed / (double)(s->valid + s->failed) : 0;
        double outside = s->valid ? (double)n->outside[k] / (double)s->valid : 0;
        /* a step in which the reward has no group to compare says nothing either way */
        bool still = s->groups ? flat > limits->no_variance : state->flat[k] > 0;
        bool is = lasts(&state->flat[k], still, limits->patience);
        found(out, MBL_ALARM_no_variance, is && s->groups > 0, flat, k);
        found(out, MBL_ALARM_scorer_failed, failed > limits->scorer_failed, failed, k);
        found(out, MBL_ALARM_scorer_range, outside > limits->scorer_range, outside, k);
    }
}

/* How far a reward's mean is below that of the first step with enough scores, whose adapter is fresh, in
 * deviations of its scores, then or now. Remembers that step. 0 where nothing can be said. */
static double fall(const mbl_reward_stats_t *s, mbl_alarm_state_t *state, size_t k) {
    double deviation = fmax(state->first[k].deviation, s->std);
    if (s->valid > 0 && state->first[k].deviation > 0)
        return (state->first[k].mean - s->mean) / deviation;
    if (s->valid >= ENOUGH && s->std > 0) {
        state->first[k].mean = s->mean;
        state->first[k].deviation = s->std;
    }
    return 0;
}

static void check_scores(const mbl_alarm_limits_t *limits, const mbl_alarm_numbers_t *n,
                         mbl_alarm_state_t *state, mbl_alarm_findings_t *out) {
    for (size_t k = 0; k < n->k; k++) {
        const mbl_reward_stats_t *s = &n->stats[k];
        if (n->monitor && n->monitor[k])
            continue;
        bool none = s->valid == 0 && (!n->active || n->active[k]);
        bool is = lasts(&state->unscored[k], none, limits->patience);
        found(out, MBL_ALARM_no_score, is && limits->no_score == MBL_ALARM_ON, (double)state->unscored[k], k);
        double far = fall(s, state, k), limit = limits->reward_collapse;
        /* a step without scores says nothing either way */
        bool below = s->valid > 0 ? limit > 0 && far > limit : state->fallen[k] > 0;
        is = lasts(&state->fallen[k], below, limits->patience);
        found(out, MBL_ALARM_reward_collapse, is && s->valid > 0, far, k);
    }
}

void mbl_alarms_check(const mbl_alarm_limits_t *limits, const mbl_alarm_numbers_t *numbers,
                      mbl_alarm_state_t *state, mbl_alarm_findings_t *out) {
    memset(out, 0, sizeof *out);
    check_adapters(limits, numbers, state, out);
    check_images(limits, numbers, state, out);
    check_alpha(limits, numbers, state, out);
    check_cosines(limits, numbers, state, out);
    check_rewards(limits, numbers, state, out);
    check_scores(limits, numbers, state, out);
    for (int i = 0; i < MBL_ALARMS; i++)
        state->count[i] += out->found[i];
}

char *mbl_alarm_text(mbl_alarm_t alarm, const mbl_alarm_limits_t *limits,
                     const mbl_alarm_findings_t *findings, const char *reward, char *out, size_t size) {
    double value = findings->value[alarm], percent = 100 * value;
    int used = snprintf(out, size, "%s: ", mbl_alarm_name(alarm));
    char *text = out + used;
    size_t room = size - (size_t)used;
    switch (alarm) {
    case MBL_ALARM_old_equals_new:
        snprintf(text, room,
                 "for %.0f steps the trained adapter equals the rollout policy's; check that a reward "
                 "has a usable gradient (rewards_used in metrics.jsonl), and raise train.lr",
                 value);
        break;
    case MBL_ALARM_old_drift:
        snprintf(
            text, room,
            "the trained adapter is %.3g of its own length away from the rollout policy's (limit %g); lower "
            "train.old_decay.hold or rate, or train.lr",
            value, limits->old_drift);
        break;
    case MBL_ALARM_no_variance:
        snprintf(text, room,
                 "in %.0f %% of its groups all scores of %s are equal, for %zu steps; take harder or easier "
                 "prompts, a larger prompts.group_size, or a finer scorer",
                 percent, reward, limits->patience);
        break;
    case MBL_ALARM_x0_norm_drift:
        snprintf(text, room,
                 "the images' root mean square is %+.0f %% off the first steps', for %zu steps: a reward may "
                 "favour brightness; look at samples/, raise train.kl or lower train.lr",
                 percent, limits->patience);
        break;
    case MBL_ALARM_alpha_collapse:
        snprintf(text, room,
                 "%s holds %.3f of alpha, for %zu steps: its gradient opposes the others'; set "
                 "balance.floor, change its weight, or leave it out",
                 reward, value, limits->patience);
        break;
    case MBL_ALARM_alpha_stale:
        snprintf(text, room,
                 "alpha was solved for %.0f steps ago (limit %zu); lower balance.refresh_every, or find out "
                 "why no "
                 "reward has a usable gradient",
                 value, limits->alpha_stale);
        break;
    case MBL_ALARM_non_finite:
        snprintf(text, room,
                 "the loss or a gradient is not finite, %.0f steps in a row, which are left out; lower "
                 "train.lr or "
                 "train.beta, or take precision: f32",
                 value);
        break;
    case MBL_ALARM_replica_mismatch:
        snprintf(text, room,
                 "ranks hold different adapters: resume from the last checkpoint, and check the nodes for "
                 "different "
                 "builds, processors or memory errors");
        break;
    case MBL_ALARM_scorer_failed:
        snprintf(
            text, room,
            "%.3g %% of the scores of %s failed (limit %g %%); the first failure is in log.txt, and marble "
            "eval runs every scorer",
            percent, reward, 100 * limits->scorer_failed);
        break;
    case MBL_ALARM_scorer_range:
        snprintf(
            text, room,
            "%.3g %% of the scores of %s lie outside the range its scorer declares (limit %g %%); look at "
            "its version and options",
            percent, reward, 100 * limits->scorer_range);
        break;
    case MBL_ALARM_no_score:
        snprintf(
            text, room,
            "no image of the last %.0f steps has a score of %s: it does not apply to these prompts, or its "
            "scorer fails (valid, na and failed in metrics.jsonl); change the prompts or leave it out",
            value, reward);
        break;
    case MBL_ALARM_reward_collapse:
        snprintf(
            text, room,
            "the mean of %s is %.1f standard deviations of its scores below the first step's (limit %g), "
            "for %zu steps; lower train.lr, raise train.kl, and look at samples/",
            reward, value, limits->reward_collapse, limits->patience);
        break;
    case MBL_ALARM_against_reward:
        snprintf(
            text, room,
            "for %zu steps the direction works against a reward, now against %s (least cosine %+.2f: cos and "
            "cos_part in metrics.jsonl); balance.method: marble with balance.guard: own_parts "
            "forbids it, a lower train.old_decay.hold makes it rarer",
            limits->against_reward, reward, value);
        break;
    case MBL_ALARMS:
        break;
    }
    return out;
}
