/* The kept images are those of this process's first epoch: a run that resumes keeps others. */
#include "train/recheck.h"

#include "base/log.h"
#include "base/mem.h"

#include <math.h>
#include <string.h>

static const double SAME = 1e-3; /* of a deviation of the reward's scores */

static mbl_status_t keep(const mbl_batch_t *batch, const mbl_prompt_t *const *prompts,
                         const mbl_image_t *image, mbl_recheck_t *r) {
    size_t n = batch->n < MBL_RECHECK_IMAGES ? batch->n : MBL_RECHECK_IMAGES,
           bytes = image->width * image->height * 3;
    r->k = batch->k;
    MBL_ALLOC(r->rgb, n * bytes);
    MBL_ALLOC(r->first, n * batch->k);
    MBL_ALLOC(r->again, n * batch->k);
    memcpy(r->rgb, batch->rgb, n * bytes);
    memcpy(r->first, batch->scores, n * batch->k * sizeof *r->first);
    for (size_t i = 0; i < n; i++) {
        r->images[i] = (mbl_image_t){image->width, image->height, r->rgb + i * bytes};
        r->prompts[i] = prompts[i];
    }
    r->n = n;
    return MBL_OK;
}

/* The largest difference of reward k's scores on this rank; -1 without any. */
static double largest(const mbl_recheck_t *r, size_t k) {
    double found = -1;
    for (size_t i = 0; i < r->n; i++) {
        const mbl_score_t *a = &r->first[i * r->k + k], *b = &r->again[i * r->k + k];
        if (a->state == MBL_SCORE_VALID && b->state == MBL_SCORE_VALID)
            found = fmax(found, fabs(a->value - b->value));
    }
    return found;
}

static mbl_status_t compare(mbl_comm_t *comm, const mbl_config_t *config, const mbl_reward_stats_t *stats,
                            mbl_recheck_t *r) {
    for (size_t k = 0; k < r->k; k++)
        r->difference[k] = largest(r, k);
    MBL_TRY(mbl_comm_allreduce(comm, r->difference, r->k, MBL_COMM_F64, MBL_COMM_MAX));
    for (size_t k = 0; k < r->k; k++) {
        if (r->difference[k] < 0)
            r->difference[k] = NAN;
        else if (r->difference[k] > SAME * stats[k].std + 1e-9 && comm->rank == 0)
            MBL_WARN(
                "reward %s: images that were scored before now get scores that differ by up to %.3g (the "
                "deviation of its scores is %.3g): its scorer does not always say the same, or was exchanged",
                config->rewards.items[k].name, r->difference[k], stats[k].std);
    }
    return MBL_OK;
}

mbl_status_t mbl_recheck(mbl_comm_t *comm, const mbl_config_t *config, mbl_scorer_pool_t *pool,
                         const mbl_batch_t *batch, const mbl_image_t *images,
                         const mbl_prompt_t *const *prompts, const mbl_reward_stats_t *stats, bool due,
                         mbl_recheck_t *r) {
    r->measured = false;
    if (config->log.recheck_every == 0)
        return MBL_OK;
    if (!r->first)
        return mbl_comm_agree(comm, keep(batch, prompts, images, r));
    if (!due)
        return MBL_OK;
    mbl_status_t status = mbl_scorer_pool_submit(pool, r->images, r->prompts, r->n, r->again);
    mbl_status_t scored = mbl_scorer_pool_wait(pool);
    MBL_TRY(mbl_comm_agree(comm, status != MBL_OK ? status : scored));
    r->measured = true;
    return compare(comm, config, stats, r);
}

void mbl_recheck_free(mbl_recheck_t *r) {
    mbl_free(r->rgb);
    mbl_free(r->first);
    mbl_free(r->again);
    memset(r, 0, sizeof *r);
}
