/* What a run leaves behind when it goes on from an earlier step. */
#include "run/aside.h"

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "io/checkpoint.h"
#include "io/jsonl.h"
#include "run/branch.h"
#include "run/rundir.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const line_files[] = {"metrics.jsonl", "eval.jsonl", "advantages.jsonl", "gram.jsonl"};

enum { ROOM = 640 };
typedef struct {
    const char *folder;
    mbl_ckpt_lineage_t lineage;
    size_t step, later, highest; /* later: checkpoints of steps after it */
    bool verify;
    char to[ROOM]; /* the folder aside, "" until one is needed */
} aside_t;

static mbl_status_t join(char out[ROOM], const char *a, const char *b, const char *c) {
    int n = snprintf(out, ROOM, "%s/%s%s%s", a, b, *c ? "/" : "", c);
    return n > 0 && n < ROOM ? MBL_OK : MBL_FAIL(MBL_ERR_ARG, "%s: the path is too long", a);
}

/* The first aside-N that is not there yet, with its folder `kind`. */
static mbl_status_t make_place(aside_t *a, const char *kind) {
    char path[ROOM];
    for (unsigned n = 1; !a->to[0]; n++) {
        char name[32];
        snprintf(name, sizeof name, "aside-%u", n);
        MBL_TRY(join(path, a->folder, name, ""));
        if (mkdir(path, 0777) == 0)
            snprintf(a->to, sizeof a->to, "%s", path);
        else if (errno != EEXIST)
            return MBL_FAIL(MBL_ERR_IO, "%s: the folder cannot be made: %s", path, strerror(errno));
    }
    MBL_TRY(join(path, a->to, kind, ""));
    return mbl_folder_make(path);
}

static mbl_status_t move(aside_t *a, const char *kind, const char *name) {
    char from[ROOM], to[ROOM];
    MBL_TRY(make_place(a, kind));
    MBL_TRY(join(from, a->folder, kind, name));
    MBL_TRY(join(to, a->to, kind, name));
    if (rename(from, to) != 0)
        return MBL_FAIL(MBL_ERR_IO, "%s: cannot be moved to %s: %s", from, to, strerror(errno));
    return MBL_OK;
}

/* Why a file is no checkpoint of this run; NULL when it is one, or may be. */
static mbl_status_t judge(const aside_t *a, const char *name, const char **why) {
    char path[ROOM];
    mbl_ckpt_origin_t origin;
    struct stat about;
    MBL_TRY(join(path, a->folder, "checkpoints", name));
    *why = NULL;
    if (stat(path, &about) != 0 || !S_ISREG(about.st_mode) || about.st_size == 0) {
        *why = "no file with anything in it";
        return MBL_OK;
    }
    if (!a->verify)
        return MBL_OK;
    mbl_fail_quiet(1);
    mbl_status_t status = mbl_ckpt_origin(path, &origin);
    mbl_fail_quiet(0);
    if (status == MBL_ERR_MEM)
        return MBL_FAIL(status, "%s: no memory to read it", path);
    *why = status == MBL_OK ? mbl_ckpt_stranger(&origin, &a->lineage) : "damaged";
    return MBL_OK;
}

static mbl_status_t visit_checkpoint(aside_t *a, const char *name) {
    size_t step;
    const char *why;
    if (!mbl_ckpt_parse_step(name, "", &step))
        return MBL_OK;
    if (step == a->step) /* what the run goes on from was verified when it was read */
        return MBL_OK;
    MBL_TRY(judge(a, name, &why));
    if (step > a->step && !why) {
        a->later++;
        a->highest = step > a->highest ? step : a->highest;
        return move(a, "checkpoints", name);
    }
    if (!why)
        return MBL_OK;
    MBL_TRY(move(a, "checkpoints", name));
    MBL_WARN("%s/checkpoints/%s: no checkpoint of this run (%s); it is now in %s", a->folder, name, why,
             a->to);
    return MBL_OK;
}

static mbl_status_t visit_sample(aside_t *a, const char *name) {
    static const char *const ends[] = {"png", "json"};
    size_t step;
    char again[64];
    if (sscanf(name, "step-%zu.", &step) != 1 || step <= a->step)
        return MBL_OK;
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        snprintf(again, sizeof again, "step-%06zu.%s", step, ends[i]);
        if (strcmp(again, name) == 0)
            return move(a, "samples", name);
    }
    return MBL_OK;
}

