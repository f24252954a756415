/* Tensors by their shape, as a folder's config.json asks for them. */
#include "model/st_check.h"

#include <stdio.h>
#include <string.h>

enum {
    SHAPE_TEXT = 2 + MBL_ST_MAX_DIMS * 21
}; /* numbers of at most 20 digits, what parts them, [ and zero */

static const char *shape_text(int ndim, const size_t *dim, char out[SHAPE_TEXT]) {
    size_t at = 0;
    out[at++] = '[';
    for (int i = 0; i < ndim; i++)
        at += (size_t)snprintf(out + at, SHAPE_TEXT - at, "%s%zu", i ? "," : "", dim[i]);
    snprintf(out + at, SHAPE_TEXT - at, "]");
    return out;
}

bool mbl_st_has_shape(const mbl_st_entry_t *entry, int ndim, const size_t *dim) {
    return entry->ndim == ndim && memcmp(entry->dim, dim, (size_t)ndim * sizeof *dim) == 0;
}

mbl_status_t mbl_st_check_shape(const mbl_st_t *st, const char *folder, const char *name, int ndim,
                                const size_t *dim) {
    char found[SHAPE_TEXT], expected[SHAPE_TEXT];
    const mbl_st_entry_t *entry = mbl_st_find(st, name);
    if (entry && mbl_st_has_shape(entry, ndim, dim))
        return MBL_OK;
    shape_text(ndim, dim, expected);
    if (!entry)
        return MBL_FAIL(MBL_ERR_FORMAT,
                        "%s: tensor %s: missing; expected one of shape %s, as config.json says", folder, name,
                        expected);
    return MBL_FAIL(MBL_ERR_FORMAT, "%s: tensor %s: found shape %s; expected %s, as config.json says", folder,
                    name, shape_text(entry->ndim, entry->dim, found), expected);
}
