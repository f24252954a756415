/* A lock with its two conditions, as the scorer pool and the client of a server have one. */
#ifndef MBL_REWARD_LOCKS_H
#define MBL_REWARD_LOCKS_H

#include "base/status.h"

#include <uv.h>

/* All three or none. */
mbl_status_t mbl_reward_locks_open(uv_mutex_t *lock, uv_cond_t *a, uv_cond_t *b);
void mbl_reward_locks_close(uv_mutex_t *lock, uv_cond_t *a, uv_cond_t *b);

#endif
