/* The scorers there are, by name. */
#include "reward/scorers.h"

#include <string.h>

#define LISTED(name) &mbl_scorer_##name,
static const mbl_scorer_t *const scorers[] = {MBL_SCORER_LIST(LISTED)};
#undef LISTED
enum { SCORERS = sizeof scorers / sizeof *scorers };

const mbl_scorer_t *mbl_scorer_at(size_t i) {
    return i < SCORERS ? scorers[i] : NULL;
}

const mbl_scorer_t *mbl_scorer_find(const char *name) {
    for (size_t i = 0; i < SCORERS; i++)
        if (strcmp(scorers[i]->name, name) == 0)
            return scorers[i];
    return NULL;
}

const mbl_scorer_key_t *mbl_scorer_key(const mbl_scorer_t *scorer, const char *name) {
    for (const mbl_scorer_key_t *key = scorer->keys; key && key->name; key++)
        if (strcmp(key->name, name) == 0)
            return key;
    return NULL;
}
