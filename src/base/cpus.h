/* The CPUs that this process may use, and how many threads follow from them. */
#ifndef MBL_BASE_CPUS_H
#define MBL_BASE_CPUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    size_t online; /* of the host */
    size_t count;  /* in the affinity mask, whatever the size of the host */
    double quota;  /* CPUs' worth of time that control groups (v1 or v2) grant; 0: without limit */
    /* Equal for processes of one host that have the same mask; or the same group that sets the quota. */
    uint64_t mask, group;
} mbl_cpus_t;

void mbl_cpus_find(mbl_cpus_t *out);
/* The least quota of this process's control group and those around it, with /proc and /sys looked up below
 * `root` ("" but for tests); 0 without one, and *group as above. */
double mbl_cpus_quota(const char *root, uint64_t *group);

/* "4 threads: 8 of 64 CPUs in the affinity mask, for 2 ranks" */
typedef struct {
    int count;
    bool by_mask; /* neither said nor limited by a quota */
    char text[200];
} mbl_threads_t;

/* Threads of a process: `asked` where it is not 0, else the first number of `environment`
 * (OMP_NUM_THREADS; NULL: not set), else the CPUs of its mask over the processes that have the same one, and
 * at most the quota over those that share it. */
void mbl_threads_choose(size_t asked, const char *environment, const mbl_cpus_t *cpus, size_t same_mask,
                        size_t same_group, mbl_threads_t *out);

/* The same for this process alone, by its environment. */
void mbl_threads_alone(mbl_threads_t *out);

#endif
