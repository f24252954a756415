/* What must hold of anything that comes out of proto/, whatever a server sent. Each returns NULL, or what is
 * wrong. */
#ifndef MBL_TESTS_PROTO_CHECKS_H
#define MBL_TESTS_PROTO_CHECKS_H

#include "proto/codec.h"
#include "proto/text.h"

#include <math.h>
#include <string.h>

/* One line of at most `most` bytes that printing would not change. */
static inline bool is_shown(const char *text, size_t most) {
    char copy[1200];
    size_t n = strlen(text);
    return n <= most && mbl_proto_is_utf8(text, n) && mbl_proto_printable(text, n, copy, sizeof copy) == n &&
           memcmp(text, copy, n) == 0;
}

static inline const char *error_trouble(mbl_status_t status, const mbl_proto_error_t *error) {
    if (status == MBL_OK)
        return error->kind == MBL_PROTO_ERROR_NONE ? NULL : "an error beside MBL_OK";
    if (status != MBL_ERR_REWARD)
        return "neither MBL_OK nor MBL_ERR_REWARD";
    if (error->kind <= MBL_PROTO_ERROR_NONE || error->kind >= MBL_PROTO_ERROR_COUNT)
        return "a failure without a kind";
    if (!*error->text || !is_shown(error->text, MBL_PROTO_ERROR_TEXT - 1))
        return "an error whose text is empty or not fit to print";
    if (!(error->retry_after >= 0 && error->retry_after <= MBL_PROTO_RETRY_AFTER_MAX))
        return "a wait out of range";
    return NULL;
}

static inline const char *result_trouble(mbl_status_t status, const mbl_proto_result_t *result, size_t n,
                                         size_t outputs) {
    if (status != MBL_OK)
        return result->n == 0 && result->outputs == 0 ? NULL : "scores beside a failure";
    if (result->n != n || result->outputs != outputs)
        return "another number of scores";
    for (size_t i = 0; i < n * outputs; i++) {
        if (result->states[i] > MBL_PROTO_FAILED)
            return "a state that does not exist";
        if (!isfinite(result->scores[i]) || (result->states[i] != MBL_PROTO_VALID && result->scores[i] != 0))
            return "a score that is not finite, or not 0 though it is not valid";
        if (result->reasons[i] &&
            (!*result->reasons[i] || !is_shown(result->reasons[i], MBL_PROTO_REASON_MAX)))
            return "a reason that is empty or not fit to print";
    }
    return NULL;
}

#endif
