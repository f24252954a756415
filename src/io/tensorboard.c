/* TensorBoard event files: framing, checksums and the wire format of the messages in use
 * (tensorflow/core/util/event.proto, framework/summary.proto, framework/tensor.proto). */
#include "io/tensorboard.h"

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Field numbers. */
enum { EVENT_TIME = 1, EVENT_STEP = 2, EVENT_VERSION = 3, EVENT_SUMMARY = 5, EVENT_SESSION = 7 };
enum { SUMMARY_VALUE = 1, VALUE_TAG = 1, VALUE_SIMPLE = 2, VALUE_IMAGE = 4, VALUE_HISTOGRAM = 5 };
enum { VALUE_TENSOR = 8, VALUE_METADATA = 9 };
enum { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };

typedef struct {
    uint8_t *bytes;
    size_t size, room;
    bool failed; /* there was no memory */
} buffer_t;

struct mbl_tensorboard {
    char *path;
    int fd;
    buffer_t values, record; /* the summary under way; what is written */
    uint32_t table[256];
    size_t lost;
};

/* ---- the wire format ---- */

static uint8_t *extend(buffer_t *b, size_t size) {
    if (b->failed)
        return NULL;
    if (b->size + size > b->room) {
        size_t room = 2 * b->room + size + 256;
        uint8_t *more = mbl_realloc(b->bytes, b->room, room, 1);
        if (!more) {
            b->failed = true;
            return NULL;
        }
        b->bytes = more;
        b->room = room;
    }
    b->size += size;
    return b->bytes + b->size - size;
}

static void put(buffer_t *b, const void *data, size_t size) {
    uint8_t *to = extend(b, size);
    if (to && size > 0)
        memcpy(to, data, size);
}

static size_t varint(uint64_t value, uint8_t out[10]) {
    size_t n = 0;
    for (; value >= 0x80; value >>= 7)
        out[n++] = (uint8_t)(value | 0x80);
    out[n++] = (uint8_t)value;
    return n;
}

static void put_varint(buffer_t *b, uint64_t value) {
    uint8_t bytes[10];
    put(b, bytes, varint(value, bytes));
}

static void put_key(buffer_t *b, unsigned field, unsigned wire) {
    put_varint(b, field << 3 | wire);
}

static void put_number(buffer_t *b, unsigned field, uint64_t value) {
    put_key(b, field, WIRE_VARINT);
    put_varint(b, value);
}

/* Least significant byte first, whatever the machine has. */
static void put_fixed(buffer_t *b, uint64_t bits, size_t bytes) {
    uint8_t *to = extend(b, bytes);
    for (size_t i = 0; to && i < bytes; i++)
        to[i] = (uint8_t)(bits >> 8 * i);
}

static void put_real(buffer_t *b, double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    put_fixed(b, bits, sizeof bits);
}

static void put_double(buffer_t *b, unsigned field, double value) {
    put_key(b, field, WIRE_64);
    put_real(b, value);
}

static void put_bytes(buffer_t *b, unsigned field, const void *data, size_t size) {
    put_key(b, field, WIRE_BYTES);
    put_varint(b, size);
    put(b, data, size);
}

static void put_text(buffer_t *b, unsigned field, const char *text) {
    put_bytes(b, field, text, strlen(text));
}

/* A message within one: its length goes before it once it is known. */
static size_t open_message(buffer_t *b, unsigned field) {
    put_key(b, field, WIRE_BYTES);
    return b->size;
}

static void close_message(buffer_t *b, size_t start) {
    uint8_t length[10];
    size_t size = b->size - start, n = varint(size, length);
    if (!extend(b, n))
        return;
    memmove(b->bytes + start + n, b->bytes + start, size);
    memcpy(b->bytes + start, length, n);
}

/* ---- records ---- */

/* CRC-32C (Castagnoli), reflected. */
static void make_table(uint32_t table[256]) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int bit = 0; bit < 8; bit++)
            c = c >> 1 ^ (c & 1 ? 0x82f63b78u : 0);
        table[i] = c;
    }
}

static uint32_t masked_crc(const uint32_t table[256], const uint8_t *data, size_t size) {
    uint32_t c = ~0u;
    for (size_t i = 0; i < size; i++)
        c = c >> 8 ^ table[(c ^ data[i]) & 0xff];
    c = ~c;
    return (c >> 15 | c << 17) + 0xa282ead8u;
}

