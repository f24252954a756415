/* Lines of JSON: append whole lines only, and cut a file back to a step. */
#include "io/jsonl.h"
#include "base/log.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOST_HELD = 1 << 26, WARN_EVERY = 100 };

struct mbl_jsonl {
    char *path, *held; /* held: lines that the disk has not taken */
    int fd;
    bool torn; /* the file ends with part of a line, from `end` on */
    off_t end;
    size_t held_bytes, held_room, held_lines, failures, lost;
    char run[40]; /* what every line names under "run"; "" for none */
};

/* Whether a line stays; a line that is no object is counted. */
static bool line_stays(const char *line, size_t size, long last_step, size_t *damaged) {
    json_t *object = json_loadb(line, size, 0, NULL);
    if (!json_is_object(object)) {
        ++*damaged;
        json_decref(object);
        return false;
    }
    json_t *step = json_object_get(object, "step");
    bool stays = !json_is_integer(step) || json_integer_value(step) <= last_step;
    json_decref(object);
    return stays;
}

/* Copies the lines that stay; *dropped when there are others (or a last line without its end). */
static bool copy_lines(FILE *from, FILE *to, const char *path, long last_step, bool *dropped) {
    char *line = NULL;
    size_t room = 0, damaged = 0;
    bool good = true;
    for (ssize_t n; good && (n = getline(&line, &room, from)) > 0;) {
        bool whole = line[n - 1] == '\n';
        bool stays = line_stays(line, (size_t)n, last_step, &damaged);
        *dropped = *dropped || !stays || !whole;
        if (stays)
            good = fwrite(line, 1, (size_t)n, to) == (size_t)n && (whole || fputc('\n', to) != EOF);
    }
    good = good && feof(from) && !ferror(from);
    free(line);
    if (damaged)
        MBL_WARN("%s: %zu damaged line%s left out", path, damaged, damaged == 1 ? "" : "s");
    return good;
}

/* Writes what stays beside the file and renames it when that is less. */
static mbl_status_t cut_open_file(FILE *from, const char *path, const char *temporary, long last_step) {
    bool dropped = false;
    FILE *to = fopen(temporary, "wbe");
    if (!to)
        return MBL_FAIL(MBL_ERR_IO, "%s: cannot be made: %s", temporary, strerror(errno));
    bool good = copy_lines(from, to, path, last_step, &dropped) && fflush(to) == 0 && fsync(fileno(to)) == 0;
    int error = errno;
    good = fclose(to) == 0 && good;
    if (good && dropped && rename(temporary, path) != 0) {
        error = errno;
        good = false;
    }
    if (!good || !dropped)
        unlink(temporary);
    if (!good)
        return MBL_FAIL(MBL_ERR_IO, "%s: cannot be cut back to step %ld: %s", path, last_step,
                        strerror(error));
    return MBL_OK;
}

static mbl_status_t cut_back(const char *path, long last_step) {
    FILE *from = fopen(path, "rbe");
    if (!from && errno == ENOENT)
        return MBL_OK;
    if (!from)
        return MBL_FAIL(MBL_ERR_IO, "%s: cannot be opened: %s", path, strerror(errno));
    char *temporary = mbl_format("%s.tmp", path);
    mbl_status_t status = temporary ? cut_open_file(from, path, temporary, last_step)
                                    : MBL_FAIL(MBL_ERR_MEM, "%s: no memory", path);
    mbl_free(temporary);
    fclose(from);
    return status;
}

static mbl_status_t copy_later(FILE *from, FILE *to, const char *aside, long last_step) {
    char *line = NULL;
    size_t room = 0, damaged = 0;
    bool good = true;
    for (ssize_t n; good && (n = getline(&line, &room, from)) > 0;)
        if (!line_stays(line, (size_t)n, last_step, &damaged))
            good = fwrite(line, 1, (size_t)n, to) == (size_t)n &&
                   (line[n - 1] == '\n' || fputc('\n', to) != EOF);
    good = good && !ferror(from) && fflush(to) == 0 && fsync(fileno(to)) == 0;
    free(line);
    return good ? MBL_OK : MBL_FAIL(MBL_ERR_IO, "%s: cannot be written: %s", aside, strerror(errno));
}

