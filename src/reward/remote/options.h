/* The options of rewards that servers compute: their keys, and how they become those of a client. */
#ifndef MBL_REWARD_REMOTE_OPTIONS_H
#define MBL_REWARD_REMOTE_OPTIONS_H

#include "reward/remote/client.h"

#include <jansson.h>

extern const mbl_scorer_key_t mbl_remote_keys[], mbl_judge_keys[], mbl_python_keys[];

/* Whether two rewards differ in their output at most. */
bool mbl_remote_same_calls(const mbl_reward_spec_t *a, const mbl_reward_spec_t *b);

/* What was read; the strings of `client` live in it. Begin with {0}; free it after a failure too. */
typedef struct {
    json_t *json;
    char *schema;
    const char **urls, **outputs;
    mbl_remote_options_t client;
    const char *file, *python, *device; /* of type python */
    size_t workers;
} mbl_remote_parsed_t;
/* The options of rewards [n] of one type that share calls, whose keys are `keys`. Errors: ERR_CONFIG with
 * reward, key, what was found and what is expected; ERR_MEM. */
mbl_status_t mbl_remote_parse(const mbl_scorer_key_t *keys, const mbl_reward_spec_t *const *specs, size_t n,
                              mbl_remote_parsed_t *out);
void mbl_remote_parsed_free(mbl_remote_parsed_t *parsed);

#endif