/* The record's bytes whole or not at all. */
static int append(const mbl_tensorboard_t *board) {
    off_t end = lseek(board->fd, 0, SEEK_END);
    for (size_t done = 0; done < board->record.size;) {
        ssize_t n = write(board->fd, board->record.bytes + done, board->record.size - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            int error = errno;
            if (done > 0 && end >= 0)
                (void)!ftruncate(board->fd, end);
            return error;
        }
        done += (size_t)n;
    }
    return 0;
}

enum { FRAME = 12 }; /* before an event: its length and the sum of that */

static void begin_event(mbl_tensorboard_t *board, uint64_t step) {
    struct timespec now;
    buffer_t *record = &board->record;
    clock_gettime(CLOCK_REALTIME, &now);
    record->size = 0;
    (void)extend(record, FRAME);
    put_double(record, EVENT_TIME, (double)now.tv_sec + 1e-9 * (double)now.tv_nsec);
    if (step > 0)
        put_number(record, EVENT_STEP, step);
}

static mbl_status_t end_event(mbl_tensorboard_t *board) {
    buffer_t *record = &board->record;
    if (!record->failed) {
        size_t size = record->size - FRAME;
        record->size = 0; /* the frame goes where room was left for it */
        put_fixed(record, size, 8);
        put_fixed(record, masked_crc(board->table, record->bytes, 8), 4);
        record->size += size;
        put_fixed(record, masked_crc(board->table, record->bytes + FRAME, size), 4);
    }
    if (record->failed || board->values.failed) {
        record->failed = board->values.failed = false;
        return MBL_FAIL(MBL_ERR_MEM, "%s: no memory for an event", board->path);
    }
    int error = append(board);
    if (error && board->lost++ % 100 == 0)
        MBL_WARN("%s: cannot be written: %s; %zu event%s lost so far, the run goes on", board->path,
                 strerror(error), board->lost, board->lost == 1 ? "" : "s");
    return MBL_OK;
}

/* ---- the file ---- */

/* Readers take the files of a folder in the order of their names, which begin with the time of their making:
 * no file may be named before one that is there. */
static long long free_time(const char *folder) {
    long long now = (long long)time(NULL), at;
    DIR *dir = opendir(folder);
    for (const struct dirent *entry; dir && (entry = readdir(dir));)
        if (sscanf(entry->d_name, "events.out.tfevents.%lld.", &at) == 1 && at >= now && at < 9999999999)
            now = at + 1;
    if (dir)
        closedir(dir);
    return now;
}

static mbl_status_t begin_file(mbl_tensorboard_t *board, uint64_t next_step) {
    begin_event(board, 0);
    put_text(&board->record, EVENT_VERSION, "brain.Event:2");
    MBL_TRY(end_event(board));
    begin_event(board, next_step);
    size_t session = open_message(&board->record, EVENT_SESSION);
    put_number(&board->record, 1, 1); /* START: what other files say of this step and later ones is void */
    close_message(&board->record, session);
    return end_event(board);
}

mbl_status_t mbl_tensorboard_open(const char *folder, uint64_t next_step, mbl_tensorboard_t **out) {
    mbl_tensorboard_t *board;
    char host[64] = "host";
    MBL_TRY(mbl_folder_make(folder));
    (void)gethostname(host, sizeof host - 1);
    MBL_ALLOC(board, 1);
    board->fd = -1;
    make_table(board->table);
    board->path = mbl_format("%s/events.out.tfevents.%010lld.%s.%lld", folder, free_time(folder), host,
                             (long long)getpid());
    mbl_status_t status = MBL_OK;
    if (!board->path)
        status = MBL_FAIL(MBL_ERR_MEM, "%s: no memory for a path", folder);
    else if ((board->fd = open(board->path, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0666)) < 0)
        status = MBL_FAIL(MBL_ERR_IO, "%s: cannot be made: %s", board->path, strerror(errno));
    else
        status = begin_file(board, next_step);
    if (status == MBL_OK)
        *out = board;
    else
        mbl_tensorboard_close(board);
    return status;
}

