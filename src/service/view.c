/* A run's folder: what is read of it. */
#include "service/view.h"

#include "base/clock.h"
#include "base/mem.h"
#include "run/lock.h"
#include "service/values.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { YAML_MOST = 1 << 20, LOOK_EVERY_S = 5 };

/* ---- lines of metrics.jsonl as they pass ---- */

static void add_count(json_t *total, const char *key, const json_t *count) {
    json_int_t before = json_integer_value(json_object_get(total, key));
    json_object_set_new(total, key, json_integer(before + json_integer_value(count)));
}

static void add_totals(mbl_view_t *view, const json_t *line) {
    static const char *const keys[] = {"valid", "na", "failed"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const char *name;
        json_t *count;
        json_object_foreach(json_object_get(line, keys[i]), name, count) {
            json_t *total = json_object_get(view->totals, name);
            if (!total) {
                total = json_pack("{s:i,s:i,s:i}", "valid", 0, "na", 0, "failed", 0);
                if (json_object_set_new(view->totals, name, total) != 0)
                    continue;
            }
            add_count(total, keys[i], count);
        }
    }
}

/* An alarm whose count has risen was found in this step. */
static void add_alarms(mbl_view_t *view, const json_t *line) {
    json_t *counts = json_object_get(line, "alarms"), *count;
    const char *alarm;
    if (!json_is_object(counts))
        return;
    json_object_foreach(counts, alarm, count) {
        json_int_t before = json_integer_value(json_object_get(view->alarm_counts, alarm));
        if (json_integer_value(count) <= before)
            continue;
        if (json_array_size(view->alarms) == MBL_VIEW_EVENTS)
            json_array_remove(view->alarms, 0);
        json_array_append_new(view->alarms,
                              json_pack("{s:O,s:s}", "step", json_object_get(line, "step"), "alarm", alarm));
    }
    json_decref(view->alarm_counts);
    view->alarm_counts = json_incref(counts);
}

static void take_metrics(void *self, const json_t *line) {
    mbl_view_t *view = self;
    if (!line) {
        json_object_clear(view->totals);
        json_array_clear(view->alarms);
        json_decref(view->alarm_counts);
        view->alarm_counts = json_object();
        return;
    }
    add_totals(view, line);
    add_alarms(view, line);
    const json_t *total = json_object_get(json_object_get(line, "seconds"), "total");
    view->seconds[(view->metrics.n - 1) % MBL_VIEW_RECENT] =
        json_is_number(total) ? json_number_value(total) : NAN;
}

/* ---- files ---- */

