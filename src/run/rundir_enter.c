/* What is in the folder of a run, and whether this run may have it. */
#include "run/rundir.h"

#include "base/file.h"
#include "base/log.h"
#include "base/quote.h"
#include "io/checkpoint.h"
#include "run/branch.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ROOM = 512 };

/* ---- looking ---- */

typedef struct {
    bool holds;
    size_t step;
    mbl_run_head_t head;
} found_t;

bool mbl_rundir_holds(const char *path, size_t *step) {
    char place[ROOM];
    size_t highest = 0;
    mbl_fail_quiet(1);
    bool checkpoint = mbl_rundir_join(path, "checkpoints", place, sizeof place) == MBL_OK &&
                      mbl_ckpt_highest(place, &highest);
    json_t *last =
        mbl_rundir_join(path, "metrics.jsonl", place, sizeof place) == MBL_OK ? mbl_jsonl_last(place) : NULL;
    mbl_fail_quiet(0);
    json_int_t line = json_integer_value(json_object_get(last, "step"));
    bool lines = last != NULL;
    json_decref(last);
    *step = lines && line > 0 && (size_t)line > highest ? (size_t)line : highest;
    return checkpoint || lines;
}

/* Both paths name the same folder. */
static bool same_folder(const char *a, const char *b) {
    struct stat one, two;
    return stat(a, &one) == 0 && stat(b, &two) == 0 && one.st_dev == two.st_dev && one.st_ino == two.st_ino;
}

/* The first of path.1, path.2, ... that is not there; path without slashes at its end. */
static mbl_status_t free_name(const char *path, char out[ROOM]) {
    struct stat about;
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/')
        length--;
    for (unsigned i = 1;; i++) {
        int n = snprintf(out, ROOM, "%.*s.%u", (int)length, path, i);
        if (n < 0 || n >= ROOM)
            return MBL_FAIL(MBL_ERR_ARG, "%s: the path is too long", path);
        if (lstat(out, &about) != 0)
            return MBL_OK;
    }
}

/* Whether the process works in a folder, or below it: such a one is not moved, relative paths would lead
 * elsewhere then. */
static bool is_above(const char *path) {
    char above[PATH_MAX], here[PATH_MAX];
    if (!realpath(path, above) || !getcwd(here, sizeof here))
        return false;
    size_t n = strlen(above);
    return strncmp(here, above, n) == 0 && (here[n] == '/' || !here[n] || above[n - 1] == '/');
}

static mbl_status_t refuse_held(const mbl_rundir_options_t *o, const found_t *found) {
    char next[ROOM], quoted[2 * ROOM];
    MBL_TRY(free_name(o->path, next));
    bool movable = !is_above(o->path);
    return MBL_FAIL(MBL_ERR_USAGE,
                    "%s: holds a run already, %s%sup to step %zu; expected --resume auto to go on with it, "
                    "%sanother --out%s%s%s",
                    o->path, found->head.id, found->head.id[0] ? ", " : "", found->step, movable ? "" : "or ",
                    movable ? ", or --overwrite to move it to " : "",
                    movable ? mbl_quote(next, quoted, sizeof quoted) : "", movable ? " and begin anew" : "");
}

/* The folder runs/NAME belongs to the RUN.yaml that it was begun with, not to every file of that name. */
static mbl_status_t check_origin(const mbl_rundir_options_t *o, const found_t *found) {
    char yaml[PATH_MAX], quoted[2 * ROOM];
    if (!o->by_default || !o->yaml || !found->head.from[0] || !realpath(o->yaml, yaml) ||
        strcmp(yaml, found->head.from) == 0)
        return MBL_OK;
    return MBL_FAIL(
        MBL_ERR_USAGE,
        "%s: holds the run of %s, and this is %s; expected --out with a folder of its own (or, to "
        "go on with that run from here, --out %s --resume auto)",
        o->path, found->head.from, yaml, mbl_quote(o->path, quoted, sizeof quoted));
}

/* One that was moved aside and copied back belongs to other lines than those that are there now. */
static mbl_status_t check_branch(const mbl_rundir_options_t *o, const mbl_ckpt_origin_t *origin) {
    mbl_branches_t branches;
    MBL_TRY(mbl_branches_read(o->path, &branches));
    mbl_ckpt_lineage_t lineage = mbl_branches_lineage(&branches, NULL);
    const char *why = mbl_ckpt_stranger(origin, &lineage);
    mbl_branches_free(&branches);
    return why ? MBL_FAIL(MBL_ERR_USAGE, "--resume %s: step %zu %s; expected another --out to go on from it",
                          o->resume, origin->step, why)
               : MBL_OK;
}

