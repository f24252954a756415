/* Scores of an epoch by the source of their prompts. */
#include "train/by_source.h"

#include <math.h>
#include <string.h>

mbl_status_t mbl_by_source(mbl_comm_t *comm, const mbl_prompts_t *prompts, const mbl_batch_t *batch,
                           double *count, double *out) {
    const size_t k_all = batch->k, numbers = prompts->n_sources * k_all;
    if (numbers == 0)
        return MBL_OK;
    memset(count, 0, numbers * sizeof *count);
    memset(out, 0, numbers * sizeof *out);
    for (size_t i = 0; i < batch->n; i++)
        for (size_t k = 0; k < k_all; k++) {
            const mbl_score_t *score = &batch->scores[i * k_all + k];
            const size_t at = prompts->source[batch->prompt[i]] * k_all + k;
            count[at] += score->state == MBL_SCORE_VALID;
            out[at] += score->state == MBL_SCORE_VALID ? score->value : 0;
        }
    MBL_TRY(mbl_comm_allreduce(comm, count, numbers, MBL_COMM_F64, MBL_COMM_SUM));
    MBL_TRY(mbl_comm_allreduce(comm, out, numbers, MBL_COMM_F64, MBL_COMM_SUM));
    for (size_t i = 0; i < numbers; i++)
        out[i] = count[i] > 0 ? out[i] / count[i] : NAN;
    return MBL_OK;
}
