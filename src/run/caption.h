/* What stands below an image of a sheet: its prompt and its scores by the rewards' names. */
#ifndef MBL_RUN_CAPTION_H
#define MBL_RUN_CAPTION_H

#include "reward/reward.h"

enum { MBL_CAPTION_REWARDS = 8 }; /* that a caption has room for */

/* "two red circles" and below it "count 0.50  color N/A", where a name and its score are never parted by the
 * end of a line; of more rewards the first MBL_CAPTION_REWARDS, and how many more. NULL without memory; free
 * with mbl_free. */
char *mbl_caption(const char *prompt, const char *const *names, const mbl_score_t *scores, size_t k);

#endif
