/* A file of JSON lines that somebody else writes, read as it grows: where every line lies and of which step
 * it is. A run that went on from an earlier step has cut it back meanwhile, which is noticed. */
#ifndef MBL_SERVICE_LINES_H
#define MBL_SERVICE_LINES_H

#include "base/status.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

typedef struct {
    uint64_t step;
    int64_t offset;
    uint32_t size; /* without its end */
} mbl_line_t;

/* Sees every whole line once, in order; begins anew with NULL. */
typedef void (*mbl_lines_take_t)(void *self, const json_t *line);

enum { MBL_LINE_MOST = 16 << 20, MBL_LINES_MARK = 64 };

typedef struct {
    const char *name;
    int folder, fd; /* fd: -1 before there is a file */
    mbl_line_t *items;
    size_t n, room;
    json_t *last;          /* NULL without any */
    uint64_t generation;   /* one more whenever lines that were there have changed */
    mbl_lines_take_t take; /* NULL: nobody */
    void *self;
    ino_t inode;
    int64_t seen;              /* bytes read, up to the end of a line */
    char mark[MBL_LINES_MARK]; /* the last `marked` of them */
    size_t marked;
} mbl_lines_t;

/* `name` (not copied) in the folder that is open as `folder`. Nothing is read yet. */
void mbl_lines_open(mbl_lines_t *lines, int folder, const char *name, mbl_lines_take_t take, void *self);
void mbl_lines_close(mbl_lines_t *lines);
/* Reads what is new. Lines that are no objects with a step, or longer than MBL_LINE_MOST, are passed over. No
 * file is no failure. */
mbl_status_t mbl_lines_refresh(mbl_lines_t *lines);
/* The first line of a step >= `step`: n when there is none. Steps do not fall from line to line. */
size_t mbl_lines_find(const mbl_lines_t *lines, uint64_t step);

#endif
