/* What a run leaves behind when it goes on from an earlier step. */
#ifndef MBL_RUN_ASIDE_H
#define MBL_RUN_ASIDE_H

#include "base/status.h"

#include <stdbool.h>

/* For a run that goes on from `step` in `folder`: what came after it is moved into a new folder aside-N of it
 * and kept there (checkpoints and samples of later steps, whatever is in them, and their lines of
 * metrics.jsonl, eval.jsonl and advantages.jsonl), and so is what stands among its checkpoints and is none of
 * it: folders, empty files and, where `verify` (which reads each once), damaged ones and those of other runs.
 * All is said. Where a run begins anew since it has no checkpoint, its lines are kept so, too. latest.h5 then
 * names the checkpoint of `step`, or none if that lies elsewhere; a run that leaves checkpoints behind is on
 * another branch from here on (branch.h). Other lines of steps that no checkpoint was
 * written for stay where they are. A crash on the way leaves nothing lost, and the next call goes on with the
 * rest. */
mbl_status_t mbl_aside(const char *folder, const char *run, size_t step, bool verify);

#endif
