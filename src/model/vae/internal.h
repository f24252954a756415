/* What the files of the image autoencoder share: where every weight lies, and the pass
 * through its blocks. */
#ifndef MBL_MODEL_VAE_INTERNAL_H
#define MBL_MODEL_VAE_INTERNAL_H

#include "base/mem.h"
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
    size_t first, n; /* its tensors in the list */
    size_t used;     /* elements of its flat vector */
} mbl_vae_half_t;

/* A tensor as files have it: name, shape [dims], and where it lies. */
typedef struct {
    char name[96];
    int ndim;
    size_t dim[4], offset, count;
} mbl_vae_param_t;

typedef struct {
    mbl_vae_half_t half[MBL_VAE_PARTS];
    mbl_vae_param_t *params; /* of both halves */
    size_t n_params;
} mbl_vae_layout_t;
mbl_status_t mbl_vae_layout_new(const mbl_vae_config_t *config, mbl_vae_layout_t **out);
void mbl_vae_layout_free(mbl_vae_layout_t *layout); /* NULL is fine */

struct mbl_vae {
    mbl_ops_t *ops;
    mbl_dtype_t dtype;
    mbl_vae_config_t config;
    mbl_vae_layout_t *layout;
    const mbl_vae_half_t *half; /* what was opened */
    mbl_tensor_t weights;       /* its own, flat, in the compute type */
};

/* ---- the pass, channels last throughout (pass.c) ---- */

/* n images of height x width: x holds them, spare takes the next ones, inner is for what is within a block, k
 * and v are of the attention; all ct. */
typedef struct {
    const mbl_vae_t *vae;
    mbl_ops_t *ops;
    size_t n, height, width;
    void *x, *spare, *inner, *k, *v;
} mbl_vae_pass_t;

/* The most values that the buffers hold for one sample. */
typedef struct {
    size_t stream, inner, attended; /* x and spare; inner; k and v */
} mbl_vae_room_t;
static inline size_t mbl_vae_most(size_t a, size_t b) {
    return a > b ? a : b;
}
void mbl_vae_pass_carve(mbl_vae_pass_t *p, mbl_arena_t *arena, mbl_dtype_t dtype, size_t max_n,
                        const mbl_vae_room_t *room);
/* ERR_ARG for what would overflow the sizes above: max_n images whose latents are height x width. */
mbl_status_t mbl_vae_check_size(const char *call, size_t max_n, size_t height, size_t width);

mbl_tensor_t mbl_vae_image(const mbl_vae_pass_t *p, void *data, size_t up, size_t channels);
mbl_tensor_t mbl_vae_tokens(const mbl_vae_pass_t *p, void *data, size_t channels);
/* from = to is fine */
mbl_status_t mbl_vae_norm(const mbl_vae_pass_t *p, const mbl_vae_norm_t *norm, void *to, void *from,
                          bool silu);
mbl_status_t mbl_vae_conv(const mbl_vae_pass_t *p, const mbl_vae_conv_t *conv, void *to, void *from,
                          size_t up, bool accumulate);
void mbl_vae_swap(mbl_vae_pass_t *p); /* x and spare */
mbl_status_t mbl_vae_resnet(mbl_vae_pass_t *p, const mbl_vae_resnet_t *resnet);
/* Two residual blocks and the attention between them. */
mbl_status_t mbl_vae_middle(mbl_vae_pass_t *p, const mbl_vae_half_t *half);
/* A constant everywhere in an [n] tensor of the statistics' type. */
mbl_status_t mbl_vae_fill(const mbl_vae_t *vae, void *data, size_t n, double value);

/* ---- of the tiles of an image (decoder.c) ---- */

/* mbl_vae_decode of latents [n,C,h,w] of at most the decoder's n, height and width. */
mbl_status_t mbl_vae_decode_part(mbl_vae_decoder_t *decoder, const mbl_tensor_t *latents,
                                 const mbl_tensor_t *pixels);
/* As the operation to_bytes. */
uint8_t mbl_vae_to_byte(double x);

#endif