/* A file to go on from has to be one of the run that the folder holds. One that names no run may be it where
 * it lies in the folder, or where the run has no name either. */
static mbl_status_t check_file(const mbl_rundir_options_t *o, const found_t *found) {
    char home[PATH_MAX];
    mbl_ckpt_origin_t origin;
    const char *run = origin.run;
    mbl_fail_quiet(1);
    mbl_status_t status = mbl_ckpt_origin(o->resume, &origin);
    mbl_fail_quiet(0);
    if (status != MBL_OK)
        return MBL_OK; /* reading it says why */
    bool inside = mbl_rundir_of(o->resume, home) && same_folder(home, o->path);
    if (run[0] && strcmp(run, found->head.id) == 0 && !inside)
        return MBL_FAIL(
            MBL_ERR_USAGE,
            "--resume %s: a checkpoint of run %s that does not lie in %s/checkpoints (it may be one that was "
            "moved aside, and what is there now belongs to another branch); expected one that does, or "
            "another "
            "--out",
            o->resume, run, o->path);
    if (run[0] ? strcmp(run, found->head.id) == 0 || (inside && !found->head.id[0])
               : inside || !found->head.id[0])
        return inside ? check_branch(o, &origin) : MBL_OK;
    return MBL_FAIL(
        MBL_ERR_USAGE,
        "--resume %s: %s%s, and %s holds run %s; expected another --out, or a checkpoint of that run",
        o->resume, run[0] ? "of run " : "names no run", run, o->path,
        found->head.id[0] ? found->head.id : "(of an older version, without a name)");
}

static mbl_status_t look(const mbl_rundir_options_t *o, found_t *found) {
    found->holds = mbl_rundir_holds(o->path, &found->step);
    mbl_run_head_read(o->path, &found->head);
    if (o->overwrite && o->resume)
        return MBL_FAIL(MBL_ERR_USAGE, "--overwrite begins anew and --resume goes on; expected one of them");
    if (found->holds && o->overwrite && is_above(o->path))
        return MBL_FAIL(MBL_ERR_USAGE,
                        "--overwrite: %s is the folder that marble was started in, or lies above it, and is "
                        "not moved away under it; expected another --out, or a start from elsewhere",
                        o->path);
    if (o->resume && strcmp(o->resume, "auto") != 0 && access(o->resume, R_OK) != 0)
        return MBL_FAIL(MBL_ERR_USAGE, "--resume %s: cannot be opened: %s; expected a checkpoint, or auto",
                        o->resume, strerror(errno));
    if (!found->holds || o->overwrite)
        return MBL_OK;
    MBL_TRY(check_origin(o, found));
    if (!o->resume)
        return refuse_held(o, found);
    return strcmp(o->resume, "auto") != 0 ? check_file(o, found) : MBL_OK;
}

static mbl_status_t look_first(const mbl_rundir_options_t *o) {
    found_t found;
    MBL_TRY(mbl_lock_look(o->path));
    return look(o, &found);
}

mbl_status_t mbl_rundir_look(mbl_comm_t *comm, const mbl_rundir_options_t *options) {
    return mbl_comm_agree(comm, comm->rank == 0 ? look_first(options) : MBL_OK);
}

/* ---- entering ---- */

