/* What a run is made by and with. */
#include "run/identity.h"

#include "base/mem.h"
#include "base/quote.h"
#include "base/version.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { COMMAND = 4096 };

/* The words of /proc/self/cmdline, quoted where a shell needs it, as many as fit. */
static void command_line(char *out, size_t size) {
    char words[COMMAND], quoted[COMMAND];
    FILE *file = fopen("/proc/self/cmdline", "rb");
    size_t length = file ? fread(words, 1, sizeof words - 1, file) : 0, used = 0;
    if (file)
        fclose(file);
    words[length] = 0;
    out[0] = 0;
    for (size_t at = 0; at < length && used < size; at += strlen(words + at) + 1) {
        size_t dashes = strspn(words + at, "-"); /* those of an option need no quotes */
        used += (size_t)snprintf(
            out + used, size - used, "%s%.*s%s", at ? " " : "", (int)dashes, words + at,
            words[at + dashes] || dashes == 0 ? mbl_quote(words + at + dashes, quoted, sizeof quoted) : "");
    }
}

mbl_status_t mbl_identity_program(const mbl_comm_t *comm, char **out) {
    char host[256] = "", command[COMMAND];
    const char *commit = mbl_commit();
    if (gethostname(host, sizeof host - 1) != 0)
        snprintf(host, sizeof host, "an unknown host");
    command_line(command, sizeof command);
    *out = mbl_format("marble %s%s%s%s on %s, %d rank%s: %s", mbl_version(), *commit ? " (commit " : "",
                      commit, *commit ? ")" : "", host, comm->size, comm->size == 1 ? "" : "s", command);
    return *out ? MBL_OK : MBL_FAIL(MBL_ERR_MEM, "no memory to say what this run is made by");
}

mbl_status_t mbl_identity_model(const mbl_engine_t *engine, size_t trained, char **out) {
    const mbl_tensor_t *weights = mbl_dit_weights(mbl_pipeline_model(engine->pipeline));
    int threads = engine->threads.count;
    *out = mbl_format("%s, %s, %d thread%s a rank; %s (digest %.12s), %zu weights, %zu of adapters trained",
                      engine->ops->table->name, mbl_engine_dtype(engine) == MBL_BF16 ? "bf16" : "f32",
                      threads, threads == 1 ? "" : "s", engine->config->model.path,
                      mbl_pipeline_digest(engine->pipeline), mbl_tensor_count(weights), trained);
    return *out ? MBL_OK : MBL_FAIL(MBL_ERR_MEM, "no memory to say what this run is made with");
}
