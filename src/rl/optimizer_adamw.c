/* AdamW (arXiv 1711.05101). */
#include "rl/optimizer.h"

enum { M, V };

static mbl_status_t step(mbl_optimizer_t *o, const mbl_optimizer_options_t *options,
                         const mbl_tensor_t *weights, const mbl_tensor_t *g, double scale) {
    return MBL_OP(o->ops, adamw, .w = weights, .m = &o->state[M], .v = &o->state[V], .g = g,
                  .lr = options->lr, .beta1 = options->beta1, .beta2 = options->beta2, .eps = options->eps,
                  .weight_decay = options->weight_decay, .grad_scale = scale, .step = o->steps + 1);
}

const mbl_optimizer_table_t mbl_optimizer_adamw = {.name = "adamw", .states = {"m", "v"}, .step = step};
