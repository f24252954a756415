/* Setting up a primitive of oneDNN. 2.x keeps memory descriptors by value and operation descriptors
 * apart; 3.x has handles and creates primitive descriptors at once: what both families share of that is in
 * here. */
#ifndef MBL_OPS_CPU_DNNL_SETUP_H
#define MBL_OPS_CPU_DNNL_SETUP_H

#include "base/status.h"

#include <oneapi/dnnl/dnnl.h>

#define DNNL_TRY(expr)                                                                                       \
    do {                                                                                                     \
        dnnl_status_t dnnl_status_ = (expr);                                                                 \
        if (dnnl_status_ != dnnl_success)                                                                    \
            return dnnl_status_;                                                                             \
    } while (0)

/* DNNL_REF: a descriptor as calls take it. */
#if DNNL_VERSION_MAJOR >= 3
typedef const_dnnl_memory_desc_t mbl_dnnl_ref_t;
#define DNNL_REF(descriptor) (descriptor)
#else
typedef const dnnl_memory_desc_t *mbl_dnnl_ref_t;
#define DNNL_REF(descriptor) (&(descriptor))
#endif

/* Fails with what oneDNN could not do and why: ERR_MEM, or ERR_DEVICE. */
mbl_status_t mbl_dnnl_failed(const char *what, dnnl_status_t status);

/* What only the making of a primitive needs. */
typedef struct {
    dnnl_primitive_attr_t attr;
    dnnl_post_ops_t post;
    dnnl_primitive_desc_t pd;
} mbl_dnnl_setup_t;

/* attr has the caller's scratch memory and an empty list of post operations. End also after a failure. */
dnnl_status_t mbl_dnnl_setup_begin(mbl_dnnl_setup_t *setup);
/* Frees the setup and descriptors [n]; those never made are NULL (3.x) or bytes of 0 (2.x). */
void mbl_dnnl_setup_end(mbl_dnnl_setup_t *setup, dnnl_memory_desc_t *descriptors, int n);

/* strides in elements; tag: a layout's name. */
dnnl_status_t mbl_dnnl_describe(dnnl_memory_desc_t *out, dnnl_data_type_t type, int ndim,
                                const dnnl_dims_t dims, const dnnl_dims_t strides);
dnnl_status_t mbl_dnnl_describe_as(dnnl_memory_desc_t *out, dnnl_data_type_t type, int ndim,
                                   const dnnl_dims_t dims, dnnl_format_tag_t tag);
/* The result is added to what lies there. */
dnnl_status_t mbl_dnnl_append_sum(dnnl_post_ops_t post);
dnnl_status_t mbl_dnnl_append_act(dnnl_post_ops_t post, dnnl_alg_kind_t kind, float alpha);
/* Handles without data, which is set before every run; `like` NULL: none. */
dnnl_status_t mbl_dnnl_memory(dnnl_engine_t engine, mbl_dnnl_ref_t like, dnnl_memory_t *out);
/* The handle for the scratch memory that the primitive of pd wants, none and 0 bytes where it wants none. */
dnnl_status_t mbl_dnnl_scratch(dnnl_engine_t engine, dnnl_primitive_desc_t pd, dnnl_memory_t *out,
                               size_t *bytes);
/* Frees those that are there. */
void mbl_dnnl_memory_free(dnnl_memory_t *memory, int n);

#endif
