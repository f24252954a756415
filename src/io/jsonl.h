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
/* Writes one object as one line (keys in insertion order, reals with 9 significant digits) with one system
 * call. Takes over the reference, also on failure; NULL (jansson without memory) is ERR_MEM. After ERR_IO the
 * file ends with the last whole line. */
mbl_status_t mbl_jsonl_write(mbl_jsonl_t *jsonl, json_t *object);
/* The objects of a file whose "step" is at most last_step, as an array (empty without a file); lines that are
 * no objects are left out. Release with json_decref. */
mbl_status_t mbl_jsonl_read(const char *path, size_t last_step, json_t **out);
/* A real for such an object; null for NaN and infinity, which JSON does not have. */
json_t *mbl_jsonl_real(double value);
void mbl_jsonl_close(mbl_jsonl_t *jsonl);

#endif
