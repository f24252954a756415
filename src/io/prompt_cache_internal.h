/* What the files of the prompt cache share. */
#ifndef MBL_IO_PROMPT_CACHE_INTERNAL_H
#define MBL_IO_PROMPT_CACHE_INTERNAL_H

#include "io/prompt_cache.h"

/* Where a file's parts lie, as the line at its end says: libhdf5, which may crash on damaged files, is not
 * needed to read them. */
typedef struct {
    size_t records, bytes, at, keys_at, digests_at;
    char group[MBL_SHA256_HEX];
} mbl_prompt_layout_t;
enum { MBL_PROMPT_TRAILER = 384 };

/* A whole file of n records to `path`. */
mbl_status_t mbl_prompt_file_write(const char *path, const char *group, const char *about, size_t n,
                                   size_t bytes, const mbl_prompt_key_t *keys, const void *records);
/* Of the layout, the keys and the digests [records, 32] of the records. */
void mbl_prompt_tables_digest(const mbl_prompt_layout_t *layout, const mbl_prompt_key_t *keys,
                              const void *digests, char out[MBL_SHA256_HEX]);
/* The line that a file ends with, with that digest. */
void mbl_prompt_trailer_make(const mbl_prompt_layout_t *layout, const char *tables_sha256,
                             char out[MBL_PROMPT_TRAILER + 1]);
bool mbl_prompt_trailer_read(const char text[MBL_PROMPT_TRAILER + 1], mbl_prompt_layout_t *layout,
                             char tables_sha256[MBL_SHA256_HEX]);

#endif
