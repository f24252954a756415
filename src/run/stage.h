/* Which rewards a step trains and how: the stages of a run (config key stages), or the whole run as one. */
#ifndef MBL_TRAIN_STAGE_H
#define MBL_TRAIN_STAGE_H

#include "rl/balance.h"
#include "config/config.h"

typedef struct {
    size_t index, count; /* which one, from 0, of how many; a run without stages is one */
    uint64_t first, end; /* its steps, from 0: first to end - 1 */
    mbl_method_t method;
    size_t parts; /* reward parts its method needs: K, or K + 1 with an objective of its own */
    bool active[MBL_MAX_REWARDS];
    double weights[MBL_MAX_REWARDS]; /* [K]; of the rewards that are not active their own */
} mbl_stage_t;

/* The stage of a step (counted from 0; later ones belong to the last stage), a function of nothing else.
 * ERR_INTERNAL when its method has no implementation. Local. */
mbl_status_t mbl_stage_at(const mbl_config_t *config, uint64_t step, mbl_stage_t *out);

/* The largest `parts` of any stage. */
mbl_status_t mbl_stage_most_parts(const mbl_config_t *config, size_t *out);

#endif