int mbl_view_file(const mbl_view_t *view, const char *name, int64_t *size) {
    char folder[64];
    struct stat info;
    const char *slash = strchr(name, '/');
    int in = view->fd, fd;
    if (slash) { /* a folder that is a link may lead elsewhere */
        if ((size_t)(slash - name) >= sizeof folder)
            return -1;
        snprintf(folder, sizeof folder, "%.*s", (int)(slash - name), name);
        in = openat(view->fd, folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        if (in < 0)
            return -1;
    }
    fd = openat(in, slash ? slash + 1 : name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (slash)
        close(in);
    if (fd >= 0 && (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode))) {
        close(fd);
        return -1;
    }
    if (fd >= 0 && size)
        *size = info.st_size;
    return fd;
}

char *mbl_view_text(const mbl_view_t *view, const char *name, size_t most, size_t *size) {
    int64_t length;
    int fd = mbl_view_file(view, name, &length);
    if (fd < 0)
        return NULL;
    size_t limit = most ? most : YAML_MOST;
    size_t n = (size_t)length < limit ? (size_t)length : limit;
    char *text = mbl_calloc(n + 1, 1);
    ssize_t got = text && (most || (size_t)length <= limit) ? pread(fd, text, n, length - (int64_t)n) : -1;
    close(fd);
    if (got < 0) {
        mbl_free(text);
        return NULL;
    }
    text[got] = 0;
    mbl_values_mask(text, (size_t)got);
    *size = (size_t)got;
    return text;
}

static bool same_time(struct timespec a, struct timespec b) {
    return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

static void refresh_config(mbl_view_t *view) {
    struct stat info;
    if (fstatat(view->fd, "run.yaml", &info, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(info.st_mode) ||
        (view->yaml && same_time(info.st_mtim, view->changed)))
        return;
    size_t size = 0;
    mbl_run_head_t head;
    char *text = mbl_view_text(view, "run.yaml", 0, &size);
    if (!text)
        return;
    mbl_free(view->yaml);
    json_decref(view->config);
    view->yaml = text;
    view->config = mbl_values_of_yaml(text, size);
    view->changed = info.st_mtim;
    mbl_run_head_read(view->path, &head);
    snprintf(view->id, sizeof view->id, "%s", head.id);
}

static int by_number(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* The step of "step-000020.png"; false for other names. */
static bool sheet_step(const char *name, uint64_t *step) {
    char *end, again[64];
    if (strncmp(name, "step-", 5) != 0 || name[5] < '0' || name[5] > '9')
        return false;
    *step = strtoull(name + 5, &end, 10);
    snprintf(again, sizeof again, "step-%06llu.png", (unsigned long long)*step);
    return *step < 1000000000000 && strcmp(name, again) == 0;
}

static mbl_status_t list_samples(mbl_view_t *view, DIR *folder) {
    size_t room = 0;
    view->n_samples = 0;
    mbl_free(view->samples);
    view->samples = NULL;
    for (struct dirent *entry; (entry = readdir(folder));) {
        uint64_t step;
        if (!sheet_step(entry->d_name, &step))
            continue;
        if (view->n_samples == room) {
            uint64_t *more = mbl_realloc(view->samples, room, room ? 2 * room : 64, sizeof *more);
            if (!more)
                return MBL_FAIL(MBL_ERR_MEM, "%s: no memory for a list of samples", view->path);
            view->samples = more;
            room = room ? 2 * room : 64;
        }
        view->samples[view->n_samples++] = step;
    }
    if (view->n_samples > 0)
        qsort(view->samples, view->n_samples, sizeof *view->samples, by_number);
    return MBL_OK;
}

static mbl_status_t refresh_samples(mbl_view_t *view) {
    struct stat info;
    int fd = openat(view->fd, "samples", O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 || fstat(fd, &info) != 0 || same_time(info.st_mtim, view->sampled)) {
        if (fd >= 0)
            close(fd);
        return MBL_OK;
    }
    DIR *folder = fdopendir(fd);
    if (!folder) {
        close(fd);
        return MBL_FAIL(MBL_ERR_IO, "%s/samples: %s", view->path, strerror(errno));
    }
    mbl_status_t status = list_samples(view, folder);
    closedir(folder);
    if (status == MBL_OK)
        view->sampled = info.st_mtim;
    return status;
}

/* ---- who works there ---- */

static bool is_through(const mbl_view_t *view) {
    uint64_t steps = mbl_view_steps(view);
    json_int_t evaluated = json_integer_value(json_object_get(view->evals.last, "step"));
    return steps > 0 && mbl_view_step(view) >= steps && evaluated >= (json_int_t)steps;
}

static void refresh_state(mbl_view_t *view) {
    mbl_holder_t holder, self;
    const char *why;
    double now = mbl_now();
    if (view->state_at > 0 && now - view->state_at < LOOK_EVERY_S)
        return;
    view->state_at = now;
    mbl_holder_state_t found = MBL_HOLDER_ENDED;
    view->host[0] = 0;
    if (mbl_lock_holder(view->path, &holder)) {
        mbl_holder_self(&self);
        found = mbl_holder_state(&holder, &self, &why);
        if (found != MBL_HOLDER_ENDED)
            snprintf(view->host, sizeof view->host, "%s", holder.host);
    }
    view->state = found == MBL_HOLDER_RUNS    ? MBL_VIEW_RUNNING
                  : is_through(view)          ? MBL_VIEW_FINISHED
                  : found == MBL_HOLDER_ENDED ? MBL_VIEW_ENDED
                                              : MBL_VIEW_UNKNOWN;
}

/* ---- a view ---- */

static void hold(mbl_view_t *view, int fd) {
    view->fd = fd;
    view->metrics.folder = view->evals.folder = view->gram.folder = view->advantages.folder = fd;
}

/* `train --overwrite` puts another folder where the old one was: that is the run from then on. A link there
 * is none, since it may lead anywhere. */
static void refresh_folder(mbl_view_t *view) {
    struct stat there, held;
    if (lstat(view->path, &there) != 0 || fstat(view->fd, &held) != 0 ||
        (there.st_dev == held.st_dev && there.st_ino == held.st_ino))
        return;
    int fd = open(view->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return;
    close(view->fd);
    hold(view, fd);
    mbl_free(view->yaml);
    json_decref(view->config);
    view->yaml = NULL;
    view->config = NULL;
    view->id[0] = 0;
    view->changed = view->sampled = (struct timespec){0};
    view->n_samples = 0;
    view->state_at = 0;
}

mbl_status_t mbl_view_open(const char *path, mbl_view_t *out) {
    char whole[PATH_MAX];
    memset(out, 0, sizeof *out);
    out->fd = -1;
    mbl_lines_open(&out->metrics, -1, "metrics.jsonl", take_metrics, out);
    mbl_lines_open(&out->evals, -1, "eval.jsonl", NULL, NULL);
    mbl_lines_open(&out->gram, -1, "gram.jsonl", NULL, NULL);
    mbl_lines_open(&out->advantages, -1, "advantages.jsonl", NULL, NULL);
    out->fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (out->fd < 0 || !realpath(path, whole))
        return MBL_FAIL(MBL_ERR_IO, "%s: %s; expected the folder of a run", path, strerror(errno));
    hold(out, out->fd);
    const char *slash = strrchr(whole, '/');
    snprintf(out->name, sizeof out->name, "%.255s", slash[1] ? slash + 1 : whole);
    out->path = mbl_strdup(whole);
    out->totals = json_object();
    out->alarms = json_array();
    out->alarm_counts = json_object();
    if (!out->path || !out->totals || !out->alarms || !out->alarm_counts)
        return MBL_FAIL(MBL_ERR_MEM, "%s: no memory to view it", path);
    return MBL_OK;
}

void mbl_view_close(mbl_view_t *view) {
    mbl_lines_close(&view->metrics);
    mbl_lines_close(&view->evals);
    mbl_lines_close(&view->gram);
    mbl_lines_close(&view->advantages);
    if (view->fd >= 0)
        close(view->fd);
    json_decref(view->totals);
    json_decref(view->alarms);
    json_decref(view->alarm_counts);
    json_decref(view->config);
    mbl_free(view->yaml);
    mbl_free(view->samples);
    mbl_free(view->path);
    memset(view, 0, sizeof *view);
    view->fd = -1;
}

mbl_status_t mbl_view_refresh(mbl_view_t *view) {
    refresh_folder(view);
    refresh_config(view);
    MBL_TRY(mbl_lines_refresh(&view->metrics));
    MBL_TRY(mbl_lines_refresh(&view->evals));
    MBL_TRY(mbl_lines_refresh(&view->gram));
    MBL_TRY(mbl_lines_refresh(&view->advantages));
    MBL_TRY(refresh_samples(view));
    refresh_state(view);
    return MBL_OK;
}

uint64_t mbl_view_step(const mbl_view_t *view) {
    return view->metrics.n ? view->metrics.items[view->metrics.n - 1].step : 0;
}

uint64_t mbl_view_steps(const mbl_view_t *view) {
    const json_t *steps = json_object_get(json_object_get(view->config, "train"), "steps");
    return json_is_integer(steps) ? (uint64_t)json_integer_value(steps) : 0;
}

double mbl_view_pace(const mbl_view_t *view) {
    double sum = 0, n = 0;
    for (size_t i = 0; i < MBL_VIEW_RECENT && i < view->metrics.n; i++)
        if (isfinite(view->seconds[i])) {
            sum += view->seconds[i];
            n++;
        }
    return n > 0 ? sum / n : NAN;
}
