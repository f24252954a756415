/* The service without sockets: a request's path in, an answer out, from the folders of runs
 * (proto/openapi-service.yaml). A live run's service and `marble dash` answer by it alike. One thread. */
#ifndef MBL_SERVICE_API_H
#define MBL_SERVICE_API_H

#include "run/events.h"
#include "service/answer.h"
#include "service/view.h"

/* What only the process that answers knows. */
typedef struct {
    bool live; /* the first folder's run is this process's: the next four are known */
    mbl_phase_t phase;
    double since; /* of the phase, by mbl_now */
    int ranks;
    bool asked_pause;
    bool control; /* requests to /api/control are taken */
    char session[17];
    uint64_t clients, requests, refused, dropped;
} mbl_api_facts_t;

typedef struct {
    mbl_view_t *views;
    size_t n;
    mbl_api_facts_t facts; /* the caller keeps them up to date */
} mbl_api_t;

/* Over the folders of n runs. Close with mbl_api_close, after a failure too. */
mbl_status_t mbl_api_open(const char *const *folders, size_t n, mbl_api_t *out);
void mbl_api_close(mbl_api_t *api);

/* The answer to GET `path`, with what stands behind its '?' ("" for nothing), both as the client sent them
 * but for %xx. A failure is one of this process; what the client did wrong is an answer with its code. Free
 * with mbl_answer_free. */
mbl_status_t mbl_api_get(mbl_api_t *api, const char *path, const char *query, mbl_answer_t *out);

/* The object of /api/status. */
json_t *mbl_api_status(const mbl_api_t *api, size_t run);

#endif
