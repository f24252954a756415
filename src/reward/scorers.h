/* The built-in scorers, one file each; the registry lists them. */
#ifndef MBL_REWARD_SCORERS_H
#define MBL_REWARD_SCORERS_H

#include "reward/reward.h"

extern const mbl_scorer_t mbl_scorer_ocr, mbl_scorer_count, mbl_scorer_color, mbl_scorer_clean,
    mbl_scorer_jpeg;

#endif
