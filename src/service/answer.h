/* An answer to a request: a text, or lines and images from files, which are read when they are sent. */
#ifndef MBL_SERVICE_ANSWER_H
#define MBL_SERVICE_ANSWER_H

#include "service/lines.h"

typedef struct {
    int code;         /* of HTTP */
    const char *type; /* of its content */
    bool lasting;     /* it will never be another one */
    char *text;       /* what comes first; freed with the answer */
    size_t text_size;
    int fd;            /* -1, or the file of the parts; closed with the answer */
    mbl_line_t *parts; /* [n_parts], behind the text, with commas between them; freed with the answer */
    size_t n_parts;
    const char *end; /* a constant that comes last; NULL: nothing */
    size_t size;     /* of all */
    size_t at;       /* how much has been read */
    size_t part, part_at;
} mbl_answer_t;

/* {"error": ...} of that code, and OK; also where there is no memory for a message. */
mbl_status_t mbl_answer_fault(mbl_answer_t *out, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* A JSON value, whose reference it takes over; NULL (jansson without memory) is ERR_MEM. */
mbl_status_t mbl_answer_json(mbl_answer_t *out, json_t *value);
/* A text of mbl_calloc's kind, which it takes over; NULL is ERR_MEM. */
mbl_status_t mbl_answer_text(mbl_answer_t *out, const char *type, char *text, size_t size);
/* Bytes of a file, which it takes over (mbl_answer_free closes it). */
mbl_status_t mbl_answer_file(mbl_answer_t *out, const char *type, int fd, int64_t offset, size_t size);
/* Sets `size` once the parts are there. */
void mbl_answer_count(mbl_answer_t *answer);

/* The next bytes, at most `room`; 0 at the end. ERR_IO where a file has become shorter. */
mbl_status_t mbl_answer_read(mbl_answer_t *answer, char *out, size_t room, size_t *size);
void mbl_answer_free(mbl_answer_t *answer);

#endif
