/* Few scores of a group are no sample of it: which ones failed may depend on the images. */
#include "rl/min_valid.h"

static void drop(mbl_batch_t *batch, size_t first, size_t k, double least) {
    size_t valid = 0, failed = 0;
    for (size_t i = first; i < first + batch->group_size; i++) {
        valid += batch->all[i * batch->k + k].state == MBL_SCORE_VALID;
        failed += batch->all[i * batch->k + k].state == MBL_SCORE_FAILED;
    }
    if (failed == 0 || (double)valid >= least * (double)(valid + failed))
        return;
    for (size_t i = first; i < first + batch->group_size; i++) {
        mbl_score_t *score = &batch->all[i * batch->k + k];
        if (score->state == MBL_SCORE_VALID)
            *score = (mbl_score_t){0, MBL_SCORE_FAILED};
    }
}

void mbl_min_valid(const double *min_valid, mbl_batch_t *batch) {
    for (size_t k = 0; k < batch->k; k++)
        for (size_t first = 0; first < batch->n_global && min_valid[k] > 0; first += batch->group_size)
            drop(batch, first, k, min_valid[k]);
}
