/* What the files behind checkpoint.h share. */
#ifndef MBL_IO_CHECKPOINT_INTERNAL_H
#define MBL_IO_CHECKPOINT_INTERNAL_H

#include "base/sha256.h"
#include "io/checkpoint.h"

#define H5_USE_110_API 1 /* one set of calls for HDF5 1.10 to 1.14 */
#include <hdf5.h>

#define MBL_CKPT_VERSION_KEY "format_version"
#define MBL_CKPT_ATTRS_KEY "attributes_sha256"
#define MBL_CKPT_COUNT_KEY "datasets" /* how many there are; files of earlier versions do not say */
#define MBL_CKPT_DIGEST_KEY "sha256"
#define MBL_CKPT_SEAL_KEY "seal" /* of the first dataset: checkpoint_seal.c */
enum { MBL_CKPT_TRAILER = 128, MBL_CKPT_SEAL_ROOM = 160 };

/* HDF5 type of a dtype (the same in memory and in the file: marble's machines are little-endian), or a
 * negative id for a dtype that checkpoints do not hold; its element size. */
hid_t mbl_ckpt_type(mbl_dtype_t dtype);
size_t mbl_ckpt_size(mbl_dtype_t dtype);
const char *mbl_ckpt_dtype_name(mbl_dtype_t dtype);

/* Keeps HDF5 from printing to stderr; then: ERR_IO "path: HDF5 cannot `what` `name`: HDF5's own reason". */
void mbl_ckpt_quiet_hdf5(void);
mbl_status_t mbl_ckpt_hdf5_failed(const char *path, const char *what, const char *name);

/* A file of the in-memory driver that grows by `bytes` at a time and leaves nothing on disk; and the bytes of
 * a whole one as H5Fclose would leave them: the driver's own memory, not a copy, valid while the file is open
 * and untouched. */
hid_t mbl_ckpt_create_in_memory(const char *path, size_t bytes);
mbl_status_t mbl_ckpt_image(hid_t file, const char *path, unsigned char **image, size_t *size);

/* SHA-256 of "key\0value\0..." of attributes sorted by key. */
void mbl_ckpt_attrs_digest(const mbl_ckpt_attr_t *attrs, size_t n, char out[MBL_SHA256_HEX]);

/* Writes `size` bytes and the trailer to path + ".tmp", syncs, renames, syncs the folder. */
mbl_status_t mbl_ckpt_write_file(const char *path, const unsigned char *data, size_t size);
/* For files that other ranks write into: `size` bytes to path + ".tmp", which is removed when that fails;
 * later the trailer over what stands there then, sync, rename, sync of the folder (a failure leaves the
 * temporary file). */
mbl_status_t mbl_ckpt_write_skeleton(const char *path, const unsigned char *data, size_t size);
mbl_status_t mbl_ckpt_finish_file(const char *path);
/* The file of mbl_ckpt_write given to `put`. digests (NULL: none) [n]: an item with a digest has no data; it
 * is stored as zeros that stand where the data will, with that digest. */
mbl_status_t mbl_ckpt_make(const char *path, const mbl_ckpt_item_t *items, size_t n,
                           const mbl_ckpt_attr_t *attrs, size_t n_attrs, const char *const *digests,
                           mbl_status_t (*put)(const char *path, const unsigned char *data, size_t size));
/* The folder of a path, "." when it has none; NULL without memory. Free with mbl_free. */
char *mbl_ckpt_folder_of(const char *path);
/* Syncs the folder of a path: a renamed file is safe only when its folder is on disk too. */
mbl_status_t mbl_ckpt_sync_folder(const char *path);
/* What says that a file is whole: its trailer; the digest inside it, where the trailer has been cut off;
 * nothing, where there is no trailer and no digest that fits. */
typedef enum { MBL_CKPT_BY_TRAILER, MBL_CKPT_BY_SEAL, MBL_CKPT_BY_NOTHING } mbl_ckpt_vouch_t;
/* Reads the whole file and compares it with its trailer or the digest inside. *vouch is set on failure too.
 */
mbl_status_t mbl_ckpt_verify_file(const char *path, mbl_ckpt_vouch_t *vouch);

/* The text of the attribute as it is put in; the digest into an image, and into the first `size` bytes of a
 * file; and whether a file has one that fits. Files without the text are left as they are. */
const char *mbl_ckpt_seal_text(char out[MBL_CKPT_SEAL_ROOM]);
void mbl_ckpt_seal(unsigned char *image, size_t size);
mbl_status_t mbl_ckpt_seal_file(int fd, const char *path, size_t size);
mbl_status_t mbl_ckpt_seal_check(int fd, const char *path, size_t size, bool *whole);

void mbl_ckpt_take_origin(const mbl_ckpt_t *ckpt, mbl_ckpt_origin_t *out);

/* Digests of everything inside a file that has no trailer yet. */
mbl_status_t mbl_ckpt_verify_inside(const char *path);
/* mbl_ckpt_open without the search for another good one in the folder. */
mbl_status_t mbl_ckpt_open_only(const char *path, mbl_ckpt_t **out);
/* The newest checkpoint beside `path`, other than it, that verifies; false when there is none. */
bool mbl_ckpt_other_good(const char *path, char *out, size_t size);

#endif
