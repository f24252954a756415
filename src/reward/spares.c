#include "reward/spares.h"

#include "base/mem.h"

mbl_status_t mbl_spares_have(mbl_spares_t *spares, size_t n, size_t bytes, uv_mutex_t *lock) {
    uv_mutex_lock(lock);
    size_t have = spares->n;
    uv_mutex_unlock(lock);
    for (; have < n; have++) {
        mbl_spare_t *spare = mbl_calloc(1, bytes);
        if (!spare)
            return MBL_FAIL(MBL_ERR_MEM, "no memory for %zu bytes", bytes);
        uv_mutex_lock(lock);
        mbl_spares_put(spares, spare);
        uv_mutex_unlock(lock);
    }
    return MBL_OK;
}

mbl_spare_t *mbl_spares_take(mbl_spares_t *spares) {
    mbl_spare_t *spare = spares->first;
    spares->first = spare->next;
    spares->n--;
    return spare;
}

void mbl_spares_put(mbl_spares_t *spares, mbl_spare_t *spare) {
    spare->next = spares->first;
    spares->first = spare;
    spares->n++;
}

void mbl_spares_free(mbl_spares_t *spares) {
    for (mbl_spare_t *spare = spares->first, *next; spare; spare = next) {
        next = spare->next;
        mbl_free(spare);
    }
}
