/* The digest of a whole checkpoint inside it, in an attribute of its first dataset: SHA-256 of HDF5's file
 * with zeros where the digest stands. Programs that open the file for writing and close it (h5py's r+) leave
 * every byte of it and cut off what stands behind, marble's trailer. Found by its text, so that no HDF5 call
 * is needed before the file is known to be whole. */
#include "base/mem.h"
#include "io/checkpoint_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* What HDF5 keeps in its superblock (version 0) of the root group to open it faster, and writes anew when it
 * likes: cache type and scratch space of the root's symbol table entry. */
enum { SUPERBLOCK_VERSION = 8, CACHE = 72, CACHE_BYTES = 24 };

static const char start[] = "marble: sha256 of this file with zeros in this place: ";
enum { START = sizeof start - 1, HEX = MBL_SHA256_HEX - 1, BLOCK = 1 << 20 };

const char *mbl_ckpt_seal_text(char out[MBL_CKPT_SEAL_ROOM]) {
    memcpy(out, start, START);
    memset(out + START, '0', HEX);
    out[START + HEX] = 0;
    return out;
}

/* Where the digest begins, `size` when there is none. */
static size_t find_in(const unsigned char *data, size_t size) {
    const unsigned char *at = memmem(data, size, start, START);
    size_t place = at ? (size_t)(at - data) + START : size;
    return place <= size && size - place >= HEX ? place : size;
}

/* Of the beginning of a file, which is longer than that: it has the text. */
static void blank_cache(unsigned char *head) {
    if (head[SUPERBLOCK_VERSION] == 0)
        memset(head + CACHE, 0, CACHE_BYTES);
}

void mbl_ckpt_seal(unsigned char *image, size_t size) {
    char hex[MBL_SHA256_HEX];
    size_t place = find_in(image, size);
    if (place == size || place < CACHE + CACHE_BYTES)
        return;
    unsigned char cache[CACHE_BYTES];
    memset(image + place, '0', HEX);
    memcpy(cache, image + CACHE, CACHE_BYTES);
    blank_cache(image);
    mbl_sha256_text(image, size, hex);
    memcpy(image + CACHE, cache, CACHE_BYTES);
    memcpy(image + place, hex, HEX);
}

static mbl_status_t read_at(int fd, const char *path, unsigned char *out, size_t n, size_t at) {
    while (n > 0) {
        ssize_t got = pread(fd, out, n, (off_t)at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return MBL_FAIL(MBL_ERR_IO, "%s: cannot be read to its end: %s", path,
                            got ? strerror(errno) : "it got shorter");
        out += got;
        at += (size_t)got;
        n -= (size_t)got;
    }
    return MBL_OK;
}

/* Where the digest begins in the first `size` bytes of a file, `size` when there is none; block [BLOCK +
 * START + HEX]. */
static mbl_status_t find_in_file(int fd, const char *path, size_t size, unsigned char *block, size_t *place) {
    *place = size;
    for (size_t at = 0; at < size && *place == size; at += BLOCK) {
        size_t n = size - at < BLOCK + START + HEX ? size - at : BLOCK + START + HEX;
        MBL_TRY(read_at(fd, path, block, n, at));
        size_t found = find_in(block, n);
        *place = found < n ? at + found : size;
    }
    return MBL_OK;
}

/* SHA-256 of the first `size` bytes with zeros at `place`; what stood there into `stated`. */
static mbl_status_t digest_of(int fd, const char *path, size_t size, size_t place, unsigned char *block,
                              char hex[MBL_SHA256_HEX], char stated[MBL_SHA256_HEX]) {
    mbl_sha256_t sha;
    mbl_sha256_init(&sha);
    MBL_TRY(read_at(fd, path, block, HEX, place));
    memcpy(stated, block, HEX);
    stated[HEX] = 0;
    for (size_t at = 0, n; at < size; at += n) {
        n = size - at < BLOCK ? size - at : BLOCK;
        MBL_TRY(read_at(fd, path, block, n, at));
        if (at == 0 && n >= CACHE + CACHE_BYTES)
            blank_cache(block);
        for (size_t i = 0; i < HEX; i++)
            if (place + i >= at && place + i < at + n)
                block[place + i - at] = '0';
        mbl_sha256_update(&sha, block, n);
    }
    mbl_sha256_hex(&sha, hex);
    return MBL_OK;
}

static mbl_status_t compare(int fd, const char *path, size_t size, char hex[MBL_SHA256_HEX],
                            char stated[MBL_SHA256_HEX], size_t *place) {
    unsigned char *block;
    MBL_ALLOC(block, BLOCK + START + HEX);
    mbl_status_t status = find_in_file(fd, path, size, block, place);
    if (status == MBL_OK && *place < size)
        status = digest_of(fd, path, size, *place, block, hex, stated);
    mbl_free(block);
    return status;
}

mbl_status_t mbl_ckpt_seal_file(int fd, const char *path, size_t size) {
    char hex[MBL_SHA256_HEX] = "", stated[MBL_SHA256_HEX] = "";
    size_t place;
    MBL_TRY(compare(fd, path, size, hex, stated, &place));
    if (place < size && pwrite(fd, hex, HEX, (off_t)place) != HEX)
        return MBL_FAIL(MBL_ERR_IO, "%s: cannot be written: %s", path, strerror(errno));
    return MBL_OK;
}

mbl_status_t mbl_ckpt_seal_check(int fd, const char *path, size_t size, bool *whole) {
    char hex[MBL_SHA256_HEX] = "", stated[MBL_SHA256_HEX] = "";
    size_t place;
    MBL_TRY(compare(fd, path, size, hex, stated, &place));
    *whole = place < size && strcmp(hex, stated) == 0;
    return MBL_OK;
}
