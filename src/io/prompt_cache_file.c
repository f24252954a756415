/* One file of the prompt cache: three datasets, laid out without gaps so that the line at the end can say
 * where they are, put together in memory (see checkpoint.c) and written at once. */
#include "base/file.h"
#include "base/mem.h"
#include "io/checkpoint_internal.h"
#include "io/prompt_cache_internal.h"

#include <stdio.h>
#include <string.h>

static const char format[] = "marble prompts v1";

/* All but the digest. */
static int describe(const mbl_prompt_layout_t *l, char *out, size_t size) {
    return snprintf(out, size, "%s records %zu bytes %zu at %zu keys %zu digests %zu group %s", format,
                    l->records, l->bytes, l->at, l->keys_at, l->digests_at, l->group);
}

void mbl_prompt_tables_digest(const mbl_prompt_layout_t *layout, const mbl_prompt_key_t *keys,
                              const void *digests, char out[MBL_SHA256_HEX]) {
    char line[MBL_PROMPT_TRAILER];
    mbl_sha256_t sha;
    mbl_sha256_init(&sha);
    mbl_sha256_update(&sha, line, (size_t)describe(layout, line, sizeof line));
    mbl_sha256_update(&sha, keys, layout->records * sizeof *keys);
    mbl_sha256_update(&sha, digests, layout->records * MBL_SHA256_BYTES);
    mbl_sha256_hex(&sha, out);
}

void mbl_prompt_trailer_make(const mbl_prompt_layout_t *layout, const char *tables_sha256,
                             char out[MBL_PROMPT_TRAILER + 1]) {
    snprintf(out, MBL_PROMPT_TRAILER + 1, "%-*s", MBL_PROMPT_TRAILER, "");
    int n = describe(layout, out, MBL_PROMPT_TRAILER);
    n += snprintf(out + n, MBL_PROMPT_TRAILER - (size_t)n, " sha256 %s", tables_sha256);
    out[n] = ' ';
    out[MBL_PROMPT_TRAILER - 1] = '\n';
}

bool mbl_prompt_trailer_read(const char text[MBL_PROMPT_TRAILER + 1], mbl_prompt_layout_t *layout,
                             char tables_sha256[MBL_SHA256_HEX]) {
    char again[MBL_PROMPT_TRAILER + 1];
    size_t start = strlen(format);
    if (strncmp(text, format, start) != 0 ||
        sscanf(text + start,
               " records %zu bytes %zu at %zu keys %zu digests %zu group %64[0-9a-f] sha256 %64[0-9a-f]",
               &layout->records, &layout->bytes, &layout->at, &layout->keys_at, &layout->digests_at,
               layout->group, tables_sha256) != 7)
        return false;
    mbl_prompt_trailer_make(layout, tables_sha256, again);
    return memcmp(text, again, MBL_PROMPT_TRAILER) == 0;
}

static bool put_text(hid_t file, const char *key, const char *value) {
    hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate(H5S_SCALAR), attr = H5I_INVALID_HID;
    bool good = type >= 0 && space >= 0 && H5Tset_size(type, strlen(value) + 1) >= 0 &&
                H5Tset_cset(type, H5T_CSET_UTF8) >= 0;
    if (good)
        attr = H5Acreate2(file, key, type, space, H5P_DEFAULT, H5P_DEFAULT);
    good = attr >= 0 && H5Awrite(attr, type, value) >= 0;
    if (attr >= 0)
        H5Aclose(attr);
    if (space >= 0)
        H5Sclose(space);
    if (type >= 0)
        H5Tclose(type);
    return good;
}

