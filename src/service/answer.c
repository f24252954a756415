/* Answers and the reading of them. */
#include "service/answer.h"

#include "base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char in_json[] = "application/json";

void mbl_answer_count(mbl_answer_t *answer) {
    answer->size = answer->text_size + (answer->end ? strlen(answer->end) : 0) +
                   (answer->n_parts ? answer->n_parts - 1 : 0);
    for (size_t i = 0; i < answer->n_parts; i++)
        answer->size += answer->parts[i].size;
}

mbl_status_t mbl_answer_text(mbl_answer_t *out, const char *type, char *text, size_t size) {
    if (!text)
        return MBL_FAIL(MBL_ERR_MEM, "no memory for an answer");
    *out = (mbl_answer_t){.code = 200, .type = type, .text = text, .text_size = size, .fd = -1, .size = size};
    return MBL_OK;
}

mbl_status_t mbl_answer_json(mbl_answer_t *out, json_t *value) {
    char *dumped = value ? json_dumps(value, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    char *text = dumped ? mbl_strdup(dumped) : NULL; /* freed alike whatever it is made by */
    free(dumped);
    json_decref(value);
    return mbl_answer_text(out, in_json, text, text ? strlen(text) : 0);
}

mbl_status_t mbl_answer_fault(mbl_answer_t *out, int code, const char *format, ...) {
    char message[512];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    json_t *error = json_pack("{s:s}", "error", message);
    if (!error) /* a text cut amid a letter, or not UTF-8 */
        error = json_pack("{s:s}", "error", "the request cannot be understood");
    MBL_TRY(mbl_answer_json(out, error));
    out->code = code;
    return MBL_OK;
}

mbl_status_t mbl_answer_file(mbl_answer_t *out, const char *type, int fd, int64_t offset, size_t size) {
    mbl_line_t *part = mbl_calloc(1, sizeof *part);
    if (!part || size > UINT32_MAX) {
        close(fd);
        mbl_free(part);
        return MBL_FAIL(MBL_ERR_MEM, "no memory for an answer of %zu bytes", size);
    }
    *part = (mbl_line_t){.offset = offset, .size = (uint32_t)size};
    *out = (mbl_answer_t){.code = 200, .type = type, .fd = fd, .parts = part, .n_parts = 1};
    mbl_answer_count(out);
    return MBL_OK;
}

/* What is left of `from` from the answer's place `at` on, as far as there is room. */
static size_t copy(const char *from, size_t size, size_t at, char *out, size_t room) {
    size_t n = at < size ? size - at : 0;
    n = n < room ? n : room;
    if (n > 0)
        memcpy(out, from + at, n);
    return n;
}

/* The next bytes of the parts. */
static mbl_status_t read_parts(mbl_answer_t *answer, char *out, size_t room, size_t *size) {
    size_t done = 0;
    while (done < room && answer->part < answer->n_parts) {
        const mbl_line_t *part = &answer->parts[answer->part];
        size_t n = part->size - answer->part_at < room - done ? part->size - answer->part_at : room - done;
        if (n > 0 && pread(answer->fd, out + done, n, part->offset + (int64_t)answer->part_at) != (ssize_t)n)
            return MBL_ERR_IO; /* it was cut meanwhile: the client asks again */
        done += n;
        answer->part_at += n;
        if (answer->part_at < part->size)
            break;
        if (answer->part + 1 < answer->n_parts) {
            if (done == room)
                break; /* the comma comes with the next bytes */
            out[done++] = ',';
        }
        answer->part++;
        answer->part_at = 0;
    }
    *size = done;
    return MBL_OK;
}

mbl_status_t mbl_answer_read(mbl_answer_t *answer, char *out, size_t room, size_t *size) {
    size_t done = copy(answer->text, answer->text_size, answer->at, out, room), n = 0;
    MBL_TRY(read_parts(answer, out + done, room - done, &n));
    done += n;
    if (answer->part == answer->n_parts && answer->end) {
        size_t length = strlen(answer->end), start = answer->size - length;
        if (answer->at + done >= start)
            done += copy(answer->end, length, answer->at + done - start, out + done, room - done);
    }
    answer->at += done;
    *size = done;
    return MBL_OK;
}

void mbl_answer_free(mbl_answer_t *answer) {
    if (answer->fd >= 0 && answer->code)
        close(answer->fd);
    mbl_free(answer->text);
    mbl_free(answer->parts);
    *answer = (mbl_answer_t){.fd = -1};
}
