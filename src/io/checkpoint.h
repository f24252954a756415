/* HDF5 checkpoints: named global arrays and text attributes in one file, written so that a crash at any
 * moment leaves the previous file good: temporary name in the same folder, fsync of file and folder, rename;
 * then latest.h5 is replaced the same way. Every dataset carries Fletcher32 and a digest (SHA-256 of its
 * bytes), the attributes carry one of their own, and the file carries a format version.
 *
 * After the last byte of HDF5 stands a trailer of 128 characters: version, length and SHA-256 of everything
 * before it. HDF5 ignores it (h5py and h5dump read the file as it is); marble checks it before HDF5 sees a
 * single byte, since libhdf5 may crash on a damaged file. A program that opens the file for writing cuts the
 * trailer off; then a second digest of the same bytes, which stands among them, does its work. The same
 * content gives the same bytes. The file is put together in memory: writing takes about as much again as the
 * items hold. Local: rank 0 calls these. */
#ifndef MBL_IO_CHECKPOINT_H
#define MBL_IO_CHECKPOINT_H

#include "ops/tensor.h"

enum { MBL_CHECKPOINT_VERSION = 1, MBL_CKPT_RUN_ROOM = 40 };
#define MBL_CKPT_RUN_KEY "run"       /* attribute: the id of the run that wrote it, */
#define MBL_CKPT_BRANCH_KEY "branch" /* and how often that had gone back to an earlier step; none: never */

typedef struct {
    const char *name;  /* "adapter/current", "optimizer/m", ...: groups are made as needed */
    mbl_dtype_t dtype; /* F32, F64, I64 or U8 */
    size_t count;
    const void *data; /* host */
} mbl_ckpt_item_t;

typedef struct {
    const char *key, *value; /* text attributes of the file: "config", "model_digest", "step", ... */
} mbl_ckpt_attr_t;

/* Writes `path` whole or not at all; its folder has to exist. Errors (disk full, I/O) name the path and the
 * cause; the temporary file (path + ".tmp") is removed. Keys "format_version" and "attributes_sha256" are
 * taken. */
mbl_status_t mbl_ckpt_write(const char *path, const mbl_ckpt_item_t *items, size_t n,
                            const mbl_ckpt_attr_t *attrs, size_t n_attrs);

/* Opens and verifies everything: HDF5 structure, version, every digest. ERR_IO or ERR_FORMAT say what is
 * wrong and, where the folder has another good checkpoint, name the newest one. Close with mbl_ckpt_close. */
typedef struct mbl_ckpt mbl_ckpt_t;
mbl_status_t mbl_ckpt_open(const char *path, mbl_ckpt_t **out);
void mbl_ckpt_close(mbl_ckpt_t *ckpt);
/* Whether the file had its trailer; else it was whole by the digest inside it, which was said. */
bool mbl_ckpt_has_trailer(const mbl_ckpt_t *ckpt);
/* Writes a lost trailer again, after verifying the attributes and every dataset by their own digests, which
 * is all that is left to vouch where a program has changed other bytes. *repaired false: there was nothing to
 * do. ERR_FORMAT for what is cut off or damaged. */
mbl_status_t mbl_ckpt_repair(const char *path, bool *repaired);
/* Exactly `count` elements of `dtype`, or ERR_FORMAT with file, name, found, wanted. */
mbl_status_t mbl_ckpt_read(mbl_ckpt_t *ckpt, const char *name, mbl_dtype_t dtype, size_t count, void *out);
const char *mbl_ckpt_attr(const mbl_ckpt_t *ckpt, const char *key); /* NULL when absent; kept until close */
/* The i-th dataset (name, dtype, count; data NULL), false past the end; for `marble inspect`. */
bool mbl_ckpt_item(const mbl_ckpt_t *ckpt, size_t i, mbl_ckpt_item_t *out);
/* The i-th attribute in order of its key, false past the end. */
bool mbl_ckpt_attr_at(const mbl_ckpt_t *ckpt, size_t i, mbl_ckpt_attr_t *out);

/* folder/step-NNNNNN.h5 for a step (out at least 512 bytes). */
mbl_status_t mbl_ckpt_path(const char *folder, size_t step, char *out, size_t size);
/* Which checkpoints of a folder stay: the `last` newest (0: all), those of steps that `every` divides (0:
 * none), and those of the steps in `also`. */
typedef struct {
    size_t last, every, n_also;
    const size_t *also;
} mbl_ckpt_keep_t;
/* Points folder/latest.h5 at the checkpoint of `step`, removes temporary files of writers that died, and
 * removes the checkpoints that `keep` does not name; that of `step` always stays. Folders and empty files
 * called like checkpoints do not count. OK: a run would go on from this one. */
mbl_status_t mbl_ckpt_publish(const char *folder, size_t step, const mbl_ckpt_keep_t *keep);
/* step-NNNNNN.h5 (+ suffix) and nothing else. */
bool mbl_ckpt_parse_step(const char *name, const char *suffix, size_t *step);
/* The step that latest.h5 of a folder names, false when there is none. */
bool mbl_ckpt_pointed(const char *folder, size_t *step);
/* latest.h5 alone: a relative symbolic link, replaced by rename; where there are no links a small file, which
 * mbl_ckpt_open follows, said the first time; where neither can be, none. */
mbl_status_t mbl_ckpt_point_latest(const char *folder, size_t step);
/* The file that a path names, through such a small file too. */
mbl_status_t mbl_ckpt_follow(const char *path, char *out, size_t size);
/* Where a checkpoint comes from, by its attributes. */
typedef struct {
    char run[MBL_CKPT_RUN_ROOM]; /* "": it names none (those of older versions) */
    size_t branch, step;
} mbl_ckpt_origin_t;
/* Reads the file once, all of it; datasets are not verified. */
mbl_status_t mbl_ckpt_origin(const char *path, mbl_ckpt_origin_t *out);
/* A run (NULL: any) and the steps back[n] that it went back to, in their order: what branch b wrote later
 * than back[i], i >= b, it has left behind. */
typedef struct {
    const char *run;
    const size_t *back;
    size_t n;
} mbl_ckpt_lineage_t;
/* Why a checkpoint is none of theirs, NULL when it is one, or may be one. */
const char *mbl_ckpt_stranger(const mbl_ckpt_origin_t *origin, const mbl_ckpt_lineage_t *lineage);

/* The newest checkpoint of `folder` that verifies: what latest.h5 points at (a run resumed from an earlier
 * step has published that later than any higher step left over), then by falling step; warns about each
 * damaged one. Strangers to lineage (NULL: none is) are passed over with a warning, and so are files called
 * after another step than theirs. *found false when there is none at all; ERR_FORMAT when there are some and
 * all are damaged, ERR_CONFIG when some are strangers and none is good. */
mbl_status_t mbl_ckpt_latest(const char *folder, const mbl_ckpt_lineage_t *lineage, char *out, size_t size,
                             bool *found);
/* The highest step of a file called like a checkpoint, whatever is in it; false when there is none. */
bool mbl_ckpt_highest(const char *folder, size_t *step);

#endif
