/* What distinguishes a run from every other: 64 random bits, made when it begins, in run.yaml, in every
 * checkpoint and line. */
#ifndef MBL_RUN_RUN_ID_H
#define MBL_RUN_RUN_ID_H

#include "base/status.h"

#include <stdbool.h>
#include <limits.h>

enum { MBL_RUN_ID = 17, MBL_RUN_HEAD = PATH_MAX + 512 };

/* What the head of a run.yaml says: which run, and what RUN.yaml it was begun with. "" where it does not. */
typedef struct {
    char id[MBL_RUN_ID], from[PATH_MAX];
} mbl_run_head_t;

/* 16 hexadecimal digits from the kernel's random numbers. */
mbl_status_t mbl_run_id_make(char out[MBL_RUN_ID]);
bool mbl_run_id_is(const char *text);
/* The lines for the comment of run.yaml (mbl_config_write), into out [MBL_RUN_HEAD]. */
void mbl_run_head_write(const mbl_run_head_t *head, char *out);
/* Those of folder/run.yaml; the id else from the last line of metrics.jsonl (run.yaml may have been through
 * other hands). Nothing there is no failure. */
void mbl_run_head_read(const char *folder, mbl_run_head_t *out);

#endif
