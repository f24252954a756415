/* Who has which of n things that all ranks work through together: an epoch's images, an evaluation's, prompts
 * to encode. Every cut is this one. Ranges are contiguous, in the order of the ranks, and their lengths
 * differ by one at most; rank 0 has as many as any, and each something where there are as many things as
 * ranks. All calls are pure functions.
 *
 * The images of an epoch are numbered group by group: image i belongs to group i / group_size. A range may
 * begin and end inside a group, which then lies on several ranks: whatever compares the images of a group
 * needs what the others have of it (rl/scores.h). */
#ifndef MBL_BASE_SHARE_H
#define MBL_BASE_SHARE_H

#include <stddef.h>

typedef struct {
    size_t first, n;
} mbl_share_t;

/* Of rank `rank` of `ranks`. n * ranks is less than SIZE_MAX. */
mbl_share_t mbl_share(size_t n, size_t ranks, size_t rank);

/* The groups that a share of images has any image of. */
mbl_share_t mbl_share_groups(mbl_share_t images, size_t group_size);

/* The most groups that any rank's share of n images has any image of. */
size_t mbl_share_most_groups(size_t n, size_t ranks, size_t group_size);

#endif
