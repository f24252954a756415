/* The passes beside the method's, counted by their own code on weights that are not there: images decoded,
 * and prompts encoded. */
#ifndef MBL_PLAN_PASSES_H
#define MBL_PLAN_PASSES_H

#include "plan/plan.h"

/* What was counted on `ops` since the last time. */
mbl_status_t mbl_plan_take(mbl_ops_t *ops, size_t times, mbl_plan_count_t *out);

/* One rollout micro-batch's images, in an epoch as often as there are micro-batches; nothing without a vae.
 */
mbl_status_t mbl_plan_count_decoder(const mbl_plan_shape_t *shape, mbl_plan_count_t *out);
/* As many of a rank's prompts as are encoded at once, as often as it takes; nothing without text encoders. */
mbl_status_t mbl_plan_count_text(const mbl_plan_shape_t *shape, mbl_plan_count_t *out);

#endif
