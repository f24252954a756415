/* The one list of built-in scorers. A new one is a file that defines mbl_scorer_NAME and a word here. */
#ifndef MBL_REWARD_SCORERS_H
#define MBL_REWARD_SCORERS_H

#include "reward/reward.h"

#define MBL_SCORER_LIST(X) X(ocr) X(count) X(color) X(clean) X(jpeg) X(remote) X(judge) X(python)

#define MBL_SCORER_DECLARE(name) extern const mbl_scorer_t mbl_scorer_##name;
MBL_SCORER_LIST(MBL_SCORER_DECLARE)
#undef MBL_SCORER_DECLARE

#endif
