/* To which prompts a reward applies, as run.yaml says it (rewards[].applies_to): "all", "quoted",
 * "metadata.KEY" or "regex:PATTERN". */
#ifndef MBL_REWARD_APPLIES_H
#define MBL_REWARD_APPLIES_H

#include "data/prompts.h"

#include <stdbool.h>

typedef struct mbl_applies mbl_applies_t;

/* ERR_CONFIG, not logged, for text that is none of the above or a pattern that does not compile, with what is
 * wrong and expected in mbl_fail_message. Close with mbl_applies_close. */
mbl_status_t mbl_applies_open(const char *text, mbl_applies_t **out);
void mbl_applies_close(mbl_applies_t *applies); /* NULL is fine */
/* NULL: to all. Any thread. A pattern that takes too long on a prompt does not match it. */
bool mbl_applies_to(const mbl_applies_t *applies, const mbl_prompt_t *prompt);
/* KEY of metadata.KEY, NULL for others. */
const char *mbl_applies_key(const mbl_applies_t *applies);

#endif
