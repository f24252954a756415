/* What a model asks of a tensor in a folder's safetensors: to be there, with a shape. */
#ifndef MBL_MODEL_ST_CHECK_H
#define MBL_MODEL_ST_CHECK_H

#include "model/safetensors.h"

bool mbl_st_has_shape(const mbl_st_entry_t *entry, int ndim, const size_t *dim);
/* ERR_FORMAT with folder, tensor, found and expected shape where it is not there with this one. */
mbl_status_t mbl_st_check_shape(const mbl_st_t *st, const char *folder, const char *name, int ndim,
                                const size_t *dim);

#endif