mbl_status_t mbl_jsonl_copy_later(const char *path, long last_step, const char *aside) {
    mbl_status_t status = MBL_OK;
    FILE *from = fopen(path, "rbe"), *to = NULL;
    if (!from && errno == ENOENT)
        return MBL_OK;
    if (!from)
        return MBL_FAIL(MBL_ERR_IO, "%s: cannot be opened: %s", path, strerror(errno));
    if (!(to = fopen(aside, "wbe")))
        status = MBL_FAIL(MBL_ERR_IO, "%s: cannot be made: %s", aside, strerror(errno));
    else
        status = copy_later(from, to, aside, last_step);
    fclose(from);
    if (to && fclose(to) != 0 && status == MBL_OK)
        status = MBL_FAIL(MBL_ERR_IO, "%s: cannot be written: %s", aside, strerror(errno));
    return status;
}

mbl_status_t mbl_jsonl_open(const char *path, long last_step, mbl_jsonl_t **out) {
    mbl_jsonl_t *jsonl;
    MBL_REQUIRE(path && out, "lines of JSON without a path");
    if (last_step >= 0)
        MBL_TRY(cut_back(path, last_step));
    MBL_ALLOC(jsonl, 1);
    jsonl->path = mbl_strdup(path);
    if (!jsonl->path) {
        mbl_free(jsonl);
        return MBL_FAIL(MBL_ERR_MEM, "%s: no memory", path);
    }
    jsonl->fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | (last_step < 0 ? O_TRUNC : 0), 0666);
    if (jsonl->fd < 0) {
        mbl_status_t status = MBL_FAIL(MBL_ERR_IO, "%s: cannot be opened: %s", path, strerror(errno));
        mbl_free(jsonl->path);
        mbl_free(jsonl);
        return status;
    }
    *out = jsonl;
    return MBL_OK;
}

/* Whole or not at all; errno of the failure, 0 for none. */
static int append(mbl_jsonl_t *jsonl, const char *text, size_t size) {
    if (jsonl->torn && ftruncate(jsonl->fd, jsonl->end) != 0)
        return errno;
    jsonl->torn = false;
    jsonl->end = lseek(jsonl->fd, 0, SEEK_END);
    for (size_t done = 0; done < size;) {
        ssize_t n = write(jsonl->fd, text + done, size - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            int error = errno;
            jsonl->torn = jsonl->end >= 0 && done > 0 && ftruncate(jsonl->fd, jsonl->end) != 0;
            return error;
        }
        done += (size_t)n;
    }
    return 0;
}

/* The lines held, then this one. */
static int append_all(mbl_jsonl_t *jsonl, const char *line, size_t size) {
    int error = jsonl->held_bytes ? append(jsonl, jsonl->held, jsonl->held_bytes) : 0;
    if (!error && jsonl->held_bytes) {
        MBL_INFO("%s: can be written again; the %zu line%s held in memory until now %s in it", jsonl->path,
                 jsonl->held_lines, jsonl->held_lines == 1 ? "" : "s", jsonl->held_lines == 1 ? "is" : "are");
        jsonl->held_bytes = jsonl->held_lines = jsonl->failures = 0;
    }
    return error ? error : append(jsonl, line, size);
}

static mbl_status_t hold(mbl_jsonl_t *jsonl, const char *line, size_t size) {
    if (size > MOST_HELD - jsonl->held_bytes) {
        jsonl->lost++;
        return MBL_OK;
    }
    if (jsonl->held_bytes + size > jsonl->held_room) {
        size_t room = 2 * jsonl->held_room + size;
        char *more = mbl_realloc(jsonl->held, jsonl->held_bytes, room, 1);
        if (!more)
            return MBL_FAIL(MBL_ERR_MEM, "%s: no memory for a line that the disk does not take", jsonl->path);
        jsonl->held = more;
        jsonl->held_room = room;
    }
    memcpy(jsonl->held + jsonl->held_bytes, line, size);
    jsonl->held_bytes += size;
    jsonl->held_lines++;
    return MBL_OK;
}

