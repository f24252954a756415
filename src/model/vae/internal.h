/* What the files of the image autoencoder share: where every weight lies, and the decoder's buffers. */
#ifndef MBL_MODEL_VAE_INTERNAL_H
#define MBL_MODEL_VAE_INTERNAL_H

#include "model/vae/vae.h"

#define MBL_VAE_EPS 1e-6
enum { MBL_VAE_PIXELS = 3 }; /* channels of an image */

/* Places in the flat vector. A convolution's weight lies there as [out,k,k,in]; a linear is one of k = 1. */
typedef struct {
    size_t weight, bias, in, out, k;
} mbl_vae_conv_t;
typedef struct {
    size_t weight, bias, channels;
} mbl_vae_norm_t;
typedef struct {
    mbl_vae_norm_t norm1, norm2;
    mbl_vae_conv_t conv1, conv2, shortcut; /* shortcut.out = 0: none, the channels stay */
} mbl_vae_resnet_t;
typedef struct {
    mbl_vae_norm_t norm;
    mbl_vae_conv_t q, k, v, out;
} mbl_vae_attention_t;
/* One resolution; sample changes to the next one (out = 0: there is none). */
typedef struct {
    mbl_vae_resnet_t resnet[MBL_VAE_MAX_LAYERS + 1];
    size_t resnets;
    mbl_vae_conv_t sample;
} mbl_vae_block_t;
/* The encoder or the decoder. */
typedef struct {
    mbl_vae_conv_t conv_in, conv_out;
    mbl_vae_resnet_t mid[2];
    mbl_vae_attention_t attention;
    mbl_vae_block_t block[MBL_VAE_MAX_BLOCKS];
    mbl_vae_norm_t norm_out;
} mbl_vae_half_t;

/* A tensor as files have it: name, shape [dims], and where it lies. */
typedef struct {
    char name[96];
    int ndim;
    size_t dim[4], offset, count;
} mbl_vae_param_t;

typedef struct {
    mbl_vae_half_t decoder, encoder;
    /* The decoder's come first, [n_decoder]; of the others only names and shapes count. */
    mbl_vae_param_t *params;
    size_t n_params, n_decoder;
    size_t used; /* elements of the decoder's flat vector */
} mbl_vae_layout_t;
mbl_status_t mbl_vae_layout_new(const mbl_vae_config_t *config, mbl_vae_layout_t **out);
void mbl_vae_layout_free(mbl_vae_layout_t *layout); /* NULL is fine */

struct mbl_vae {
    mbl_ops_t *ops;
    mbl_dtype_t dtype;
    mbl_vae_config_t config;
    mbl_vae_layout_t *layout;
    mbl_tensor_t weights; /* flat, in the compute type */
};

#endif
