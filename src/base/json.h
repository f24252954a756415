/* JSON from files, read strictly: no duplicate keys, and errors that say file, key, what was found and what
 * is expected. */
#ifndef MBL_BASE_JSON_H
#define MBL_BASE_JSON_H

#include "base/status.h"

#include <jansson.h>
#include <stdbool.h>

/* A whole file, which must hold one JSON object; ERR_IO or ERR_FORMAT. Release with json_decref. */
mbl_status_t mbl_json_read(const char *path, json_t **out);
/* The same of FOLDER/NAME; where it is `optional` and not there, *out stays. */
mbl_status_t mbl_json_read_in(const char *folder, const char *name, bool optional, json_t **out);
/* Writes `json` indented, atomically. */
mbl_status_t mbl_json_write(const char *path, const json_t *json);

/* Values of `object`, which came from `path`. A value absent or null: ERR_CONFIG when `required`, else *out
 * stays. A value of another type or outside the range: ERR_CONFIG with file, key, found, right. Strings live
 * as long as the object. */
mbl_status_t mbl_json_size(const json_t *object, const char *path, const char *key, bool required, size_t min,
                           size_t max, size_t *out);
mbl_status_t mbl_json_real(const json_t *object, const char *path, const char *key, bool required, double min,
                           double max, double *out);
mbl_status_t mbl_json_string(const json_t *object, const char *path, const char *key, bool required,
                             const char **out);

/* The value of "a.b.c" in objects within objects; NULL without one. */
const json_t *mbl_json_at(const json_t *root, const char *key);
/* The beginning of a value as compact JSON, "?" for none, for messages; returns out. */
const char *mbl_json_shown(const json_t *value, char out[200]);

#endif
