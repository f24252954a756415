/* Who works in a run's folder: a process, by what another one can know of it, on the same host or elsewhere.
 */
#ifndef MBL_RUN_HOLDER_H
#define MBL_RUN_HOLDER_H

#include "base/status.h"

#include <stdbool.h>

typedef struct {
    char host[72], boot[40],
        space[40]; /* boot: of that host's kernel; space: of the process numbers it sees */
    long long pid,
        start; /* start: ticks after the boot, which distinguishes it from a later process of that number */
    char cluster[72], job[40], step[24], restart[16]; /* of Slurm; "" outside */
} mbl_holder_t;
enum { MBL_HOLDER_TEXT = 640 };

/* This process. */
void mbl_holder_self(mbl_holder_t *out);
/* As a line of JSON, into out [MBL_HOLDER_TEXT], and back; false for anything else. */
void mbl_holder_write(const mbl_holder_t *holder, char *out);
bool mbl_holder_read(const char *text, mbl_holder_t *out);
/* "pid 12 on host a (job 7 of Slurm)", into out [MBL_HOLDER_TEXT]; returns out. */
const char *mbl_holder_name(const mbl_holder_t *holder, char *out);

/* What `asking` can know of another: it runs, it has ended (`why`, a constant string, says how that is
 * known), or neither. Asks Slurm about a job of the same cluster, which takes a moment. */
typedef enum { MBL_HOLDER_RUNS, MBL_HOLDER_ENDED, MBL_HOLDER_UNKNOWN } mbl_holder_state_t;
mbl_holder_state_t mbl_holder_state(const mbl_holder_t *holder, const mbl_holder_t *asking, const char **why);
/* Whether the other is a process of this host that can be sent a signal by its pid. */
bool mbl_holder_is_near(const mbl_holder_t *holder, const mbl_holder_t *asking);

#endif