/* A folder of the run, in which a file can be made and written. */
static mbl_status_t make_folder(const char *path, const char *name) {
    char folder[ROOM], probe[ROOM];
    MBL_TRY(mbl_rundir_join(path, name, folder, sizeof folder));
    MBL_TRY(mbl_folder_make(folder));
    MBL_TRY(mbl_rundir_join(folder, ".probe", probe, sizeof probe));
    int fd = open(probe, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    bool good = fd >= 0 && write(fd, "x", 1) == 1;
    int error = errno;
    if (fd >= 0) {
        good = close(fd) == 0 && good;
        unlink(probe);
    }
    return good ? MBL_OK
                : MBL_FAIL(MBL_ERR_IO, "%s: nothing can be written there: %s", folder, strerror(error));
}

/* The old run and its lock go together; the new folder is locked afresh. */
static mbl_status_t move_away(const mbl_rundir_options_t *o, const found_t *found, mbl_rundir_t *r) {
    char to[ROOM], lock[ROOM + 8];
    MBL_TRY(free_name(o->path, to));
    if (rename(o->path, to) != 0)
        return MBL_FAIL(MBL_ERR_IO, "--overwrite: %s cannot be moved to %s: %s; expected another --out",
                        o->path, to, strerror(errno));
    mbl_lock_release(r->lock);
    r->lock = NULL;
    snprintf(lock, sizeof lock, "%s/lock", to);
    unlink(lock);
    MBL_RECORD("--overwrite: the run that was in %s, up to step %zu, is now in %s", o->path, found->step, to);
    MBL_TRY(mbl_folder_make(o->path));
    return mbl_lock_take(o->path, &r->lock);
}

static mbl_status_t find_checkpoint(const mbl_rundir_options_t *o, const found_t *found, mbl_rundir_t *r) {
    char folder[ROOM];
    bool good = false;
    mbl_branches_t branches;
    if (!o->resume)
        return MBL_OK;
    if (strcmp(o->resume, "auto") != 0) {
        int n = snprintf(r->checkpoint, sizeof r->checkpoint, "%s", o->resume);
        return n >= 0 && (size_t)n < sizeof r->checkpoint
                   ? MBL_OK
                   : MBL_FAIL(MBL_ERR_ARG, "%s: the path is too long", o->resume);
    }
    MBL_TRY(mbl_rundir_join(o->path, "checkpoints", folder, sizeof folder));
    MBL_TRY(mbl_branches_read(o->path, &branches));
    mbl_ckpt_lineage_t lineage = mbl_branches_lineage(&branches, found->head.id[0] ? found->head.id : NULL);
    mbl_status_t status = mbl_ckpt_latest(folder, &lineage, r->checkpoint, sizeof r->checkpoint, &good);
    mbl_branches_free(&branches);
    MBL_TRY(status);
    if (!good) {
        MBL_RECORD("%s holds no checkpoint: starting afresh", folder);
        r->checkpoint[0] = 0;
    }
    return MBL_OK;
}

/* The id of the run that goes on, or a new one. */
static mbl_status_t find_run(const mbl_rundir_options_t *o, const found_t *found, mbl_rundir_t *r) {
    mbl_ckpt_origin_t origin = {.run = ""};
    const char *run = origin.run;
    r->goes_on = found->holds && r->checkpoint[0];
    if (!o->yaml || !realpath(o->yaml, r->from))
        r->from[0] = 0;
    if (r->checkpoint[0]) {
        mbl_fail_quiet(1);
        if (mbl_ckpt_origin(r->checkpoint, &origin) != MBL_OK)
            origin.run[0] = 0; /* reading it says why */
        mbl_fail_quiet(0);
    }
    if (!r->goes_on) {
        MBL_TRY(mbl_run_id_make(r->run));
        if (r->checkpoint[0])
            MBL_RECORD("%s: a new run, %s, that begins with %s%s%s", o->path, r->run, r->checkpoint,
                       run[0] ? " of run " : "", run);
        return MBL_OK;
    }
    if (found->head.from[0])
        snprintf(r->from, sizeof r->from, "%s", found->head.from);
    const char *known = found->head.id[0] ? found->head.id : mbl_run_id_is(run) ? run : NULL;
    if (known) {
        snprintf(r->run, sizeof r->run, "%.*s", MBL_RUN_ID - 1, known);
        return MBL_OK;
    }
    MBL_TRY(mbl_run_id_make(r->run));
    MBL_RECORD(
        "%s: its lines and checkpoints up to here name no run (an older version wrote them); from here "
        "on this is run %s",
        o->path, r->run);
    return MBL_OK;
}

static mbl_status_t enter(const mbl_rundir_options_t *o, mbl_rundir_t *r) {
    found_t found;
    char log[ROOM];
    MBL_TRY(mbl_folder_make(o->path));
    MBL_TRY(mbl_lock_take(o->path, &r->lock));
    MBL_TRY(look(o, &found));
    if (found.holds && o->overwrite) {
        MBL_TRY(move_away(o, &found, r));
        memset(&found, 0, sizeof found);
    }
    MBL_TRY(make_folder(o->path, "checkpoints"));
    MBL_TRY(make_folder(o->path, "samples"));
    MBL_TRY(mbl_rundir_join(o->path, "log.txt", log, sizeof log));
    MBL_TRY(mbl_log_open(log));
    MBL_TRY(find_checkpoint(o, &found, r));
    return find_run(o, &found, r);
}

mbl_status_t mbl_rundir_enter(mbl_comm_t *comm, const mbl_rundir_options_t *options, mbl_rundir_t *out) {
    memset(out, 0, sizeof *out);
    out->path = options->path;
    MBL_TRY(mbl_comm_agree(comm, comm->rank == 0 ? enter(options, out) : MBL_OK));
    MBL_TRY(mbl_comm_bcast(comm, out->run, sizeof out->run, 0));
    MBL_TRY(mbl_comm_bcast(comm, &out->goes_on, sizeof out->goes_on, 0));
    return mbl_comm_bcast(comm, out->checkpoint, sizeof out->checkpoint, 0);
}
