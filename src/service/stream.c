/* Messages of a stream. */
#include "service/stream.h"

#include "base/clock.h"
#include "base/mem.h"
#include "service/values.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FILES = 3, LOG_PIECE = 1 << 14 };
static const double STATUS_LEAST_S = 1, STATUS_MOST_S = 10;
static const char *const names[FILES] = {"metrics", "eval", "gram"};
static const uint64_t NONE = UINT64_MAX;

static const mbl_lines_t *file_of(const mbl_view_t *view, size_t i) {
    const mbl_lines_t *const files[FILES] = {&view->metrics, &view->evals, &view->gram};
    return files[i];
}

static uint64_t last_step(const mbl_lines_t *lines) {
    return lines->n ? lines->items[lines->n - 1].step : NONE;
}

static uint64_t last_sheet(const mbl_view_t *view) {
    return view->n_samples ? view->samples[view->n_samples - 1] : NONE;
}

void mbl_stream_begin(const mbl_api_t *api, size_t run, bool given, uint64_t from, mbl_stream_t *out) {
    const mbl_view_t *view = &api->views[run];
    int64_t log = 0;
    *out =
        (mbl_stream_t){.run = run, .advantages = last_step(&view->advantages), .samples = last_sheet(view)};
    for (size_t i = 0; i < FILES; i++) {
        const mbl_lines_t *lines = file_of(view, i);
        out->at[i] = given ? mbl_lines_find(lines, from) : lines->n;
        out->generation[i] = lines->generation;
    }
    int fd = mbl_view_file(view, "log.txt", &log);
    if (fd >= 0)
        close(fd);
    out->log = log;
}

/* ---- messages ---- */

/* A text behind `room` bytes. */
static char *place(const char *text, size_t length, size_t room, size_t *size) {
    char *out = text ? mbl_calloc(room + length + 1, 1) : NULL;
    if (out)
        memcpy(out + room, text, length);
    *size = length;
    return out;
}

static char *message(json_t *json, size_t room, size_t *size) {
    char *text = json ? json_dumps(json, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    char *out = text ? place(text, strlen(text), room, size) : NULL;
    free(text);
    json_decref(json);
    return out;
}

/* A line as it is in its file; NULL where it is there no more. */
static char *line_message(const mbl_lines_t *lines, const char *name, const mbl_line_t *line, size_t room,
                          size_t *size) {
    char head[64];
    size_t n = (size_t)snprintf(head, sizeof head, "{\"type\":\"%s\",\"line\":", name);
    char *out = mbl_calloc(room + n + line->size + 2, 1);
    if (!out)
        return NULL;
    memcpy(out + room, head, n);
    if (pread(lines->fd, out + room + n, line->size, line->offset) != (ssize_t)line->size) {
        mbl_free(out);
        return NULL;
    }
    out[room + n + line->size] = '}';
    *size = n + line->size + 1;
    return out;
}

/* What is new in a file of lines. */
static char *next_line(mbl_api_t *api, mbl_stream_t *stream, size_t i, size_t room, size_t *size) {
    const mbl_lines_t *lines = file_of(&api->views[stream->run], i);
    if (stream->generation[i] != lines->generation || stream->at[i] > lines->n) {
        stream->generation[i] = lines->generation;
        stream->at[i] = 0;
        return message(json_pack("{s:s,s:s}", "type", "reset", "file", names[i]), room, size);
    }
    if (lines->n - stream->at[i] > MBL_STREAM_BEHIND) {
        size_t left_out = lines->n - stream->at[i] - MBL_STREAM_BEHIND;
        stream->at[i] += left_out;
        api->facts.dropped += left_out;
        return message(
            json_pack("{s:s,s:s,s:I}", "type", "dropped", "file", names[i], "lines", (json_int_t)left_out),
            room, size);
    }
    if (stream->at[i] == lines->n)
        return NULL;
    return line_message(lines, names[i], &lines->items[stream->at[i]++], room, size);
}

/* "advantages" or "samples", once their last step is another one. */
static char *next_step(uint64_t *known, uint64_t now, const char *type, size_t room, size_t *size) {
    if (*known == now)
        return NULL;
    *known = now;
    return now == NONE ? NULL
                       : message(json_pack("{s:s,s:I}", "type", type, "step", (json_int_t)now), room, size);
}

/* The lines of a piece of log.txt, as an array; those that are no UTF-8 are left out. */
static json_t *log_lines(char *piece, size_t size) {
    json_t *list = json_array();
    mbl_values_mask(piece, size);
    for (char *at = piece, *end; at < piece + size && (end = memchr(at, '\n', (size_t)(piece + size - at)));
         at = end + 1) {
        json_t *line = json_stringn(at, (size_t)(end - at));
        if (line)
            json_array_append_new(list, line);
    }
    return list;
}

static char *next_log(const mbl_view_t *view, mbl_stream_t *stream, size_t room, size_t *size) {
    char piece[LOG_PIECE];
    int64_t length;
    int fd = mbl_view_file(view, "log.txt", &length);
    if (fd < 0)
        return NULL;
    if (length < stream->log || length - stream->log > 64 * LOG_PIECE)
        stream->log = length < stream->log ? 0 : length - LOG_PIECE;
    ssize_t got = length > stream->log ? pread(fd, piece, sizeof piece, stream->log) : 0;
    close(fd);
    char *end = got > 0 ? memrchr(piece, '\n', (size_t)got) : NULL;
    if (!end && got == LOG_PIECE)
        stream->log += got; /* one line longer than that is left out */
    if (!end)
        return NULL;
    stream->log += end + 1 - piece;
    return message(
        json_pack("{s:s,s:o}", "type", "log", "lines", log_lines(piece, (size_t)(end + 1 - piece))), room,
        size);
}

/* The status where it has changed, or after a while. */
static char *next_status(const mbl_api_t *api, mbl_stream_t *stream, size_t room, size_t *size) {
    const mbl_view_t *view = &api->views[stream->run];
    char state[sizeof stream->state];
    double now = mbl_now(), since = now - stream->status_at;
    snprintf(state, sizeof state, "%d %d %d %llu %zu %llu", (int)view->state, (int)api->facts.phase,
             api->facts.asked_pause, (unsigned long long)mbl_view_step(view), view->evals.n,
             (unsigned long long)mbl_view_steps(view));
    bool changed = strcmp(state, stream->state) != 0;
    if (stream->status_at > 0 && since < (changed ? STATUS_LEAST_S : STATUS_MOST_S))
        return NULL;
    snprintf(stream->state, sizeof stream->state, "%s", state);
    stream->status_at = now;
    return message(json_pack("{s:s,s:o}", "type", "status", "status", mbl_api_status(api, stream->run)), room,
                   size);
}

char *mbl_stream_next(mbl_api_t *api, mbl_stream_t *stream, size_t room, size_t *size) {
    const mbl_view_t *view = &api->views[stream->run];
    char *out = NULL;
    if (!stream->greeted) {
        stream->greeted = true;
        return message(json_pack("{s:s,s:I,s:s}", "type", "hello", "run", (json_int_t)stream->run, "session",
                                 api->facts.session),
                       room, size);
    }
    if (!(out = next_status(api, stream, room, size)))
        for (size_t i = 0; i < FILES && !out; i++)
            out = next_line(api, stream, i, room, size);
    if (!out)
        out = next_step(&stream->advantages, last_step(&view->advantages), "advantages", room, size);
    if (!out)
        out = next_step(&stream->samples, last_sheet(view), "samples", room, size);
    return out ? out : next_log(view, stream, room, size);
}
