/* The body of POST /api/control, read. */
#ifndef MBL_SERVICE_REQUEST_H
#define MBL_SERVICE_REQUEST_H

#include "run/control.h"

#include <jansson.h>

enum { MBL_REQUEST_BODY = 16 << 10, MBL_REQUEST_SET = 128, MBL_REQUEST_FAULT = 400 };

typedef struct {
    mbl_control_verb_t verbs[8]; /* in the order they are to be posted in */
    size_t n_verbs;
    char sets[MBL_CONTROL_SETS][MBL_REQUEST_SET]; /* KEY=VALUE */
    size_t n_sets;
} mbl_request_t;

/* Reads the body. `config`: the run's values, whose rewards settings may name (NULL: by number only). False,
 * with what was found and what is expected in `fault`, for anything that the API does not describe. */
bool mbl_request_read(const char *body, size_t size, const json_t *config, mbl_request_t *out,
                      char fault[MBL_REQUEST_FAULT]);
/* {"asked": [...]}, NULL without memory. */
json_t *mbl_request_asked(const mbl_request_t *request);
/* The words of the verbs, ended by NULL: what a body's keys are beside `set`. */
const char *const *mbl_request_verbs(void);

#endif
