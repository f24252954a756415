/* What the methods share: unit gradients in, the direction out. */
#include "rl/methods.h"

void mbl_method_answer(const mbl_method_args_t *args, const double *share, mbl_method_answer_t *out) {
    double mean = 0, sum = 0;
    for (size_t i = 0; i < args->n; i++) {
        mean += args->norm[i] / (double)args->n;
        sum += share[i];
    }
    for (size_t i = 0; i < args->n; i++) {
        out->alpha[i] = share[i] / sum;
        out->coefficient[i] = mean * share[i] / sum / args->norm[i];
    }
}

void mbl_method_unit_gram(const mbl_method_args_t *args, double *gram) {
    for (size_t i = 0; i < args->n; i++)
        for (size_t j = 0; j < args->n; j++)
            gram[i * args->n + j] = i == j ? 1 : args->gram[i * args->n + j] / args->norm[i] / args->norm[j];
}
