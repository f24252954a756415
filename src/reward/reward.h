/* Rewards: a registry of scorers and the scorer pool that runs all of a run's rewards over a batch of images.
 * A score is a number, not applicable (the reward does not apply to this prompt), or failed (the scorer
 * broke, or answered NaN or infinity). The three are never mixed up. */
#ifndef MBL_REWARD_REWARD_H
#define MBL_REWARD_REWARD_H

#include "base/status.h"
#include "data/image.h"
#include "data/prompts.h"
#include "reward/traffic.h"

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum { MBL_SCORE_VALID = 0, MBL_SCORE_NA = 1, MBL_SCORE_FAILED = 2 } mbl_score_state_t;

typedef struct {
    double value; /* 0 unless valid; from the scorer pool, a number that FP32 has */
    mbl_score_state_t state;
} mbl_score_t;

/* A key that a scorer takes beside those of every reward. */
typedef enum {
    MBL_KEY_TEXT,
    MBL_KEY_TEXTS,   /* a list of at least one */
    MBL_KEY_FILE,    /* found from the current folder or the configuration's */
    MBL_KEY_PROGRAM, /* the same where it has a '/'; else a name that PATH finds */
    MBL_KEY_COUNT,   /* whole, low .. high */
    MBL_KEY_NUMBER,  /* low .. high */
    MBL_KEY_SECONDS, /* the same; s, min and h may follow */
    MBL_KEY_CHOICE,  /* one of `words` */
    MBL_KEY_PAIR,    /* [low, high] of any numbers, ascending */
    MBL_KEY_TREE     /* a mapping, such as a JSON schema */
} mbl_scorer_key_kind_t;
typedef struct {
    const char *name;
    mbl_scorer_key_kind_t kind;
    double low, high;
    const char *const *words; /* NULL-terminated */
    const char *fallback;     /* shown in the help; "": none */
    const char *help;
} mbl_scorer_key_t;
typedef struct mbl_service mbl_service_t; /* reward/service.h */

/* A scorer: one file each in src/reward. `score` is called from threads of the scorer pool, so it keeps no
 * state outside `self`. It sets out [n] for n images and their prompts; an error return counts as n failed
 * scores. */
typedef struct {
    const char *name;
    const char *help; /* one line, for listings */
    double low, high; /* range a sane answer lies in; outside is an alarm, not an error */
    /* What it can do. `batch`: images that one call takes at most; 0: MBL_SCORER_MOST. `device`: it
     * computes on an accelerator; `async`: it waits for somebody else, such as a server. Either is called by
     * one thread of its own, one call at a time, and keeps no worker; the others are called by several
     * workers at a time and only read `self`. */
    size_t batch;
    bool device, async;
    mbl_status_t (*open)(const char *options,
                         void **self); /* options: a JSON object or NULL; NULL slot: no state */
    void (*close)(void *self);         /* NULL slot: nothing to free */
    mbl_status_t (*score)(void *self, const mbl_image_t *images, const mbl_prompt_t *const *prompts, size_t n,
                          mbl_score_t *out);
    /* whether a prompt has a score at all, whatever the image; NULL slot: every prompt has */
    bool (*applies)(const void *self, const mbl_prompt_t *prompt);
    const mbl_service_t *service; /* somebody else scores: the slots above but for the range are not used */
    const mbl_scorer_key_t *keys; /* ends with one without a name; NULL: none. They come as options */
} mbl_scorer_t;
enum { MBL_SCORER_MOST = 256 };

/* `batch_name`, a `score` for scorers that look at one image at a time, from
 * one(self, image, prompt, out). */
#define MBL_SCORE_EACH(batch_name, one)                                                                      \
    static mbl_status_t batch_name(void *self, const mbl_image_t *images,                                    \
                                   const mbl_prompt_t *const *prompts, size_t n, mbl_score_t *out) {         \
        for (size_t i = 0; i < n; i++)                                                                       \
            MBL_TRY(one(self, &images[i], prompts[i], &out[i]));                                             \
        return MBL_OK;                                                                                       \
    }

/* The scorer called `name`, NULL when there is none; the i-th of all, NULL past the end. */
const mbl_scorer_t *mbl_scorer_find(const char *name);
const mbl_scorer_t *mbl_scorer_at(size_t i);

typedef enum { MBL_ON_FAILURE_SKIP, MBL_ON_FAILURE_STOP } mbl_on_failure_t;

/* Whether a reward is trained, or scored and logged only: then nothing about it ends a run. */
typedef enum { MBL_REWARD_TRAINED, MBL_REWARD_MONITOR } mbl_reward_use_t;

/* One reward of a run (config key rewards). */
typedef struct {
    const char *name;  /* shown in metrics */
    const char *type;  /* scorer; the name again by default */
    double weight;     /* for weighted_sum and priorities; 1 */
    const char *group; /* rewards of a group share one objective; NULL: its own */
    mbl_on_failure_t on_failure;
    double min;       /* its mean is kept at or above this (rl/constraint.h); NAN: to be improved */
    double low, high; /* of a sane score, instead of the scorer's; both NAN: the scorer's */
    double min_valid; /* share of a group's scores below which none of them counts; 0: never */
    mbl_reward_use_t use;
    const char *applies_to; /* which prompts (reward/applies.h); NULL: all. Besides what the scorer says */
    const char *options;    /* JSON for the scorer, or NULL */
} mbl_reward_spec_t;

