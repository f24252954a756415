/* What the environment says about the launcher, so that a process which nobody launched never touches MPI.
 */
#include "comm/comm.h"

#include <stdlib.h>

/* The value of a variable that holds a small number; `none` when it is unset or something else. */
static int number(const char *name, int none) {
    const char *text = getenv(name);
    if (!text || !*text)
        return none;
    char *end;
    long value = strtol(text, &end, 10);
    return *end || value < 0 || value > 1 << 24 ? none : (int)value;
}

int mbl_comm_launched(int *rank, bool *can_join) {
    /* Size and rank by launcher: Open MPI, MPICH's Hydra (and Slurm's PMI-2). */
    static const char *const known[][2] = {{"OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"},
                                           {"PMI_SIZE", "PMI_RANK"}};
    int found_rank = 0, size = 1;
    bool join = true;
    size_t i = 0, n = sizeof known / sizeof known[0];
    while (i < n && number(known[i][0], 0) == 0)
        i++;
    if (i < n) {
        size = number(known[i][0], 1);
        found_rank = number(known[i][1], 0);
    } else if (number("PMIX_RANK", -1) >= 0) {
        /* srun --mpi=pmix; another PMIx launcher states no size, so assume it started more than one */
        size = number("SLURM_STEP_NUM_TASKS", number("SLURM_NTASKS", 2));
        found_rank = number("PMIX_RANK", 0);
    } else if (number("SLURM_STEP_NUM_TASKS", 1) > 1 && number("SLURM_PROCID", -1) >= 0) {
        /* srun --mpi=none: each task would believe itself alone */
        size = number("SLURM_STEP_NUM_TASKS", 1);
        found_rank = number("SLURM_PROCID", 0);
        join = false;
    }
    if (rank)
        *rank = found_rank;
    if (can_join)
        *can_join = join;
    return size;
}