/* Every name of a folder, which may lose some on the way (readdir then shows the others all the same). */
static mbl_status_t visit(aside_t *a, const char *kind, mbl_status_t (*one)(aside_t *a, const char *name)) {
    char path[ROOM];
    mbl_status_t status = MBL_OK;
    MBL_TRY(join(path, a->folder, kind, ""));
    DIR *dir = opendir(path);
    if (!dir && errno != ENOENT)
        return MBL_FAIL(MBL_ERR_IO, "%s: cannot be listed: %s", path, strerror(errno));
    for (struct dirent *entry; dir && status == MBL_OK && (entry = readdir(dir));)
        status = one(a, entry->d_name);
    if (dir)
        closedir(dir);
    return status;
}

/* Before anything moves: from here on `auto` means the earlier step. */
static mbl_status_t turn_latest(const aside_t *a) {
    char folder[ROOM], path[ROOM];
    size_t at;
    bool named;
    MBL_TRY(join(folder, a->folder, "checkpoints", ""));
    named = mbl_ckpt_pointed(folder, &at);
    MBL_TRY(mbl_ckpt_path(folder, a->step, path, sizeof path));
    if (mbl_file_exists(path))
        return named && at == a->step ? MBL_OK : mbl_ckpt_point_latest(folder, a->step);
    MBL_TRY(join(path, folder, "latest.h5", ""));
    if (named && at > a->step && unlink(path) != 0)
        return MBL_FAIL(MBL_ERR_IO, "%s: names a later step, and it cannot be removed: %s", path,
                        strerror(errno));
    return MBL_OK;
}

/* Whether there is a checkpoint, or what is called like one, of a later step. */
static mbl_status_t look_for_later(aside_t *a, const char *name) {
    size_t step;
    if (mbl_ckpt_parse_step(name, "", &step) && step > a->step)
        a->later++;
    return MBL_OK;
}

static mbl_status_t copy_lines(aside_t *a) {
    char from[ROOM], to[ROOM];
    struct stat about;
    MBL_TRY(make_place(a, "checkpoints"));
    for (size_t i = 0; i < sizeof line_files / sizeof *line_files; i++) {
        MBL_TRY(join(from, a->folder, line_files[i], ""));
        MBL_TRY(join(to, a->to, line_files[i], ""));
        MBL_TRY(mbl_jsonl_copy_later(from, (long)a->step, to));
        if (stat(to, &about) == 0 && about.st_size == 0)
            unlink(to);
    }
    return MBL_OK;
}

/* Copies of lines, then the files themselves. */
static mbl_status_t move_all(aside_t *a) {
    size_t reached = 0;
    bool later = a->later > 0;
    bool anew = !later && a->step == 0 && mbl_rundir_holds(a->folder, &reached) && reached > 0;
    if (later || anew)
        MBL_TRY(copy_lines(a));
    if (anew)
        MBL_WARN(
            "%s: found no checkpoint to resume from: the run begins anew at step 1; the lines up to step %zu "
            "are kept in %s",
            a->folder, reached, a->to);
    a->later = 0;
    MBL_TRY(visit(a, "checkpoints", visit_checkpoint));
    if (later)
        MBL_TRY(visit(a, "samples", visit_sample));
    if (a->later > 0)
        MBL_WARN("%s: resumes from step %zu; the %zu checkpoint%s of later steps (up to %zu), their lines "
                 "and samples are kept in %s",
                 a->folder, a->step, a->later, a->later == 1 ? "" : "s", a->highest, a->to);
    return MBL_OK;
}

/* Whether the run leaves a branch behind: later checkpoints, or (those are away already) that latest.h5 names
 * one. */
static bool leaves_branch(const aside_t *a) {
    char folder[ROOM];
    size_t at;
    return a->later > 0 || (join(folder, a->folder, "checkpoints", "") == MBL_OK &&
                            mbl_ckpt_pointed(folder, &at) && at > a->step);
}

mbl_status_t mbl_aside(const char *folder, const char *run, size_t step, bool verify) {
    aside_t a = {.folder = folder, .step = step, .verify = verify};
    mbl_branches_t branches;
    MBL_TRY(visit(&a, "checkpoints", look_for_later));
    if (leaves_branch(&a)) /* known before anything moves */
        MBL_TRY(mbl_branches_add(folder, step));
    MBL_TRY(turn_latest(&a));
    MBL_TRY(mbl_branches_read(folder, &branches));
    a.lineage = mbl_branches_lineage(&branches, run);
    mbl_status_t status = move_all(&a);
    mbl_branches_free(&branches);
    return status;
}
