/* A run's folder as the service sees it: indexes of its files of lines, its configuration, its samples, who
 * works in it. Nothing outside the folder is opened: names are fixed, links are not followed. */
#ifndef MBL_SERVICE_VIEW_H
#define MBL_SERVICE_VIEW_H

#include "run/run_id.h"
#include "service/lines.h"

enum { MBL_VIEW_RECENT = 20, MBL_VIEW_EVENTS = 1000 };

typedef enum {
    MBL_VIEW_RUNNING,
    MBL_VIEW_FINISHED,
    MBL_VIEW_ENDED,  /* before its last step */
    MBL_VIEW_UNKNOWN /* whether anybody still works there */
} mbl_view_state_t;

typedef struct {
    char *path;
    char name[256]; /* the last part of the path */
    int fd;
    mbl_lines_t metrics, evals, gram, advantages;
    /* from metrics.jsonl */
    json_t *totals;                  /* by reward: {"valid", "na", "failed"}, images of all steps */
    json_t *alarms;                  /* [{"step", "alarm"}], the last MBL_VIEW_EVENTS */
    json_t *alarm_counts;            /* by alarm, of the last line */
    double seconds[MBL_VIEW_RECENT]; /* of the last steps, a ring */
    /* from run.yaml */
    char *yaml;     /* NULL: there is none */
    json_t *config; /* NULL: it cannot be understood */
    struct timespec changed;
    char id[MBL_RUN_ID];
    /* samples/step-N.png */
    uint64_t *samples; /* [n_samples], rising */
    size_t n_samples;
    struct timespec sampled; /* the folder's time then */
    mbl_view_state_t state;
    double state_at; /* when that was found out, by mbl_now */
    char host[80];   /* of the process there, "" where nobody is */
} mbl_view_t;

/* ERR_IO where there is no such folder. Close with mbl_view_close, after a failure too. */
mbl_status_t mbl_view_open(const char *path, mbl_view_t *out);
void mbl_view_close(mbl_view_t *view);
/* Reads what is new in all of it. */
mbl_status_t mbl_view_refresh(mbl_view_t *view);

/* Steps done, by the last line; steps to do, 0 where that is not known; mean seconds of the last steps, NAN
 * without any. */
uint64_t mbl_view_step(const mbl_view_t *view);
uint64_t mbl_view_steps(const mbl_view_t *view);
double mbl_view_pace(const mbl_view_t *view);
/* A whole file of the folder with a 0 behind it, at most `most` bytes from its end (0: all, up to 1 MiB),
 * with passwords in URLs replaced by ***; NULL where there is none. Free with mbl_free. */
char *mbl_view_text(const mbl_view_t *view, const char *name, size_t most, size_t *size);
/* A file of the folder, such as "samples/step-000020.png", open for reading, and its size; -1 where there is
 * none. Links are none. */
int mbl_view_file(const mbl_view_t *view, const char *name, int64_t *size);

#endif
