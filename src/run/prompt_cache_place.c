/* Where the prompt cache is. */
#include "run/prompt_cache_place.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Encoders whose loading is a matter of seconds, and prompts that take room in memory which nobody misses. */
#define SMALL_ENCODERS ((size_t)256 << 20)
#define SMALL_PROMPTS ((size_t)1 << 30)

/* $XDG_CACHE_HOME/marble/prompts, or ~/.cache/marble/prompts; false where neither is set. */
static bool user_folder(char out[PATH_MAX]) {
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    int n = -1;
    if (cache && cache[0] == '/') /* others are to be ignored, says its specification */
        n = snprintf(out, PATH_MAX, "%s/marble/prompts", cache);
    else if (home && home[0] == '/')
        n = snprintf(out, PATH_MAX, "%s/.cache/marble/prompts", home);
    return n > 0 && n < PATH_MAX;
}

mbl_status_t mbl_prompt_cache_place(const mbl_config_t *config, size_t encoders, size_t prompts, bool ahead,
                                    char out[PATH_MAX]) {
    const char *said = config->prompts.cache;
    char where[500];
    bool wanted =
        strcmp(said, "auto") == 0 && (ahead || encoders > SMALL_ENCODERS || prompts > SMALL_PROMPTS);
    out[0] = 0;
    if (strcmp(said, "auto") != 0 && strcmp(said, "off") != 0) {
        snprintf(out, PATH_MAX, "%s", said);
        return MBL_OK;
    }
    if (ahead && !wanted)
        return MBL_FAIL(MBL_ERR_CONFIG,
                        "%s: off, so that there is no cache to encode into; expected auto or a folder",
                        mbl_config_where(config, "prompts.cache", where, sizeof where));
    if (!wanted || user_folder(out))
        return MBL_OK;
    out[0] = 0;
    if (ahead)
        return MBL_FAIL(MBL_ERR_CONFIG,
                        "%s: auto, and neither XDG_CACHE_HOME nor HOME says where; expected a folder",
                        mbl_config_where(config, "prompts.cache", where, sizeof where));
    return MBL_OK;
}