void mbl_jsonl_name_run(mbl_jsonl_t *jsonl, const char *run) {
    snprintf(jsonl->run, sizeof jsonl->run, "%s", run);
}

mbl_status_t mbl_jsonl_write(mbl_jsonl_t *jsonl, json_t *object) {
    if (jsonl->run[0] && object && json_object_set_new(object, "run", json_string(jsonl->run)) != 0) {
        json_decref(object);
        object = NULL;
    }
    char *text = object ? json_dumps(object, JSON_REAL_PRECISION(9)) : NULL;
    json_decref(object);
    if (!text)
        return MBL_FAIL(MBL_ERR_MEM, "%s: no memory for a line", jsonl->path);
    size_t size = strlen(text);
    text[size] = '\n'; /* in the place of the zero: the line goes out in one piece */
    int error = append_all(jsonl, text, size + 1);
    mbl_status_t status = error ? hold(jsonl, text, size + 1) : MBL_OK;
    free(text);
    if (error && jsonl->failures++ % WARN_EVERY == 0)
        MBL_WARN("%s: cannot be written: %s; %zu line%s held in memory, tried again with the next one",
                 jsonl->path, strerror(error), jsonl->held_lines, jsonl->held_lines == 1 ? " is" : "s are");
    return status;
}

size_t mbl_jsonl_held(const mbl_jsonl_t *jsonl) {
    return jsonl->held_lines;
}

mbl_status_t mbl_jsonl_read(const char *path, size_t last_step, json_t **out) {
    char *line = NULL;
    size_t room = 0;
    json_t *lines = json_array();
    FILE *file = fopen(path, "rbe");
    if (!lines || (!file && errno != ENOENT)) {
        mbl_status_t status = lines ? MBL_FAIL(MBL_ERR_IO, "%s: cannot be opened: %s", path, strerror(errno))
                                    : MBL_FAIL(MBL_ERR_MEM, "%s: no memory", path);
        json_decref(lines);
        if (file)
            fclose(file);
        return status;
    }
    for (ssize_t n; file && (n = getline(&line, &room, file)) > 0;) {
        json_t *object = json_loadb(line, (size_t)n, 0, NULL), *step = json_object_get(object, "step");
        if (json_is_integer(step) && json_integer_value(step) >= 0 &&
            (size_t)json_integer_value(step) <= last_step)
            json_array_append(lines, object);
        json_decref(object);
    }
    free(line);
    if (file)
        fclose(file);
    *out = lines;
    return MBL_OK;
}

/* The last whole line that is an object, looked for in the last `most` bytes. */
static json_t *last_object(FILE *file, long most) {
    json_t *found = NULL;
    char *text = mbl_calloc((size_t)most + 1, 1);
    if (text && fseek(file, 0, SEEK_END) == 0) {
        long size = ftell(file), from = size > most ? size - most : 0;
        size_t n = fseek(file, from, SEEK_SET) == 0 ? fread(text, 1, (size_t)most, file) : 0;
        text[n] = 0;
        for (char *start = text + n; !found && start > text;) {
            while (start > text && start[-1] != '\n')
                start--;
            found = from > 0 && start == text ? NULL : json_loads(start, JSON_DISABLE_EOF_CHECK, NULL);
            if (start > text)
                *--start = 0;
        }
    }
    mbl_free(text);
    return found;
}

json_t *mbl_jsonl_last(const char *path) {
    enum { MOST = 1 << 22 };
    FILE *file = fopen(path, "rbe");
    json_t *found = file ? last_object(file, MOST) : NULL;
    if (file)
        fclose(file);
    return found;
}

json_t *mbl_jsonl_real(double value) {
    return isfinite(value) ? json_real(value) : json_null();
}

void mbl_jsonl_close(mbl_jsonl_t *jsonl) {
    if (!jsonl)
        return;
    int error = append_all(jsonl, "", 0);
    if (error || jsonl->lost)
        MBL_ERROR("%s: %zu lines are lost: %s", jsonl->path, jsonl->held_lines + jsonl->lost,
                  error ? strerror(error) : "there were too many to be held in memory");
    close(jsonl->fd);
    mbl_free(jsonl->held);
    mbl_free(jsonl->path);
    mbl_free(jsonl);
}
