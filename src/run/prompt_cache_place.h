/* Whether the prompts of a run are kept in a cache on disk, and where (config key prompts.cache). */
#ifndef MBL_RUN_PROMPT_CACHE_PLACE_H
#define MBL_RUN_PROMPT_CACHE_PLACE_H

#include "config/config.h"

#include <limits.h>

/* out "": no cache. `encoders` and `prompts` are bytes of the text encoders' weights and of all encoded
 * prompts; `ahead`: a cache is what was asked for, so that auto has one. ERR_CONFIG where there shall be one
 * and nothing says where. Local: two hosts may find different places. */
mbl_status_t mbl_prompt_cache_place(const mbl_config_t *config, size_t encoders, size_t prompts, bool ahead,
                                    char out[PATH_MAX]);

#endif
