/* What a client of /api/stream is sent, one message at a time. A cursor is all that is kept of a client, so a
 * slow one costs nothing: what it is behind stays in the files, and the oldest is left out and counted. */
#ifndef MBL_SERVICE_STREAM_H
#define MBL_SERVICE_STREAM_H

#include "service/api.h"

enum { MBL_STREAM_BEHIND = 2000 }; /* lines of a file that a client may be behind */

typedef struct {
    size_t run;
    bool greeted;
    size_t at[3];                 /* lines of metrics, eval, gram that were sent or left out */
    uint64_t generation[3];       /* of those files */
    uint64_t advantages, samples; /* the last step known; SIZE_MAX: none */
    int64_t log;                  /* bytes of log.txt */
    char state[96];               /* what the last status said, shortened */
    double status_at;             /* when it was sent, by mbl_now */
} mbl_stream_t;

/* A client of that run: `from` (given) is the first step whose lines it wants, else only new ones follow. */
void mbl_stream_begin(const mbl_api_t *api, size_t run, bool given, uint64_t from, mbl_stream_t *out);
/* The next message, JSON of *size bytes with `room` bytes unused before it; NULL: there is none now. Free
 * with mbl_free. */
char *mbl_stream_next(mbl_api_t *api, mbl_stream_t *stream, size_t room, size_t *size);

#endif
