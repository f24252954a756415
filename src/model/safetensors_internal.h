/* What the readers of safetensors share: mapped files and what their headers say. */
#ifndef MBL_MODEL_SAFETENSORS_INTERNAL_H
#define MBL_MODEL_SAFETENSORS_INTERNAL_H

#include "base/json.h"
#include "model/safetensors.h"

typedef struct {
    char *path;
    void *map;
    size_t size;
} mbl_st_file_t;

struct mbl_st {
    mbl_st_file_t *files;
    size_t n_files;
    mbl_st_entry_t *entries; /* sorted by name once all files are read */
    size_t n, capacity;
    json_t *metadata;        /* of the first file that has one, or NULL */
    char *opened;            /* the file or index that was opened */
    const char *passed_over; /* another of the same folder, or NULL */
};

/* Maps one more file and appends what its header says; st->files has room for it. Nothing a header says is
 * believed until it is checked. */
mbl_status_t mbl_st_add_file(mbl_st_t *st, const char *path);
/* Opens an index and all its shards. */
mbl_status_t mbl_st_open_index(mbl_st_t *st, const char *path);
/* Entries into the order of their names, of which none may be there twice. */
mbl_status_t mbl_st_sort(mbl_st_t *st, const char *path);

#endif
