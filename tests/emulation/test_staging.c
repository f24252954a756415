/* Copies of the cuda backend between pageable memory and the device: what arrives, and how often the host
 * waits for the device. */
#include "support.h"

#include "ops/ops.h"

#include <cuda_runtime_api.h>

#include <stdlib.h>
#include <string.h>

#define OK(expr) assert_int_equal((expr), MBL_OK)
enum { SLOTS = 64, SLOT = 64 << 10, HALF = 8 << 20 };

static int waits;

cudaError_t __real_cudaEventSynchronize(cudaEvent_t event);
cudaError_t __wrap_cudaEventSynchronize(cudaEvent_t event);
cudaError_t __wrap_cudaEventSynchronize(cudaEvent_t event) {
    waits++;
    return __real_cudaEventSynchronize(event);
}

static void put(mbl_ops_t *ops, char *device, const char *host, size_t bytes) {
    OK(ops->table->copy(ops, device, MBL_DEVICE, host, MBL_HOST, bytes));
}

static void get(mbl_ops_t *ops, char *host, const char *device, size_t bytes) {
    OK(ops->table->copy(ops, host, MBL_HOST, device, MBL_DEVICE, bytes));
}

/* 200 uploads of 100 bytes, each from the same memory: the host waits only where the ring is full, and then
 * for the oldest. Where the device is known to be done it does not wait at all. */
static void small_uploads_do_not_wait(void **state) {
    enum { UPLOADS = 200, BYTES = 100 };
    mbl_ops_t *ops;
    void *device;
    char host[BYTES], back[UPLOADS * BYTES];
    (void)state;
    OK(mbl_ops_open("cuda", 1, &ops));
    OK(ops->table->alloc(ops, UPLOADS * BYTES, &device));
    for (int round = 0; round < 3; round++) {
        waits = 0;
        for (int i = 0; i < UPLOADS; i++) {
            memset(host, round * 50 + i, BYTES);
            put(ops, (char *)device + i * BYTES, host, BYTES);
            assert_int_equal(waits, i < SLOTS ? 0 : i + 1 - SLOTS);
        }
        if (round == 1)
            OK(ops->table->sync(ops));
        get(ops, back, device, UPLOADS * BYTES);
        for (int i = 0; i < UPLOADS * BYTES; i++)
            assert_int_equal((unsigned char)back[i], (unsigned char)(round * 50 + i / BYTES));
    }
    ops->table->free(ops, device);
    mbl_ops_close(ops);
}

/* Sizes about a slot's and about a half's, there and back. */
static void any_size_arrives(void **state) {
    const size_t sizes[] = {1, SLOT - 1, SLOT, SLOT + 1, HALF, HALF + 1, 2 * HALF + 12345};
    const size_t most = 2 * HALF + 12345;
    mbl_ops_t *ops;
    void *device;
    char *host = malloc(most), *back = malloc(most);
    (void)state;
    assert_non_null(host);
    assert_non_null(back);
    OK(mbl_ops_open("cuda", 1, &ops));
    OK(ops->table->alloc(ops, most, &device));
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        for (size_t i = 0; i < sizes[s]; i++)
            host[i] = (char)(i * 7 + i / 1000 + s);
        put(ops, device, host, sizes[s]);
        get(ops, back, device, sizes[s]);
        assert_memory_equal(host, back, sizes[s]);
    }
    ops->table->free(ops, device);
    mbl_ops_close(ops);
    free(host);
    free(back);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(small_uploads_do_not_wait),
                                       cmocka_unit_test(any_size_arrives)};
    return cmocka_run_group_tests_name("staging", tests, NULL, NULL);
}
