/* JSON from a server: nothing is parsed before its nesting and the number of its values are known to be
 * within limits. */
#ifndef MBL_PROTO_JSON_H
#define MBL_PROTO_JSON_H

#include "base/status.h"
#include "proto/codec.h"

#include <jansson.h>

/* Fills *error, one printable line, and returns MBL_ERR_REWARD. */
mbl_status_t mbl_proto_fault(mbl_proto_error_t *error, mbl_proto_error_kind_t kind, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Any JSON value, strict but for NaN, Infinity and -Infinity, which some servers write and which read as
 * null. `what` names it in *error ("the metadata of the server"). Errors: ERR_REWARD (MALFORMED, LIMIT),
 * ERR_MEM. Release with json_decref. */
mbl_status_t mbl_proto_json(const void *text, size_t size, const char *what, json_t **out,
                            mbl_proto_error_t *error);
/* The same, and an object. */
mbl_status_t mbl_proto_json_object(const void *text, size_t size, const char *what, json_t **out,
                                   mbl_proto_error_t *error);

/* A value for a message: its JSON, cut to `room`, at least 16; "nothing" for NULL. Returns out. */
const char *mbl_proto_json_show(const json_t *value, char *out, size_t room);

/* Required members; MALFORMED with `what`, the key, what was found and what is expected. */
mbl_status_t mbl_proto_json_string(const json_t *object, const char *what, const char *key, const char **out,
                                   mbl_proto_error_t *error);
mbl_status_t mbl_proto_json_array(const json_t *object, const char *what, const char *key, size_t max,
                                  const json_t **out, mbl_proto_error_t *error);

#endif
