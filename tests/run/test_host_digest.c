/* src/run/engine.c, prompt_encode.c: how many threads score; the files of the transformer and of the text
 * encoders are digested once on every host, by its first rank, for all its ranks.
 *
 * ctest-ranks: 1 3
 * ctest-wrap: mbl_pipeline_digest_of mbl_text_digest */
#include "ranks.h"
#include "run/engine.h"

#include <string.h>

static mbl_comm_t *comm;
static int digests, of_text;
static char folder[64]; /* of all ranks */

mbl_status_t __real_mbl_pipeline_digest_of(const char *folder, int threads, const volatile sig_atomic_t *stop,
                                           char out[MBL_SHA256_HEX]);
mbl_status_t __wrap_mbl_pipeline_digest_of(const char *folder, int threads, const volatile sig_atomic_t *stop,
                                           char out[MBL_SHA256_HEX]);

mbl_status_t __wrap_mbl_pipeline_digest_of(const char *folder, int threads, const volatile sig_atomic_t *stop,
                                           char out[MBL_SHA256_HEX]) {
    digests++;
    return __real_mbl_pipeline_digest_of(folder, threads, stop, out);
}

mbl_status_t __real_mbl_text_digest(const mbl_text_t *text, char out[MBL_SHA256_HEX]);
mbl_status_t __wrap_mbl_text_digest(const mbl_text_t *text, char out[MBL_SHA256_HEX]);

mbl_status_t __wrap_mbl_text_digest(const mbl_text_t *text, char out[MBL_SHA256_HEX]) {
    of_text++;
    return __real_mbl_text_digest(text, out);
}

static const char yaml[] = "model: {path: " MBL_SOURCE_DIR "/deploy/examples/signs-base}\n"
                           "device: cpu\nthreads: 1\nrewards: [{name: clean}]\n"
                           "prompts: {train_count: 8, test_count: 4, groups: 4, group_size: 2, cache: %s}\n";

/* One where the processor computes images, too; else all but one of the rank's, within what a pool takes. */
static void threads_that_score(void **state) {
    (void)state;
    assert_int_equal(mbl_engine_scorer_threads(MBL_HOST, 16), 1);
    assert_int_equal(mbl_engine_scorer_threads(MBL_DEVICE, 1), 1);
    assert_int_equal(mbl_engine_scorer_threads(MBL_DEVICE, 2), 1);
    assert_int_equal(mbl_engine_scorer_threads(MBL_DEVICE, 16), 15);
    assert_int_equal(mbl_engine_scorer_threads(MBL_DEVICE, 4096), MBL_SCORER_THREADS);
}

/* Opens an engine: this rank has read the files for it, or not. */
static void open_engine(const char *expected, bool reads) {
    mbl_config_t *config;
    mbl_engine_t engine;
    char text[sizeof yaml + sizeof folder];
    const int size = snprintf(text, sizeof text, yaml, folder);
    digests = of_text = 0;
    assert_int_equal(mbl_config_parse(text, (size_t)size, "run.yaml", NULL, 0, &config), MBL_OK);
    assert_int_equal(mbl_engine_open(config, comm, &engine), MBL_OK);
    assert_string_equal(mbl_pipeline_digest(engine.pipeline), expected);
    mbl_engine_close(&engine);
    mbl_config_free(config);
    assert_int_equal(digests, reads);
    assert_int_equal(of_text, reads);
}

static void once_on_a_host(void **state) {
    char expected[MBL_SHA256_HEX];
    const int rank = comm->rank, last = comm->size - 1, host = comm->host, local_rank = comm->local_rank,
              local_size = comm->local_size;
    (void)state;
    if (rank == 0)
        temporary_folder(folder);
    assert_int_equal(mbl_comm_bcast(comm, folder, sizeof folder, 0), MBL_OK);
    assert_int_equal(
        __real_mbl_pipeline_digest_of(MBL_SOURCE_DIR "/deploy/examples/signs-base", 1, NULL, expected),
        MBL_OK);
    open_engine(expected, rank == 0);
    if (last > 0) { /* as if the last rank had a host of its own, which is called by its first rank */
        comm->host = rank == last ? last : 0;
        comm->local_rank = rank == last ? 0 : rank;
        comm->local_size = rank == last ? 1 : last;
        open_engine(expected, rank == 0 || rank == last);
    }
    comm->host = host;
    comm->local_rank = local_rank;
    comm->local_size = local_size;
    if (rank == 0)
        remove_folder(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(threads_that_score),
                                       cmocka_unit_test(once_on_a_host)};
    return RUN_ON_RANKS(&comm, tests);
}
