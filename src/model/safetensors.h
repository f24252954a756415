/* safetensors files: 8 bytes of header length, a JSON header, raw little-endian tensors. Reading maps the
 * file and checks everything a hostile header could say (overlaps, overflows, ranges, duplicate names,
 * nesting); sharded sets are read through their
 * *.safetensors.index.json. */
#ifndef MBL_MODEL_SAFETENSORS_H
#define MBL_MODEL_SAFETENSORS_H

#include "ops/tensor.h"

enum { MBL_ST_MAX_DIMS = 8 };

typedef struct {
    char *name;
    const char *type; /* as the format spells it: "F32", "F8_E4M3", ... */
    /* F32, BF16, F64, I32, I64, U8; F16 is given as bf16/f32 only through mbl_st_read_f32, and types that
     * marble has no numbers of are U8: their bytes as they are. */
    mbl_dtype_t dtype;
    bool is_f16;
    int ndim;
    size_t dim[MBL_ST_MAX_DIMS];
    const void *data; /* inside the mapping, unaligned */
    size_t bytes;
} mbl_st_entry_t;

typedef struct mbl_st mbl_st_t;

/* Entries are in the order of their names. Opens one file, an index file, or what a folder holds. Of several
 * in a folder diffusers and transformers take these, in this order:
 * diffusion_pytorch_model.safetensors.index.json, then the single file of that name; model.safetensors, then
 * its index; only then the same with the variant fp16. Errors name the file and what is wrong: ERR_IO,
 * ERR_FORMAT. Close with mbl_st_close. */
mbl_status_t mbl_st_open(const char *path, mbl_st_t **out);
/* The files that are read, as paths; NULL past the last one. */
const char *mbl_st_file(const mbl_st_t *st, size_t i);
/* Logs which file of a folder is read where others would be a choice too. */
void mbl_st_log_choice(const mbl_st_t *st);
void mbl_st_close(mbl_st_t *st);
size_t mbl_st_count(const mbl_st_t *st);
const mbl_st_entry_t *mbl_st_at(const mbl_st_t *st, size_t i);
const mbl_st_entry_t *mbl_st_find(const mbl_st_t *st, const char *name); /* NULL when absent */
/* ERR_FORMAT with the first three names when there are tensors for which `wanted` is false: a model whose
 * configuration does not ask for weights that it was saved with is another model. `path` is for the message,
 * `hint` says what in the configuration to look at. */
mbl_status_t mbl_st_check_unused(const mbl_st_t *st, const char *path,
                                 bool (*wanted)(const void *context, const char *name), const void *context,
                                 const char *hint);
/* Metadata string (__metadata__), NULL when absent; kept until close. */
const char *mbl_st_metadata(const mbl_st_t *st, const char *key);

/* Reads a floating-point tensor (F64, F32, F16, BF16) of exactly `count` elements as f32 or f64. ERR_FORMAT
 * names file, tensor, what was found: NaN, infinity and what is infinite as f32 too, with their place. */
mbl_status_t mbl_st_read_f32(const mbl_st_t *st, const char *name, float *out, size_t count);
mbl_status_t mbl_st_read_f64(const mbl_st_t *st, const char *name, double *out, size_t count);

/* The same of one row [row, :] of a two-dimensional tensor of `cols` columns. */
mbl_status_t mbl_st_read_row_f32(const mbl_st_t *st, const char *name, size_t row, float *out, size_t cols);
mbl_status_t mbl_st_read_row_f64(const mbl_st_t *st, const char *name, size_t row, double *out, size_t cols);

/* ---- piece by piece: of a tensor that mbl_st_find found and whose shape was checked ---- */

/* ERR_FORMAT unless its numbers are floating-point. */
mbl_status_t mbl_st_check_floating(const mbl_st_t *st, const mbl_st_entry_t *entry);
/* Elements first..first+n-1, widened; ERR_FORMAT where one is not finite. */
mbl_status_t mbl_st_piece_f32(const mbl_st_t *st, const mbl_st_entry_t *entry, size_t first, size_t n,
                              float *out);
mbl_status_t mbl_st_piece_f64(const mbl_st_t *st, const mbl_st_entry_t *entry, size_t first, size_t n,
                              double *out);
/* The same where they are in the file, unaligned; *out is NULL where the file has them in another type. */
mbl_status_t mbl_st_piece_as_is(const mbl_st_t *st, const mbl_st_entry_t *entry, mbl_dtype_t dtype,
                                size_t first, size_t n, const void **out);
/* Gives the memory of a tensor's pages back, which were read and are in the file still. */
void mbl_st_release(const mbl_st_t *st, const char *name);

/* Writes a file (temporary name, synced, renamed). `metadata` is pairs key, value, ..., NULL (or NULL). Data
 * is host memory. */
typedef struct {
    const char *name;
    mbl_dtype_t dtype; /* as stored; data is of this type */
    int ndim;
    size_t dim[MBL_ST_MAX_DIMS];
    const void *data;
} mbl_st_tensor_t;
mbl_status_t mbl_st_write(const char *path, const mbl_st_tensor_t *tensors, size_t n,
                          const char *const *metadata);

#endif