/* The range of a sane score: the reward's own, else its scorer's; infinite where there is none. */
void mbl_reward_range(const mbl_reward_spec_t *spec, double *low, double *high);
/* How many of n scores, `stride` apart, are valid and lie outside the reward's range; what rounding puts just
 * outside does not. */
size_t mbl_scores_outside(const mbl_reward_spec_t *spec, const mbl_score_t *scores, size_t n, size_t stride);

/* The key of a scorer's table, or NULL. */
const mbl_scorer_key_t *mbl_scorer_key(const mbl_scorer_t *scorer, const char *name);

/* K open scorers and the threads that run them: workers, and one for each that has its own. */
typedef struct mbl_scorer_pool mbl_scorer_pool_t;

enum { MBL_SCORER_THREADS = 256 }; /* at most */
/* threads 0: one worker. *stop nonzero (NULL: never) ends waiting for scorers, here and in
 * mbl_scorer_pool_wait, within a second or what a scorer in this process takes for a call. Errors: ERR_CONFIG
 * for an unknown scorer (names those that exist), ERR_STOPPED. Close with mbl_scorer_pool_close. */
mbl_status_t mbl_scorer_pool_open(const mbl_reward_spec_t *specs, size_t k, size_t threads,
                                  const volatile sig_atomic_t *stop, mbl_scorer_pool_t **out);
/* The same with scorers [k] that need not be registered; specs give the rest. */
mbl_status_t mbl_scorer_pool_open_with(const mbl_scorer_t *const *scorers, const mbl_reward_spec_t *specs,
                                       size_t k, size_t threads, const volatile sig_atomic_t *stop,
                                       mbl_scorer_pool_t **out);
/* Waits for what is under way, ends the threads, closes the scorers; NULL is fine. */
void mbl_scorer_pool_close(mbl_scorer_pool_t *pool);

/* The name of reward k. */
const char *mbl_scorer_pool_name(const mbl_scorer_pool_t *pool, size_t k);
/* Whether reward k has a score for a prompt at all; the others are not applicable. The rewards of one call to
 * a service see every prompt that one of them applies to. */
bool mbl_scorer_pool_applies(const mbl_scorer_pool_t *pool, size_t k, const mbl_prompt_t *prompt);

/* Starts scoring n images in the background and returns; `images`, `prompts` (pointers, [n]) and `scores`
 * [n, K] must stay in place until mbl_scorer_pool_wait. Several submits may be under way. Results do not
 * depend on the number of threads. */
mbl_status_t mbl_scorer_pool_submit(mbl_scorer_pool_t *pool, const mbl_image_t *images,
                                    const mbl_prompt_t *const *prompts, size_t n, mbl_score_t *scores);
/* The same for n images that are none (a sampler's numbers were not finite): every reward fails on them. */
void mbl_scorer_pool_fail(mbl_scorer_pool_t *pool, const mbl_prompt_t *const *prompts, size_t n,
                          mbl_score_t *scores);
/* Waits for everything submitted. ERR_REWARD when a reward whose on_failure is stop failed since the last
 * wait (says which and on what prompt); ERR_STOPPED when a stop was asked for: the scores that were missing
 * failed, and the pool scores nothing more. One thread submits and waits. A reward's first failure is logged
 * with its reason, later ones only counted. */
mbl_status_t mbl_scorer_pool_wait(mbl_scorer_pool_t *pool);

/* What the earliest failure of reward k was in the last submits that failed, for people; NULL: none. By the
 * thread that submits, after a wait. */
const char *mbl_scorer_pool_failure(const mbl_scorer_pool_t *pool, size_t k);

/* What rewards cost since the last call: traffic [K] and whether the reward comes from a service at all [K];
 * those that share calls have the same numbers. Local, by the thread that submits, after a wait. */
bool mbl_scorer_pool_has_services(const mbl_scorer_pool_t *pool);
void mbl_scorer_pool_traffic(mbl_scorer_pool_t *pool, mbl_traffic_t *traffic, bool *served);
/* Ranks agree on the replicas that they share: whether this rank has set one aside for what it saw itself (1,
 * else 0) goes to against [room]; returns their number, which is the same on every rank. Then what rank 0 has
 * decided (aside [n]). Local, by the thread that submits. */
enum { MBL_SHARED_REPLICAS_MAX = 2048 };
size_t mbl_scorer_pool_votes(mbl_scorer_pool_t *pool, double *against);
void mbl_scorer_pool_decide(mbl_scorer_pool_t *pool, const double *aside, bool mine);
/* The i-th replica of the service of reward k, for people (service.h); false past the end and where there is
 * none. */
bool mbl_scorer_pool_replica(mbl_scorer_pool_t *pool, size_t k, size_t i, const char **url, bool *ready,
                             char *text, size_t size);

#endif
