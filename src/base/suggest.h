/* "Did you mean ...?": the nearest word of a list. */
#ifndef MBL_BASE_SUGGEST_H
#define MBL_BASE_SUGGEST_H

#include <stdbool.h>
#include <stddef.h>

/* Edits (insert, delete, replace, swap of neighbours; case is free) that turn a into b; words are read up to
 * 64 letters. */
size_t mbl_edit_distance(const char *a, const char *b);

/* Keeps the better of two guesses: *best is replaced by `candidate` when that is near enough to `word` and
 * nearer than *distance. Start with *best = NULL. */
void mbl_suggest(const char *word, const char *candidate, const char **best, size_t *distance);

/* "; did you mean WORD?" for such a guess with `before` in front of it ("--"), or "" for NULL; into out,
 * which is returned. */
enum { MBL_SUGGESTED = 256 };
const char *mbl_suggested(const char *before, const char *best, char out[MBL_SUGGESTED]);

/* Whether a path is the name of a model on a hub, "owner/name", rather than one that was mistyped. */
bool mbl_is_hub_name(const char *path);

#endif
