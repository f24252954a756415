/* The prompt cache: which records its files have, reading and adding. */
#include "io/prompt_cache.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "io/prompt_cache_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

enum { FILE_BYTES = 64 << 20, GROUP_DIGITS = 16, STALE_SECONDS = 24 * 3600 };

typedef struct {
    char name[MBL_PROMPT_CACHE_NAME];
    mbl_prompt_layout_t layout;
    mbl_prompt_key_t *keys;                     /* [records] */
    unsigned char (*digests)[MBL_SHA256_BYTES]; /* [records] */
    bool mine;                                  /* written here */
} part_t;

/* Of the table of keys. */
typedef struct {
    uint32_t part, row; /* part: index + 1; 0: free */
    bool lost;          /* found damaged */
} slot_t;

struct mbl_prompt_cache {
    char *path;
    char group[MBL_SHA256_HEX];
    char *about;
    size_t bytes, records;
    part_t *parts;
    size_t n_parts, room, written;
    unsigned last; /* the highest number of a file seen */
    slot_t *slots;
    size_t n_slots;
    mbl_prompt_key_t *new_keys; /* [most]: waiting to become a file */
    unsigned char *new_records;
    size_t waiting, most;
};

/* ---- the table of keys ---- */

static const mbl_prompt_key_t *key_of(const mbl_prompt_cache_t *cache, const slot_t *slot) {
    return &cache->parts[slot->part - 1].keys[slot->row];
}

/* The slot of a key, or the free one where it belongs. */
static slot_t *find(const mbl_prompt_cache_t *cache, const mbl_prompt_key_t *key) {
    uint64_t hash;
    memcpy(&hash, key, sizeof hash); /* keys are digests */
    size_t at = hash & (cache->n_slots - 1);
    while (cache->slots[at].part && memcmp(key_of(cache, &cache->slots[at]), key, sizeof *key) != 0)
        at = (at + 1) & (cache->n_slots - 1);
    return &cache->slots[at];
}

static mbl_status_t grow_slots(mbl_prompt_cache_t *cache, size_t records) {
    size_t n = cache->n_slots ? cache->n_slots : 64, old = cache->n_slots;
    slot_t *before = cache->slots, *slots;
    while (n < 2 * records)
        n *= 2;
    if (n == old)
        return MBL_OK;
    MBL_ALLOC(slots, n);
    cache->slots = slots;
    cache->n_slots = n;
    for (size_t i = 0; i < old; i++)
        if (before[i].part)
            *find(cache, key_of(cache, &before[i])) = before[i];
    mbl_free(before);
    return MBL_OK;
}

/* Takes over part's tables, also on failure. */
static mbl_status_t add_part(mbl_prompt_cache_t *cache, part_t *part) {
    mbl_status_t status = grow_slots(cache, cache->records + part->layout.records + 1);
    if (status == MBL_OK && cache->n_parts == cache->room) {
        size_t room = cache->room ? 2 * cache->room : 16;
        part_t *parts = mbl_realloc(cache->parts, cache->room, room, sizeof *parts);
        if (parts) {
            cache->parts = parts;
            cache->room = room;
        } else
            status = MBL_FAIL(MBL_ERR_MEM, "%s: no memory for its files", cache->path);
    }
    if (status != MBL_OK) {
        mbl_free(part->keys);
        mbl_free(part->digests);
        return status;
    }
    cache->parts[cache->n_parts++] = *part;
    for (uint32_t row = 0; row < part->layout.records; row++) {
        slot_t *slot = find(cache, &part->keys[row]);
        cache->records += slot->part == 0 || slot->lost;
        *slot = (slot_t){(uint32_t)cache->n_parts, row, false};
    }
    return MBL_OK;
}

/* ---- reading files ---- */

