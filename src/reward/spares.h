/* Boxes that are made once and used anew, so that a rollout submits without allocating once there are enough:
 * structures that begin with an mbl_spare_t, of one size. */
#ifndef MBL_REWARD_SPARES_H
#define MBL_REWARD_SPARES_H

#include "base/status.h"

#include <uv.h>

typedef struct mbl_spare {
    struct mbl_spare *next; /* the user's while it is taken */
} mbl_spare_t;

typedef struct {
    mbl_spare_t *first;
    size_t n;
} mbl_spares_t;

/* At least n of them, of so many bytes each; takes the lock, which guards them. */
mbl_status_t mbl_spares_have(mbl_spares_t *spares, size_t n, size_t bytes, uv_mutex_t *lock);
/* With the lock held. There has to be one to take. */
mbl_spare_t *mbl_spares_take(mbl_spares_t *spares);
void mbl_spares_put(mbl_spares_t *spares, mbl_spare_t *spare);
/* Those that are not taken. */
void mbl_spares_free(mbl_spares_t *spares);

#endif
