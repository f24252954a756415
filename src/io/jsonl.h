/* Lines of JSON: metrics.jsonl and eval.jsonl. One object a line, flushed as written; a resumed run first
 * cuts off the lines of steps it will do again (and a half-written last line). */
#ifndef MBL_IO_JSONL_H
#define MBL_IO_JSONL_H

#include "base/status.h"

#include <jansson.h>

typedef struct mbl_jsonl mbl_jsonl_t;

/* Opens for appending (made when absent) after dropping every line whose "step" exceeds last_step (-1 empties
 * the file) and, with a warning, every line that is no JSON object: the half-written one of a run that died.
 * The shorter file replaces the old one by rename, so a crash in between loses nothing. */
mbl_status_t mbl_jsonl_open(const char *path, long last_step, mbl_jsonl_t **out);
/* Before such a cut: copies those lines, and damaged ones, into the new file `aside`, synced. */
mbl_status_t mbl_jsonl_copy_later(const char *path, long last_step, const char *aside);
/* Every line from now on ends with "run": run. */
void mbl_jsonl_name_run(mbl_jsonl_t *jsonl, const char *run);
/* Writes one object as one line (keys in insertion order, reals with 9 significant digits) with one system
 * call. Takes over the reference, also on failure; NULL (jansson without memory) is ERR_MEM. A line that the
 * disk does not take is no failure: it is held in memory (up to 64 MiB), in order, and written with the next
 * one that finds room, at the latest by close; the log says so, the first time and then at every hundredth.
 * The file always ends with a whole line. */
mbl_status_t mbl_jsonl_write(mbl_jsonl_t *jsonl, json_t *object);
size_t mbl_jsonl_held(const mbl_jsonl_t *jsonl); /* lines in memory alone */
/* The objects of a file whose "step" is at most last_step, as an array (empty without a file); lines that are
 * no objects are left out. Release with json_decref. */
mbl_status_t mbl_jsonl_read(const char *path, size_t last_step, json_t **out);
/* The last of them, whatever its step; NULL when there is none. Release with json_decref. */
json_t *mbl_jsonl_last(const char *path);
/* A real for such an object; null for NaN and infinity, which JSON does not have. */
json_t *mbl_jsonl_real(double value);
/* Logs how many lines are lost if there is still no room for those held. */
void mbl_jsonl_close(mbl_jsonl_t *jsonl);

#endif