/* u8 [n, columns] in one piece; where it lies goes to *at. */
static bool put_table(hid_t file, const char *name, size_t n, size_t columns, const void *data, size_t *at) {
    hsize_t dims[2] = {n, columns};
    hid_t space = H5Screate_simple(2, dims, NULL), creation = H5Pcreate(H5P_DATASET_CREATE);
    hid_t set = H5I_INVALID_HID;
    bool good = space >= 0 && creation >= 0 && H5Pset_layout(creation, H5D_CONTIGUOUS) >= 0 &&
                H5Pset_alloc_time(creation, H5D_ALLOC_TIME_EARLY) >= 0 &&
                H5Pset_fill_time(creation, H5D_FILL_TIME_NEVER) >= 0 &&
                H5Pset_obj_track_times(creation, false) >= 0;
    if (good)
        set = H5Dcreate2(file, name, H5T_STD_U8LE, space, H5P_DEFAULT, creation, H5P_DEFAULT);
    good = set >= 0 && H5Dwrite(set, H5T_STD_U8LE, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0;
    haddr_t offset = good ? H5Dget_offset(set) : HADDR_UNDEF;
    if (set >= 0)
        H5Dclose(set);
    if (creation >= 0)
        H5Pclose(creation);
    if (space >= 0)
        H5Sclose(space);
    *at = (size_t)offset;
    return good && offset != HADDR_UNDEF;
}

static mbl_status_t put_on_disk(hid_t file, const char *path, const mbl_prompt_layout_t *layout,
                                const char *tables_sha256) {
    char trailer[MBL_PROMPT_TRAILER + 1];
    mbl_file_writer_t writer;
    unsigned char *image;
    size_t size;
    MBL_TRY(mbl_ckpt_image(file, path, &image, &size));
    mbl_prompt_trailer_make(layout, tables_sha256, trailer);
    MBL_TRY(mbl_file_begin(path, &writer));
    MBL_TRY(mbl_file_put(&writer, image, size));
    MBL_TRY(mbl_file_put(&writer, trailer, MBL_PROMPT_TRAILER));
    return mbl_file_commit(&writer);
}

static mbl_status_t fill(hid_t file, const char *path, const char *about, mbl_prompt_layout_t *layout,
                         const mbl_prompt_key_t *keys, const void *records,
                         const unsigned char (*digests)[MBL_SHA256_BYTES]) {
    const struct {
        const char *name;
        size_t columns;
        const void *data;
        size_t *at;
    } tables[] = {{"records", layout->bytes, records, &layout->at},
                  {"keys", MBL_SHA256_BYTES, keys, &layout->keys_at},
                  {"sha256", MBL_SHA256_BYTES, digests, &layout->digests_at}};
    if (!put_text(file, "format", format) || !put_text(file, "group", layout->group) ||
        !put_text(file, "about", about))
        return mbl_ckpt_hdf5_failed(path, "store", "an attribute");
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
        if (!put_table(file, tables[i].name, layout->records, tables[i].columns, tables[i].data,
                       tables[i].at))
            return mbl_ckpt_hdf5_failed(path, "store dataset", tables[i].name);
    return MBL_OK;
}

static void digest_records(size_t n, size_t bytes, const unsigned char *records,
                           unsigned char (*digests)[MBL_SHA256_BYTES]) {
    for (size_t i = 0; i < n; i++) {
        mbl_sha256_t sha;
        mbl_sha256_init(&sha);
        mbl_sha256_update(&sha, records + i * bytes, bytes);
        mbl_sha256_final(&sha, digests[i]);
    }
}

mbl_status_t mbl_prompt_file_write(const char *path, const char *group, const char *about, size_t n,
                                   size_t bytes, const mbl_prompt_key_t *keys, const void *records) {
    mbl_status_t status;
    unsigned char(*digests)[MBL_SHA256_BYTES];
    char tables[MBL_SHA256_HEX];
    mbl_prompt_layout_t layout = {.records = n, .bytes = bytes};
    snprintf(layout.group, sizeof layout.group, "%s", group);
    MBL_ALLOC(digests, n);
    digest_records(n, bytes, records, digests);
    mbl_ckpt_quiet_hdf5();
    hid_t file = mbl_ckpt_create_in_memory(path, n * bytes + n * 64 + (1 << 20));
    if (file < 0) {
        status = mbl_ckpt_hdf5_failed(path, "make", "a file in memory");
        goto done;
    }
    status =
        fill(file, path, about, &layout, keys, records, (const unsigned char(*)[MBL_SHA256_BYTES])digests);
    if (status == MBL_OK) {
        mbl_prompt_tables_digest(&layout, keys, digests, tables);
        status = put_on_disk(file, path, &layout, tables);
    }
    H5Fclose(file);
done:
    mbl_free(digests);
    return status;
}