static bool read_at(int fd, void *out, size_t bytes, size_t at) {
    char *to = out;
    while (bytes > 0) {
        ssize_t n = pread(fd, to, bytes, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        to += n;
        at += (size_t)n;
        bytes -= (size_t)n;
    }
    return true;
}

static bool lies_within(size_t at, size_t n, size_t each, size_t size) {
    size_t bytes;
    return mbl_mul(n, each, &bytes) && at <= size && bytes <= size - at;
}

/* Reads and checks the tables; what is wrong with the file in words, or NULL. */
static const char *read_tables(const mbl_prompt_cache_t *cache, int fd, part_t *part) {
    char trailer[MBL_PROMPT_TRAILER + 1] = "", stated[MBL_SHA256_HEX], found[MBL_SHA256_HEX];
    mbl_prompt_layout_t *l = &part->layout;
    struct stat about;
    if (fstat(fd, &about) != 0 || about.st_size < MBL_PROMPT_TRAILER)
        return "cut off";
    size_t size = (size_t)about.st_size - MBL_PROMPT_TRAILER;
    if (!read_at(fd, trailer, MBL_PROMPT_TRAILER, size) || !mbl_prompt_trailer_read(trailer, l, stated))
        return "cut off, or no file of marble's prompt cache";
    if (strcmp(l->group, cache->group) != 0 || l->bytes != cache->bytes)
        return "made by other text encoders than those of its folder";
    if (l->records > UINT32_MAX || !lies_within(l->at, l->records, l->bytes, size) ||
        !lies_within(l->keys_at, l->records, sizeof *part->keys, size) ||
        !lies_within(l->digests_at, l->records, sizeof *part->digests, size))
        return "damaged";
    part->keys = mbl_calloc(l->records, sizeof *part->keys);
    part->digests = mbl_calloc(l->records, sizeof *part->digests);
    if (!part->keys || !part->digests)
        return "too large for the memory there is";
    if (!read_at(fd, part->keys, l->records * sizeof *part->keys, l->keys_at) ||
        !read_at(fd, part->digests, l->records * sizeof *part->digests, l->digests_at))
        return "cannot be read";
    mbl_prompt_tables_digest(l, part->keys, part->digests, found);
    return strcmp(found, stated) == 0 ? NULL : "damaged";
}

static mbl_status_t load_file(mbl_prompt_cache_t *cache, const char *name, bool *taken) {
    part_t part = {.mine = false};
    char *path = mbl_format("%s/%s", cache->path, name);
    if (!path)
        return MBL_FAIL(MBL_ERR_MEM, "%s: no memory for a file name", cache->path);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    const char *wrong = fd >= 0 ? read_tables(cache, fd, &part) : NULL;
    *taken = fd >= 0 && !wrong;
    if (fd >= 0)
        close(fd);
    if (wrong)
        MBL_WARN("%s: %s; it is passed over, and what it had is encoded again", path, wrong);
    mbl_free(path);
    if (!*taken) {
        mbl_free(part.keys);
        mbl_free(part.digests);
        return MBL_OK;
    }
    snprintf(part.name, sizeof part.name, "%s", name);
    unsigned number = (unsigned)strtoul(name, NULL, 10);
    cache->last = number > cache->last ? number : cache->last;
    return add_part(cache, &part);
}

bool mbl_prompt_cache_take(mbl_prompt_cache_t *cache, const char *name) {
    bool taken = false;
    for (size_t i = 0; i < cache->n_parts; i++)
        if (strcmp(cache->parts[i].name, name) == 0)
            return true;
    return load_file(cache, name, &taken) == MBL_OK && taken;
}

/* A file that a process which is gone did not finish. */
static void drop_stale(const mbl_prompt_cache_t *cache, const char *name) {
    struct stat about;
    char *path = mbl_format("%s/%s", cache->path, name);
    if (path && stat(path, &about) == 0 && time(NULL) - about.st_mtime > STALE_SECONDS)
        unlink(path);
    mbl_free(path);
}

static int is_ours(const struct dirent *entry) {
    size_t n = strlen(entry->d_name), digits = strspn(entry->d_name, "0123456789");
    return digits == 6 && n < MBL_PROMPT_CACHE_NAME + 16 && strstr(entry->d_name, ".h5") != NULL;
}

static mbl_status_t load_folder(mbl_prompt_cache_t *cache) {
    struct dirent **names = NULL;
    mbl_status_t status = MBL_OK;
    int n = scandir(cache->path, &names, is_ours, alphasort);
    if (n < 0 && errno == ENOENT)
        return MBL_OK;
    if (n < 0)
        return MBL_FAIL(MBL_ERR_IO, "%s: cannot be read: %s", cache->path, strerror(errno));
    for (int i = 0; i < n; i++) {
        bool taken;
        size_t length = strlen(names[i]->d_name);
        if (status == MBL_OK && strcmp(names[i]->d_name + length - 3, ".h5") == 0)
            status = load_file(cache, names[i]->d_name, &taken);
        else
            drop_stale(cache, names[i]->d_name);
        free(names[i]);
    }
    free(names);
    return status;
}

mbl_status_t mbl_prompt_cache_open(const mbl_prompt_cache_options_t *options, mbl_prompt_cache_t **out) {
    mbl_status_t status = MBL_OK;
    mbl_prompt_cache_t *cache;
    MBL_REQUIRE(options->bytes > 0 && strlen(options->group) == MBL_SHA256_HEX - 1,
                "a prompt cache needs a size of records and the digest of their encoders");
    MBL_ALLOC(cache, 1);
    snprintf(cache->group, sizeof cache->group, "%s", options->group);
    cache->bytes = options->bytes;
    cache->most = FILE_BYTES / options->bytes ? FILE_BYTES / options->bytes : 1;
    cache->path = mbl_format("%s/%.*s", options->folder, GROUP_DIGITS, options->group);
    cache->about = mbl_strdup(options->about);
    if (!cache->path || !cache->about)
        status = MBL_FAIL(MBL_ERR_MEM, "%s: no memory for a folder name", options->folder);
    if (status == MBL_OK)
        status = grow_slots(cache, 1);
    if (status == MBL_OK)
        status = load_folder(cache);
    if (status != MBL_OK) {
        mbl_prompt_cache_close(cache);
        return status;
    }
    *out = cache;
    return MBL_OK;
}

void mbl_prompt_cache_close(mbl_prompt_cache_t *cache) {
    if (!cache)
        return;
    for (size_t i = 0; i < cache->n_parts; i++) {
        mbl_free(cache->parts[i].keys);
        mbl_free(cache->parts[i].digests);
    }
    mbl_free(cache->parts);
    mbl_free(cache->slots);
    mbl_free(cache->new_keys);
    mbl_free(cache->new_records);
    mbl_free(cache->path);
    mbl_free(cache->about);
    mbl_free(cache);
}

const char *mbl_prompt_cache_path(const mbl_prompt_cache_t *cache) {
    return cache->path;
}

size_t mbl_prompt_cache_count(const mbl_prompt_cache_t *cache) {
    return cache->records;
}

bool mbl_prompt_cache_has(const mbl_prompt_cache_t *cache, const mbl_prompt_key_t *key) {
    const slot_t *slot = find(cache, key);
    return slot->part && !slot->lost;
}

bool mbl_prompt_cache_read(mbl_prompt_cache_t *cache, const mbl_prompt_key_t *key, void *record) {
    slot_t *slot = find(cache, key);
    unsigned char found[MBL_SHA256_BYTES];
    mbl_sha256_t sha;
    if (!slot->part || slot->lost)
        return false;
    const part_t *part = &cache->parts[slot->part - 1];
    char *path = mbl_format("%s/%s", cache->path, part->name);
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    bool good = fd >= 0 && read_at(fd, record, cache->bytes, part->layout.at + slot->row * cache->bytes);
    if (fd >= 0)
        close(fd);
    mbl_sha256_init(&sha);
    mbl_sha256_update(&sha, record, cache->bytes);
    mbl_sha256_final(&sha, found);
    bool same = good && memcmp(found, part->digests[slot->row], sizeof found) == 0;
    if (!same) {
        slot->lost = true;
        cache->records--;
        MBL_WARN("%s: record %u of %zu %s; its prompt is encoded again", path ? path : cache->path,
                 slot->row + 1, part->layout.records, good ? "is damaged" : "cannot be read");
    }
    mbl_free(path);
    return same;
}

/* ---- adding ---- */

mbl_status_t mbl_prompt_cache_put(mbl_prompt_cache_t *cache, const mbl_prompt_key_t *key,
                                  const void *record) {
    if (!cache->new_keys)
        MBL_ALLOC(cache->new_keys, cache->most);
    if (!cache->new_records) {
        cache->new_records = mbl_calloc(cache->most, cache->bytes);
        if (!cache->new_records)
            return MBL_FAIL(MBL_ERR_MEM, "no memory for %zu records of %zu bytes", cache->most, cache->bytes);
    }
    cache->new_keys[cache->waiting] = *key;
    memcpy(cache->new_records + cache->waiting * cache->bytes, record, cache->bytes);
    cache->waiting++;
    return cache->waiting == cache->most ? mbl_prompt_cache_flush(cache) : MBL_OK;
}

/* A name that no other process makes: the number decides which file comes first, the rest is this one's. */
static void new_name(mbl_prompt_cache_t *cache, char out[MBL_PROMPT_CACHE_NAME]) {
    struct timespec now;
    char host[17] = "", token[MBL_SHA256_HEX];
    mbl_sha256_t sha;
    long pid = (long)getpid();
    const void *place = cache;
    clock_gettime(CLOCK_REALTIME, &now);
    gethostname(host, sizeof host - 1);
    mbl_sha256_init(&sha);
    mbl_sha256_update(&sha, host, sizeof host);
    mbl_sha256_update(&sha, &pid, sizeof pid);
    mbl_sha256_update(&sha, &now, sizeof now);
    mbl_sha256_update(&sha, &place, sizeof(void *));
    mbl_sha256_hex(&sha, token);
    snprintf(out, MBL_PROMPT_CACHE_NAME, "%06u-%.16s.h5", ++cache->last % 1000000, token);
}

/* The waiting records as a part of the cache, which has been written. */
static mbl_status_t remember(mbl_prompt_cache_t *cache, const char *name) {
    bool taken;
    MBL_TRY(load_file(cache, name, &taken));
    if (!taken)
        return MBL_FAIL(MBL_ERR_IO, "%s/%s: written, but not to be read back", cache->path, name);
    cache->parts[cache->n_parts - 1].mine = true;
    cache->written++;
    return MBL_OK;
}

mbl_status_t mbl_prompt_cache_flush(mbl_prompt_cache_t *cache) {
    char name[MBL_PROMPT_CACHE_NAME];
    if (cache->waiting == 0)
        return MBL_OK;
    MBL_TRY(mbl_folder_make(cache->path));
    new_name(cache, name);
    char *path = mbl_format("%s/%s", cache->path, name);
    mbl_status_t status = path ? mbl_prompt_file_write(path, cache->group, cache->about, cache->waiting,
                                                       cache->bytes, cache->new_keys, cache->new_records)
                               : MBL_FAIL(MBL_ERR_MEM, "%s: no memory for a file name", cache->path);
    mbl_free(path);
    cache->waiting = 0;
    return status == MBL_OK ? remember(cache, name) : status;
}

size_t mbl_prompt_cache_written(const mbl_prompt_cache_t *cache) {
    return cache->written;
}

void mbl_prompt_cache_name(const mbl_prompt_cache_t *cache, size_t i, char out[MBL_PROMPT_CACHE_NAME]) {
    size_t at = 0;
    memset(out, 0, MBL_PROMPT_CACHE_NAME);
    for (size_t p = 0; p < cache->n_parts; p++)
        if (cache->parts[p].mine && at++ == i)
            snprintf(out, MBL_PROMPT_CACHE_NAME, "%s", cache->parts[p].name);
}

mbl_status_t mbl_prompt_cache_free_bytes(const char *folder, uint64_t *out) {
    char *path = mbl_strdup(folder);
    struct statvfs about;
    if (!path)
        return MBL_FAIL(MBL_ERR_MEM, "%s: no memory for its name", folder);
    for (char *slash; !mbl_folder_exists(path) && (slash = strrchr(path, '/'));)
        slash[slash == path] = 0;
    int failed = statvfs(mbl_folder_exists(path) ? path : ".", &about);
    mbl_free(path);
    if (failed)
        return MBL_FAIL(MBL_ERR_IO, "%s: its disk cannot be looked at: %s", folder, strerror(errno));
    *out = (uint64_t)about.f_bavail * about.f_frsize;
    return MBL_OK;
}
