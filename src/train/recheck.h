/* Whether rewards still say the same: the first images of a run, scored again now and then. A server whose
 * model was exchanged, or that answers differently from replica to replica, is found out. */
#ifndef MBL_TRAIN_RECHECK_H
#define MBL_TRAIN_RECHECK_H

#include "config/config.h"
#include "rl/types.h"

enum { MBL_RECHECK_IMAGES = 8 }; /* of a rank */

typedef struct {
    size_t n, k;
    uint8_t *rgb; /* [n] copies of the first images, */
    mbl_image_t images[MBL_RECHECK_IMAGES];
    const mbl_prompt_t *prompts[MBL_RECHECK_IMAGES];
    mbl_score_t *first, *again;         /* [n, K] and what they were given */
    bool measured;                      /* in this epoch */
    double difference[MBL_MAX_REWARDS]; /* largest, over ranks; NAN: no image has a score both times */
} mbl_recheck_t;

/* After an epoch's scores, those of `images` and their `prompts` [n]: keeps the first of them where there are
 * none yet, or scores those again where `due`. `stats` [K] of the epoch: more than a thousandth of a reward's
 * deviation is logged. Collective. */
mbl_status_t mbl_recheck(mbl_comm_t *comm, const mbl_config_t *config, mbl_scorer_pool_t *pool,
                         const mbl_batch_t *batch, const mbl_image_t *images,
                         const mbl_prompt_t *const *prompts, const mbl_reward_stats_t *stats, bool due,
                         mbl_recheck_t *recheck);
void mbl_recheck_free(mbl_recheck_t *recheck);

#endif
