/* The methods by name and flag, and what they share: unit gradients in, the direction out. */
#include "rl/methods.h"

#include <string.h>

static const struct {
    const char *name, *help;
    unsigned flags;
    mbl_method_fn *solve;
} methods[] = {
#define WEIGHS(NAME, word, flags, help) [MBL_METHOD_##NAME] = {#word, help, flags, mbl_method_##word},
#define FOLLOWS(NAME, word, flags, help) [MBL_METHOD_##NAME] = {#word, help, flags, NULL},
    MBL_METHOD_LIST(WEIGHS, FOLLOWS)
#undef WEIGHS
#undef FOLLOWS
};

const char *mbl_method_name(mbl_method_t method) {
    return methods[method].name;
}

const char *mbl_method_help(mbl_method_t method) {
    return methods[method].help;
}

bool mbl_method_find(const char *name, mbl_method_t *out) {
    for (int i = 0; i < MBL_METHODS; i++)
        if (strcmp(name, methods[i].name) == 0) {
            *out = (mbl_method_t)i;
            return true;
        }
    return false;
}

bool mbl_method_is(mbl_method_t method, unsigned flags) {
    return (methods[method].flags & flags) == flags;
}

bool mbl_method_has_objective(mbl_method_t method) {
    return mbl_method_is(method, MBL_METHOD_OBJECTIVE);
}

bool mbl_method_solves(mbl_method_t method) {
    return mbl_method_is(method, MBL_METHOD_SOLVES);
}

mbl_method_fn *mbl_method_solver(mbl_method_t method) {
    return methods[method].solve;
}

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
