/* Indexes of JSON lines. */
#include "service/lines.h"

#include "base/mem.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CHUNK = 1 << 18 };

void mbl_lines_open(mbl_lines_t *lines, int folder, const char *name, mbl_lines_take_t take, void *self) {
    *lines = (mbl_lines_t){.name = name, .folder = folder, .fd = -1, .take = take, .self = self};
}

/* As it was opened, but for the generation. */
static void begin_anew(mbl_lines_t *lines) {
    if (lines->fd >= 0)
        close(lines->fd);
    lines->fd = -1;
    lines->generation += lines->n > 0;
    lines->n = 0;
    lines->seen = 0;
    lines->marked = 0;
    json_decref(lines->last);
    lines->last = NULL;
    if (lines->take)
        lines->take(lines->self, NULL);
}

void mbl_lines_close(mbl_lines_t *lines) {
    if (lines->fd >= 0)
        close(lines->fd);
    json_decref(lines->last);
    mbl_free(lines->items);
    *lines = (mbl_lines_t){.fd = -1};
}

/* Keeps a line; those that cannot be anything are passed over. */
static mbl_status_t keep(mbl_lines_t *lines, const char *text, size_t size, int64_t offset) {
    json_t *line = json_loadb(text, size, 0, NULL);
    const json_t *step = json_object_get(line, "step");
    if (!json_is_integer(step) || json_integer_value(step) < 0) {
        json_decref(line);
        return MBL_OK;
    }
    if (lines->n == lines->room) {
        size_t room = lines->room ? 2 * lines->room : 256;
        mbl_line_t *more = mbl_realloc(lines->items, lines->room, room, sizeof *more);
        if (!more) {
            json_decref(line);
            return MBL_FAIL(MBL_ERR_MEM, "%s: no memory for an index of %zu lines", lines->name, room);
        }
        lines->items = more;
        lines->room = room;
    }
    lines->items[lines->n++] = (mbl_line_t){(uint64_t)json_integer_value(step), offset, (uint32_t)size};
    if (lines->take)
        lines->take(lines->self, line);
    json_decref(lines->last);
    lines->last = line;
    return MBL_OK;
}

/* Keeps the whole lines of a piece of the file that begins at lines->seen; returns what they take. */
static mbl_status_t keep_all(mbl_lines_t *lines, const char *piece, size_t size, size_t *taken) {
    const char *at = piece, *end;
    while ((end = memchr(at, '\n', size - (size_t)(at - piece)))) {
        MBL_TRY(keep(lines, at, (size_t)(end - at), lines->seen + (at - piece)));
        at = end + 1;
    }
    *taken = (size_t)(at - piece);
    return MBL_OK;
}

/* The bytes before `seen`; how many, 0 where they cannot be read. */
static size_t read_mark(const mbl_lines_t *lines, char mark[MBL_LINES_MARK]) {
    size_t size = lines->seen < MBL_LINES_MARK ? (size_t)lines->seen : MBL_LINES_MARK;
    return pread(lines->fd, mark, size, lines->seen - (int64_t)size) == (ssize_t)size ? size : 0;
}

/* Whether they are still those. */
static bool same_mark(const mbl_lines_t *lines) {
    char now[MBL_LINES_MARK];
    size_t size = read_mark(lines, now);
    return size == lines->marked && memcmp(now, lines->mark, size) == 0;
}

/* The file that has the name now; false where there is none. A link is none: it may lead out of the folder.
 */
static bool look(mbl_lines_t *lines, int64_t *size) {
    struct stat info;
    if (fstatat(lines->folder, lines->name, &info, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(info.st_mode)) {
        if (lines->fd >= 0 || lines->n > 0)
            begin_anew(lines);
        return false;
    }
    if (lines->fd >= 0 && (info.st_ino != lines->inode || info.st_size < lines->seen || !same_mark(lines)))
        begin_anew(lines);
    if (lines->fd < 0) {
        lines->fd = openat(lines->folder, lines->name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        if (lines->fd < 0 || fstat(lines->fd, &info) != 0 || !S_ISREG(info.st_mode)) {
            begin_anew(lines);
            return false;
        }
        lines->inode = info.st_ino;
    }
    *size = info.st_size;
    return true;
}

mbl_status_t mbl_lines_refresh(mbl_lines_t *lines) {
    int64_t size;
    if (!look(lines, &size) || lines->seen >= size)
        return MBL_OK;
    char *piece;
    size_t room = CHUNK;
    mbl_status_t status = MBL_OK;
    MBL_ALLOC(piece, room);
    while (lines->seen < size) {
        ssize_t got = pread(lines->fd, piece, room, lines->seen);
        size_t taken = 0;
        if (got <= 0)
            break;
        MBL_TRY_GOTO(keep_all(lines, piece, (size_t)got, &taken), done);
        lines->seen += (int64_t)taken;
        if (taken == 0 && (size_t)got == room && room < MBL_LINE_MOST) {
            char *more = mbl_realloc(piece, room, 4 * room, 1);
            if (!more) {
                status = MBL_FAIL(MBL_ERR_MEM, "%s: no memory for a line of %zu bytes", lines->name, room);
                goto done;
            }
            piece = more;
            room *= 4;
        } else if (taken == 0 && (size_t)got == room)
            lines->seen += (int64_t)room; /* of no line that marble writes */
        else if (taken == 0)
            break; /* the end is not written yet */
    }
done:
    lines->marked = read_mark(lines, lines->mark);
    mbl_free(piece);
    return status;
}

size_t mbl_lines_find(const mbl_lines_t *lines, uint64_t step) {
    size_t low = 0, high = lines->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (lines->items[middle].step < step)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}