void mbl_tensorboard_close(mbl_tensorboard_t *board) {
    if (!board)
        return;
    if (board->lost)
        MBL_WARN("%s: %zu event%s lost", board->path, board->lost, board->lost == 1 ? " is" : "s are");
    if (board->fd >= 0)
        close(board->fd);
    mbl_free(board->values.bytes);
    mbl_free(board->record.bytes);
    mbl_free(board->path);
    mbl_free(board);
}

/* ---- values ---- */

static size_t open_value(mbl_tensorboard_t *board, const char *tag) {
    size_t value = open_message(&board->values, SUMMARY_VALUE);
    put_text(&board->values, VALUE_TAG, tag);
    return value;
}

void mbl_tensorboard_scalar(mbl_tensorboard_t *board, const char *tag, double value) {
    buffer_t *b = &board->values;
    float single = (float)value;
    uint32_t bits;
    memcpy(&bits, &single, sizeof bits);
    size_t start = open_value(board, tag);
    put_key(b, VALUE_SIMPLE, WIRE_32);
    put_fixed(b, bits, sizeof bits);
    close_message(b, start);
}

void mbl_tensorboard_numbers(mbl_tensorboard_t *board, const char *group, const json_t *object) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)object, key, value) {
        char tag[256];
        snprintf(tag, sizeof tag, "%.120s/%.120s", group, key);
        if (json_is_object(value))
            mbl_tensorboard_numbers(board, strcmp(group, "train") == 0 ? key : tag, value);
        else if (json_is_number(value) && strcmp(key, "step") != 0)
            mbl_tensorboard_scalar(board, tag, json_number_value(value));
    }
}

void mbl_tensorboard_png(mbl_tensorboard_t *board, const char *tag, size_t width, size_t height,
                         const void *png, size_t size) {
    buffer_t *b = &board->values;
    size_t start = open_value(board, tag), image = open_message(b, VALUE_IMAGE);
    put_number(b, 1, height);
    put_number(b, 2, width);
    put_number(b, 3, 3); /* RGB */
    put_bytes(b, 4, png, size);
    close_message(b, image);
    close_message(b, start);
}

void mbl_tensorboard_text(mbl_tensorboard_t *board, const char *tag, const char *markdown) {
    buffer_t *b = &board->values;
    size_t start = open_value(board, tag), tensor = open_message(b, VALUE_TENSOR), part;
    put_number(b, 1, 7); /* DT_STRING, */
    part = open_message(b, 2);
    size_t dimension = open_message(b, 2);
    put_number(b, 1, 1); /* one of them */
    close_message(b, dimension);
    close_message(b, part);
    put_text(b, 8, markdown);
    close_message(b, tensor);
    size_t metadata = open_message(b, VALUE_METADATA);
    part = open_message(b, 1);
    put_text(b, 1, "text");
    close_message(b, part);
    close_message(b, metadata);
    close_message(b, start);
}

void mbl_tensorboard_histogram(mbl_tensorboard_t *board, const char *tag,
                               const mbl_tensorboard_bins_t *bins) {
    buffer_t *b = &board->values;
    double n = 0, width = (bins->high - bins->low) / (double)bins->n;
    size_t first = bins->n, last = 0;
    for (size_t i = 0; i < bins->n; i++) {
        n += bins->counts[i];
        if (bins->counts[i] > 0) {
            first = i < first ? i : first;
            last = i;
        }
    }
    if (first == bins->n)
        return;
    size_t start = open_value(board, tag), histogram = open_message(b, VALUE_HISTOGRAM), list;
    put_double(b, 1, bins->low + width * (double)first);
    put_double(b, 2, bins->low + width * (double)(last + 1));
    put_double(b, 3, n);
    put_double(b, 4, bins->sum);
    put_double(b, 5, bins->squares);
    list = open_message(b, 6); /* upper ends */
    for (size_t i = first; i <= last; i++)
        put_real(b, bins->low + width * (double)(i + 1));
    close_message(b, list);
    list = open_message(b, 7);
    for (size_t i = first; i <= last; i++)
        put_real(b, bins->counts[i]);
    close_message(b, list);
    close_message(b, histogram);
    close_message(b, start);
}

mbl_status_t mbl_tensorboard_write(mbl_tensorboard_t *board, uint64_t step) {
    begin_event(board, step);
    put_bytes(&board->record, EVENT_SUMMARY, board->values.bytes, board->values.size);
    board->values.size = 0;
    return end_event(board);
}
