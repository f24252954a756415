/* The branches of a run: it begins a new one whenever it goes on from an earlier step and leaves later
 * checkpoints behind. branches.jsonl of its folder has a line for each, so that a checkpoint of a branch that
 * was left, copied back among the others, is known for what it is. */
#ifndef MBL_RUN_BRANCH_H
#define MBL_RUN_BRANCH_H

#include "base/status.h"
#include "io/checkpoint.h"

typedef struct {
    size_t n, *back; /* [n] the step that branch i was left at: branch i + 1 goes on from there */
} mbl_branches_t;

/* Those of a folder; none where it has no such file. Free with mbl_branches_free. Local. */
mbl_status_t mbl_branches_read(const char *folder, mbl_branches_t *out);
void mbl_branches_free(mbl_branches_t *branches);
/* The run goes on from `step`, in a new branch. Local. */
mbl_status_t mbl_branches_add(const char *folder, size_t step);
/* What is looked for among checkpoints: those of `run` (NULL: any) that its present branch comes from. */
mbl_ckpt_lineage_t mbl_branches_lineage(const mbl_branches_t *branches, const char *run);

#endif
