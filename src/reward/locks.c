#include "reward/locks.h"

mbl_status_t mbl_reward_locks_open(uv_mutex_t *lock, uv_cond_t *a, uv_cond_t *b) {
    int error = uv_mutex_init(lock);
    if (error)
        return MBL_FAIL(MBL_ERR_MEM, "a lock for rewards: %s", uv_strerror(error));
    error = uv_cond_init(a);
    if (!error && (error = uv_cond_init(b)) != 0)
        uv_cond_destroy(a);
    if (error) {
        uv_mutex_destroy(lock);
        return MBL_FAIL(MBL_ERR_MEM, "a lock for rewards: %s", uv_strerror(error));
    }
    return MBL_OK;
}

void mbl_reward_locks_close(uv_mutex_t *lock, uv_cond_t *a, uv_cond_t *b) {
    uv_cond_destroy(b);
    uv_cond_destroy(a);
    uv_mutex_destroy(lock);
}
