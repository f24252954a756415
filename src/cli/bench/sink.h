/* A reward server for benchmarks: takes whatever it is sent and answers at once. */
#ifndef MBL_CLI_BENCH_SINK_H
#define MBL_CLI_BENCH_SINK_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct mbl_bench_sink mbl_bench_sink_t;

/* Listens on a free port of 127.0.0.1, or on a socket beside its other files; a thread for each connection.
 * It speaks the Open Inference Protocol with binary tensors: a model "m" that scores every request of
 * `images` images 0.5. Close with mbl_bench_sink_close; NULL is fine. */
mbl_status_t mbl_bench_sink_open(bool local, size_t images, mbl_bench_sink_t **out);
void mbl_bench_sink_close(mbl_bench_sink_t *sink);
/* http://127.0.0.1:PORT, or unix:PATH. */
const char *mbl_bench_sink_url(const mbl_bench_sink_t *sink);

/* A connection to it without any HTTP client, for the time that the bytes alone take; close() ends it. */
mbl_status_t mbl_bench_sink_connect(const mbl_bench_sink_t *sink, int *fd);

#endif
