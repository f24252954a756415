/* What distinguishes a run from every other. */
#include "run/run_id.h"

#include "base/mem.h"
#include "io/jsonl.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

static const char run_key[] = "# run: ", from_key[] = "# from: ";
enum { HEAD_LINES = 12 };

mbl_status_t mbl_run_id_make(char out[MBL_RUN_ID]) {
    uint64_t bits;
    ssize_t n;
    do
        n = getrandom(&bits, sizeof bits, 0);
    while (n < 0 && errno == EINTR);
    if (n != (ssize_t)sizeof bits)
        return MBL_FAIL(MBL_ERR_IO, "the system gives no random number for the run's id: %s",
                        strerror(errno));
    snprintf(out, MBL_RUN_ID, "%016llx", (unsigned long long)bits);
    return MBL_OK;
}

bool mbl_run_id_is(const char *text) {
    return strlen(text) == MBL_RUN_ID - 1 && strspn(text, "0123456789abcdef") == MBL_RUN_ID - 1;
}

void mbl_run_head_write(const mbl_run_head_t *head, char *out) {
    int n = snprintf(out, MBL_RUN_HEAD, "%s%s\n", run_key + 2, head->id);
    if (!head->from[0])
        return;
    char *from = out + n + sizeof from_key - 3;
    snprintf(out + n, MBL_RUN_HEAD - (size_t)n, "%s%s\n", from_key + 2, head->from);
    for (; from[0] && from[1]; from++) /* a name with a line's end in it stays in the comment */
        if ((unsigned char)*from < 0x20)
            *from = '?';
}

static void take(const char *line, const char *key, char *out, size_t size) {
    size_t n = strlen(key), length = strcspn(line, "\r\n");
    if (strncmp(line, key, n) == 0 && length > n)
        snprintf(out, size, "%.*s", (int)(length - n), line + n);
}

void mbl_run_head_read(const char *folder, mbl_run_head_t *out) {
    char *yaml = mbl_format("%s/run.yaml", folder), *metrics = mbl_format("%s/metrics.jsonl", folder);
    char line[PATH_MAX + 64];
    FILE *file = yaml ? fopen(yaml, "re") : NULL;
    memset(out, 0, sizeof *out);
    for (int i = 0; file && i < HEAD_LINES && fgets(line, sizeof line, file); i++) {
        take(line, run_key, out->id, sizeof out->id);
        take(line, from_key, out->from, sizeof out->from);
    }
    if (file)
        fclose(file);
    if (!mbl_run_id_is(out->id)) {
        json_t *last = metrics ? mbl_jsonl_last(metrics) : NULL;
        const char *id = json_string_value(json_object_get(last, "run"));
        snprintf(out->id, sizeof out->id, "%s", id && mbl_run_id_is(id) ? id : "");
        json_decref(last);
    }
    mbl_free(yaml);
    mbl_free(metrics);
}
