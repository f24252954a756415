/* Lines of JSON: metrics.jsonl and eval.jsonl. One object a line, flushed as written; a resumed run first
 * cuts off the lines of steps it will do again (and a half-written last line). */
#ifndef MBL_IO_JSONL_H
#define MBL_IO_JSONL_H

#include "base/status.h"

#include <jansson.h>

typedef struct mbl_jsonl mbl_jsonl_t;

/* Opens for appending after dropping every line whose "step" exceeds last_step (-1 empties the file). */
mbl_status_t mbl_jsonl_open(const char *path, long last_step, mbl_jsonl_t **out);
/* Writes one object (keys in insertion order, reals with 9 significant digits; NaN and infinity as null).
 * Takes over the reference. */
mbl_status_t mbl_jsonl_write(mbl_jsonl_t *jsonl, json_t *object);
void mbl_jsonl_close(mbl_jsonl_t *jsonl);

#endif
