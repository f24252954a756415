/* The branches of a run. */
#include "run/branch.h"

#include "base/clock.h"
#include "base/mem.h"
#include "io/jsonl.h"

#include <limits.h>
#include <string.h>

static mbl_status_t path_of(const char *folder, char **out) {
    *out = mbl_format("%s/branches.jsonl", folder);
    return *out ? MBL_OK : MBL_FAIL(MBL_ERR_MEM, "%s: no memory for a path", folder);
}

static mbl_status_t take(const json_t *lines, mbl_branches_t *out) {
    mbl_branches_t branches = {.n = json_array_size(lines)};
    if (branches.n > 0)
        MBL_ALLOC(branches.back, branches.n);
    for (size_t i = 0; i < branches.n; i++)
        branches.back[i] = (size_t)json_integer_value(json_object_get(json_array_get(lines, i), "step"));
    *out = branches;
    return MBL_OK;
}

mbl_status_t mbl_branches_read(const char *folder, mbl_branches_t *out) {
    char *path;
    json_t *lines = NULL;
    MBL_TRY(path_of(folder, &path));
    memset(out, 0, sizeof *out);
    mbl_status_t status = mbl_jsonl_read(path, LONG_MAX, &lines);
    if (status == MBL_OK)
        status = take(lines, out);
    json_decref(lines);
    mbl_free(path);
    return status;
}

void mbl_branches_free(mbl_branches_t *branches) {
    mbl_free(branches->back);
    memset(branches, 0, sizeof *branches);
}

mbl_status_t mbl_branches_add(const char *folder, size_t step) {
    char *path, date[32];
    mbl_jsonl_t *lines = NULL;
    MBL_TRY(path_of(folder, &path));
    mbl_status_t status = mbl_jsonl_open(path, LONG_MAX, &lines);
    if (status == MBL_OK)
        status =
            mbl_jsonl_write(lines, json_pack("{s:I,s:s}", "step", (json_int_t)step, "time", mbl_date(date)));
    if (status == MBL_OK && mbl_jsonl_held(lines) > 0)
        status =
            MBL_FAIL(MBL_ERR_IO, "%s: cannot be written; the run does not go back to step %zu", path, step);
    mbl_jsonl_close(lines);
    mbl_free(path);
    return status;
}

mbl_ckpt_lineage_t mbl_branches_lineage(const mbl_branches_t *branches, const char *run) {
    return (mbl_ckpt_lineage_t){.run = run, .back = branches->back, .n = branches->n};
}
