/* What is said of prompts before anything is made with them: how many there are, what is cut, which rewards
 * have something to score. */
#ifndef MBL_RUN_PROMPT_REPORT_H
#define MBL_RUN_PROMPT_REPORT_H

#include "run/engine.h"

/* Warns of prompts that a text encoder reads only the beginning of: how many, and what the first three lose.
 * `set` is what the prompts are called, "training prompts". Local; rank 0 speaks. text NULL: nothing is cut.
 */
mbl_status_t mbl_prompt_report_cuts(const mbl_text_t *text, const char *const *prompts, size_t n,
                                    const char *set);
/* The same of both sets of a run. */
mbl_status_t mbl_prompt_report_cut_sets(const mbl_engine_t *engine, const mbl_text_t *text);
/* The same of a set; and of quoted text that `ocr`, where it is among the rewards, does not take for such. */
mbl_status_t mbl_prompt_report_set(const mbl_engine_t *engine, const mbl_prompts_t *prompts, const char *set);
/* Of both sets of a run; a table of how many prompts each reward applies to; and what will train nothing. */
mbl_status_t mbl_prompt_report_run(const mbl_engine_t *engine);

/* Whether reward k is about a key of the metadata that no prompt of both sets has: what is wrong goes to
 * text, with the keys that there are. A run is refused for it. */
bool mbl_prompt_report_lacks_key(const mbl_config_t *config, size_t k, const mbl_prompts_t *train,
                                 const mbl_prompts_t *test, char *text, size_t size);

#endif
