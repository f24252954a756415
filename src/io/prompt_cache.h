/* A cache on disk of what text encoders make of prompts: a folder of HDF5 files, each written once, whole,
 * under a name of its own, and never changed. So runs may use and fill one cache at the same time, and one
 * that is killed or meets a full disk leaves the files of before as they were. Every record has a digest.
 * The records of one folder are all made by the same encoders, which `group` names. Local. */
#ifndef MBL_IO_PROMPT_CACHE_H
#define MBL_IO_PROMPT_CACHE_H

#include "base/sha256.h"
#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    unsigned char byte[MBL_SHA256_BYTES];
} mbl_prompt_key_t;

typedef struct {
    const char *folder; /* FOLDER/GROUP (its first 16 digits) holds the files */
    const char *group;  /* hex digits of a digest */
    const char *about;  /* what made the records, in words, for whoever opens a file */
    size_t bytes;       /* of a record */
} mbl_prompt_cache_options_t;

typedef struct mbl_prompt_cache mbl_prompt_cache_t;

/* Reads which records there are; the folder need not exist. Files that are damaged or none of the cache's are
 * passed over with a warning. Close with mbl_prompt_cache_close. */
mbl_status_t mbl_prompt_cache_open(const mbl_prompt_cache_options_t *options, mbl_prompt_cache_t **out);
void mbl_prompt_cache_close(mbl_prompt_cache_t *cache); /* NULL is fine; what is not flushed is dropped */

const char *mbl_prompt_cache_path(const mbl_prompt_cache_t *cache); /* of its files: FOLDER/GROUP */
size_t mbl_prompt_cache_count(const mbl_prompt_cache_t *cache);     /* records that may be read */
bool mbl_prompt_cache_has(const mbl_prompt_cache_t *cache, const mbl_prompt_key_t *key);
/* The record [bytes]; false where it cannot be read or is not what was written, which is warned of: from then
 * on the cache does not have it. */
bool mbl_prompt_cache_read(mbl_prompt_cache_t *cache, const mbl_prompt_key_t *key, void *record);

/* Adds a record (copied). Some 64 MiB of them make a file; flush makes one of the rest. Later files come
 * before earlier ones where both have a key. ERR_IO when the disk is full or cannot be written. */
mbl_status_t mbl_prompt_cache_put(mbl_prompt_cache_t *cache, const mbl_prompt_key_t *key, const void *record);
mbl_status_t mbl_prompt_cache_flush(mbl_prompt_cache_t *cache);
/* Names of the files that this cache has written, for other ranks: on a shared disk they may be opened before
 * the folder shows them. take reads one more file, of that name; false where there is none yet. */
enum { MBL_PROMPT_CACHE_NAME = 64 };
size_t mbl_prompt_cache_written(const mbl_prompt_cache_t *cache);
void mbl_prompt_cache_name(const mbl_prompt_cache_t *cache, size_t i, char out[MBL_PROMPT_CACHE_NAME]);
bool mbl_prompt_cache_take(mbl_prompt_cache_t *cache, const char *name);

/* Bytes free for whoever may write into the nearest folder above `folder` that exists. */
mbl_status_t mbl_prompt_cache_free_bytes(const char *folder, uint64_t *out);

#endif
