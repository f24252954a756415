/* marble solve: the methods alone. A Gram matrix as JSON in, weights with their certificate as JSON out. */
#include "base/log.h"
#include "base/mem.h"
#include "base/suggest.h"
#include "cli/args.h"
#include "cli/commands.h"
#include "rl/balance.h"
#include "rl/qp.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { N = MBL_QP_MAX };

/* What rounding in a printed matrix may do, relative to the lengths of the gradients. */
static const double ROUNDING = 1e-6;

typedef struct {
    const char *path; /* for messages */
    size_t k;
    double gram[N * N], weights[N], linear[N];
    bool has_weights, has_linear, normalize;
    double floor, cagrad_c;
    mbl_method_t method;
    const char *method_name;
} problem_t;

typedef struct {
    double alpha[N], coefficient[N], cos[N], objective, kkt_residual;
    bool active[N];
} answer_t;

static mbl_status_t read_number(const problem_t *p, const json_t *value, const char *where, double *out) {
    if (!json_is_number(value) || !isfinite(json_number_value(value))) {
        char *text = value ? json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT) : NULL;
        mbl_status_t status = MBL_FAIL(MBL_ERR_CONFIG, "%s: %s is %.40s; expected a finite number", p->path,
                                       where, text ? text : "missing");
        free(text);
        return status;
    }
    *out = json_number_value(value);
    return MBL_OK;
}

/* An optional list of k numbers. */
static mbl_status_t read_list(const problem_t *p, const json_t *json, const char *key, double *out,
                              bool *found) {
    const json_t *list = json_object_get(json, key);
    char where[64];
    if (!list || json_is_null(list))
        return MBL_OK;
    if (!json_is_array(list) || json_array_size(list) != p->k)
        return MBL_FAIL(MBL_ERR_CONFIG, "%s: %s has %zu numbers; expected %zu, one for each row of gram",
                        p->path, key, json_array_size(list), p->k);
    for (size_t i = 0; i < p->k; i++) {
        snprintf(where, sizeof where, "%s[%zu]", key, i);
        MBL_TRY(read_number(p, json_array_get(list, i), where, &out[i]));
    }
    *found = true;
    return MBL_OK;
}

static mbl_status_t read_gram(problem_t *p, const json_t *gram) {
    char where[64];
    if (!json_is_array(gram) || json_array_size(gram) < 1 || json_array_size(gram) > N)
        return MBL_FAIL(MBL_ERR_CONFIG,
                        "%s: gram is %s; expected a square matrix of 1 to %d rows, "
                        "\"gram\": [[1, 0], [0, 1]]",
                        p->path,
                        !gram                   ? "missing"
                        : !json_is_array(gram)  ? "not a list"
                        : json_array_size(gram) ? "too large"
                                                : "empty",
                        N);
    p->k = json_array_size(gram);
    for (size_t i = 0; i < p->k; i++) {
        const json_t *row = json_array_get(gram, i);
        if (!json_is_array(row) || json_array_size(row) != p->k)
            return MBL_FAIL(MBL_ERR_CONFIG,
                            "%s: gram is not square: row %zu has %zu numbers, there are %zu rows", p->path, i,
                            json_array_size(row), p->k);
        for (size_t j = 0; j < p->k; j++) {
            snprintf(where, sizeof where, "gram[%zu][%zu]", i, j);
            MBL_TRY(read_number(p, json_array_get(row, j), where, &p->gram[i * p->k + j]));
        }
    }
    return MBL_OK;
}

static mbl_status_t check_keys(const problem_t *p, json_t *json) {
    static const char *const keys[] = {"gram", "floor", "normalize", "weights", "linear", "cagrad_c"};
    char hint[MBL_SUGGESTED];
    const char *key, *best = NULL;
    json_t *value;
    json_object_foreach(json, key, value) {
        size_t distance = 0, i = 0, n = sizeof keys / sizeof *keys;
        while (i < n && strcmp(key, keys[i]) != 0)
            mbl_suggest(key, keys[i++], &best, &distance);
        if (i == n)
            return MBL_FAIL(
                MBL_ERR_CONFIG,
                "%s: %.40s: unknown key%s; gram, floor, normalize, weights, linear and cagrad_c are "
                "known",
                p->path, key, mbl_suggested("", best, hint));
        best = NULL;
    }
    return MBL_OK;
}

/* What only some methods know. */
static mbl_status_t check_method(problem_t *p, const json_t *json) {
    const json_t *c = json_object_get(json, "cagrad_c");
    bool floored = mbl_method_is(p->method, MBL_METHOD_FLOOR);
    const char *wrong = p->method == MBL_METHOD_MARBLE ? NULL
                        : !p->normalize                ? "normalize: false"
                        : p->has_linear                ? "linear"
                        : p->floor != 0 && !floored    ? "floor"
                                                       : NULL;
    if (wrong)
        return MBL_FAIL(MBL_ERR_CONFIG, "%s: %s with method %s; expected it with --method marble%s only",
                        p->path, wrong, p->method_name,
                        strcmp(wrong, "floor") == 0 ? " or marble_reference" : "");
    if (c && p->method != MBL_METHOD_CAGRAD)
        return MBL_FAIL(MBL_ERR_CONFIG, "%s: cagrad_c with method %s; expected it with --method cagrad only",
                        p->path, p->method_name);
    if (c)
        MBL_TRY(read_number(p, c, "cagrad_c", &p->cagrad_c));
    if (!(p->cagrad_c >= 0 && p->cagrad_c < 1))
        return MBL_FAIL(MBL_ERR_CONFIG, "%s: cagrad_c is %g; expected 0 or more, and less than 1", p->path,
                        p->cagrad_c);
    return MBL_OK;
}

static mbl_status_t read_problem(problem_t *p, json_t *json) {
    const json_t *normalize = json_object_get(json, "normalize"), *floor = json_object_get(json, "floor");
    MBL_TRY(check_keys(p, json));
    MBL_TRY(read_gram(p, json_object_get(json, "gram")));
    MBL_TRY(read_list(p, json, "weights", p->weights, &p->has_weights));
    MBL_TRY(read_list(p, json, "linear", p->linear, &p->has_linear));
    for (size_t i = 0; p->has_weights && i < p->k; i++)
        if (!(p->weights[i] > 0))
            return MBL_FAIL(MBL_ERR_CONFIG,
                            "%s: weights[%zu] is %g; expected a positive number (leave the row and "
                            "column out instead of giving it none)",
                            p->path, i, p->weights[i]);
    if (normalize && !json_is_boolean(normalize))
        return MBL_FAIL(MBL_ERR_CONFIG, "%s: normalize is neither true nor false", p->path);
    p->normalize = !normalize || json_is_true(normalize);
    if (floor)
        MBL_TRY(read_number(p, floor, "floor", &p->floor));
    return check_method(p, json);
}

/* Symmetric up to rounding, which is then removed. */
static mbl_status_t check_symmetry(problem_t *p) {
    size_t k = p->k;
    double *g = p->gram;
    for (size_t i = 0; i < k; i++)
        if (g[i * k + i] < 0)
            return MBL_FAIL(MBL_ERR_CONFIG,
                            "%s: gram[%zu][%zu] is %g; expected 0 or more, as a squared length is", p->path,
                            i, i, g[i * k + i]);
    for (size_t i = 0; i < k; i++)
        for (size_t j = 0; j < i; j++) {
            double a = g[i * k + j], b = g[j * k + i], size = sqrt(g[i * k + i]) * sqrt(g[j * k + j]);
            if (fabs(a - b) > ROUNDING * fmax(size, fmax(fabs(a), fabs(b))))
                return MBL_FAIL(MBL_ERR_CONFIG,
                                "%s: gram is not symmetric: [%zu][%zu] is %.10g and [%zu][%zu] is %.10g",
                                p->path, i, j, a, j, i, b);
            g[i * k + j] = g[j * k + i] = 0.5 * a + 0.5 * b;
        }
    return MBL_OK;
}

/* Positive semidefinite up to rounding: the matrix of cosines plus a little on the diagonal has a Cholesky
 * factor. */
static mbl_status_t check_definite(const problem_t *p) {
    static const char *const advice =
        "a matrix of inner products is positive semidefinite; if it was rounded, give "
        "more digits";
    size_t k = p->k;
    double l[N][N], length[N];
    for (size_t i = 0; i < k; i++)
        length[i] = sqrt(p->gram[i * k + i]);
    for (size_t i = 0; i < k; i++)
        for (size_t j = 0; j <= i; j++) {
            double value = p->gram[i * k + j], size = length[i] * length[j];
            if (fabs(value) > size * (1 + ROUNDING))
                return MBL_FAIL(MBL_ERR_CONFIG,
                                "%s: gram[%zu][%zu] is %.10g, more than |g_%zu| |g_%zu| = %.10g; %s", p->path,
                                i, j, value, i, j, size, advice);
            double sum = i == j ? 1 + (double)k * ROUNDING : size > 0 ? value / size : 0;
            for (size_t m = 0; m < j; m++)
                sum -= l[i][m] * l[j][m];
            if (i == j && !(sum > 0))
                return MBL_FAIL(MBL_ERR_CONFIG, "%s: gram has a negative eigenvalue (found at row %zu); %s",
                                p->path, i, advice);
            l[i][j] = i == j ? sqrt(sum) : sum / l[j][j];
        }
    return MBL_OK;
}

static bool is_used(const problem_t *p, size_t i) {
    return sqrt(p->gram[i * p->k + i]) > 1e-12; /* as in training */
}

/* The gradients as they are, of whatever length; priorities as in mbl_qp_balance. The problem of the
 * gradients that are not zero, in units of the shortest. */
static mbl_status_t solve_raw(const problem_t *p, answer_t *out) {
    double c[N * N], factor[N], length[N], linear[N], sum = 0, unit = INFINITY;
    size_t index[N], k = p->k, n = 0;
    mbl_qp_result_t qp;
    for (size_t i = 0; i < k; i++)
        if (is_used(p, i)) {
            sum += p->has_weights ? p->weights[i] : 1;
            index[n++] = i;
        }
    for (size_t i = 0; i < n; i++) {
        factor[i] = p->has_weights ? sum / (double)n / p->weights[index[i]] : 1;
        length[i] = factor[i] * sqrt(p->gram[index[i] * k + index[i]]);
        unit = fmin(unit, length[i]);
    }
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < n; j++)
            c[i * n + j] = p->gram[index[i] * k + index[j]] * factor[i] / length[i] * factor[j] / length[j];
        linear[i] = p->linear[index[i]] / unit / unit;
    }
    for (size_t i = 0; i < n; i++)
        length[i] = fmax(1, length[i] / unit);
    MBL_TRY(mbl_qp_solve_lengths(c, p->has_linear ? linear : NULL, length, n, p->floor, &qp));
    for (size_t i = 0; i < n; i++) {
        out->alpha[index[i]] = qp.alpha[i];
        out->active[index[i]] = qp.active[i];
        out->coefficient[index[i]] = qp.alpha[i] * factor[i];
    }
    out->objective = qp.objective * unit * unit;
    out->kkt_residual = qp.kkt_residual;
    return MBL_OK;
}

static mbl_status_t solve_units(const problem_t *p, answer_t *out) {
    mbl_balance_result_t result;
    MBL_TRY(mbl_qp_balance_linear(p->gram, p->has_linear ? p->linear : NULL, p->k, p->floor,
                                  p->has_weights ? p->weights : NULL, &result));
    memcpy(out->alpha, result.qp.alpha, sizeof out->alpha);
    memcpy(out->active, result.qp.active, sizeof out->active);
    memcpy(out->coefficient, result.coefficient, sizeof out->coefficient);
    out->objective = result.qp.objective;
    out->kkt_residual = result.qp.kkt_residual;
    return MBL_OK;
}

/* As training does it, from the gradients as sets without a common part. */
static mbl_status_t solve_method(const problem_t *p, answer_t *out) {
    mbl_sets_t sets = {.parts = p->k};
    mbl_balance_options_t options = {.method = p->method,
                                     .sets = &sets,
                                     .floor = p->floor,
                                     .cagrad_c = p->cagrad_c,
                                     .weights = p->has_weights ? p->weights : NULL};
    mbl_balance_state_t state = {.seen = {false}};
    mbl_balance_step_t step;
    memset(sets.of, MBL_NO_MASK, sizeof sets.of);
    MBL_TRY(mbl_balance_local(&options, p->gram, p->k, &state, &step));
    memcpy(out->alpha, step.alpha, sizeof out->alpha);
    memcpy(out->coefficient, step.coefficient, sizeof out->coefficient);
    out->kkt_residual = step.kkt_residual;
    return MBL_OK;
}

static mbl_status_t check_floor(const problem_t *p, size_t taking_part) {
    if (p->floor >= 0 && p->floor * (double)taking_part <= 1)
        return MBL_OK;
    return MBL_FAIL(MBL_ERR_CONFIG, "%s: floor is %g; expected 0 to %.10g (1 / %zu gradients)", p->path,
                    p->floor, 1 / (double)taking_part, taking_part);
}

static mbl_status_t solve(const problem_t *p, answer_t *out) {
    size_t taking_part = 0;
    memset(out, 0, sizeof *out);
    for (size_t i = 0; i < p->k; i++)
        taking_part += is_used(p, i);
    if (!taking_part)
        return MBL_FAIL(MBL_ERR_CONFIG, "%s: every gradient is zero; there is nothing to balance", p->path);
    MBL_TRY(check_floor(p, taking_part));
    MBL_TRY(p->method != MBL_METHOD_MARBLE ? solve_method(p, out)
            : p->normalize                 ? solve_units(p, out)
                                           : solve_raw(p, out));
    for (size_t i = 0; i < p->k; i++)
        if (!is_used(p, i))
            MBL_WARN("%s: gradient %zu is zero and gets no weight", p->path, i);
    mbl_qp_cosines(p->gram, p->k, out->coefficient, out->cos);
    return MBL_OK;
}

static void print_list(const char *key, const double *values, size_t k) {
    printf("\"%s\": [", key);
    for (size_t i = 0; i < k; i++)
        printf("%s%.15g", i ? ", " : "", values[i]);
    printf("], ");
}

/* What certifies a quadratic program is printed where marble solved one. */
static mbl_status_t print_answer(const answer_t *answer, const problem_t *p) {
    bool marble = p->method == MBL_METHOD_MARBLE;
    printf("{");
    print_list("alpha", answer->alpha, p->k);
    if (marble)
        printf("\"objective\": %.15g, ", answer->objective);
    printf("\"kkt_residual\": %.3g, ", answer->kkt_residual);
    print_list("cos", answer->cos, p->k);
    print_list("coefficient", answer->coefficient, p->k);
    printf("\"method\": \"%s\"", p->method_name);
    for (size_t i = 0; marble && i < p->k; i++)
        printf("%s%s", i ? ", " : ", \"active\": [", answer->active[i] ? "true" : "false");
    printf("%s}\n", marble ? "]" : "");
    if (fflush(stdout) != 0 || ferror(stdout))
        return MBL_FAIL(MBL_ERR_IO, "solve: the answer cannot be written: %s", strerror(errno));
    return MBL_OK;
}

/* The JSON object in a file, or on standard input. */
static mbl_status_t load(const char *path, bool is_stdin, json_t **out) {
    FILE *file = is_stdin ? stdin : fopen(path, "r");
    if (!file)
        return MBL_FAIL(MBL_ERR_CONFIG, "%s: cannot be opened: %s", path, strerror(errno));
    json_error_t error;
    json_t *json = json_loadf(file, JSON_REJECT_DUPLICATES, &error);
    if (!is_stdin)
        fclose(file);
    if (!json) {
        bool special = strstr(error.text, "NaN") || strstr(error.text, "Infinity");
        return MBL_FAIL(MBL_ERR_CONFIG, "%s:%d:%d: not valid JSON: %s%s", path, error.line, error.column,
                        error.text,
                        special ? "; leave the row and column of a gradient that is not finite out" : "");
    }
    if (!json_is_object(json)) {
        json_decref(json);
        return MBL_FAIL(MBL_ERR_CONFIG, "%s: holds no JSON object; expected {\"gram\": [[..], ..]}", path);
    }
    *out = json;
    return MBL_OK;
}

static mbl_status_t run(const char *operand, const char *method) {
    bool is_stdin = !operand || !strcmp(operand, "-");
    problem_t *problem;
    answer_t answer;
    json_t *json = NULL;
    MBL_ALLOC(problem, 1);
    problem->path = is_stdin ? "stdin" : operand;
    problem->method_name = method;
    problem->cagrad_c = 0.5;
    mbl_method_find(method, &problem->method);
    mbl_status_t status = load(problem->path, is_stdin, &json);
    if (status == MBL_OK)
        status = read_problem(problem, json);
    json_decref(json);
    if (status == MBL_OK)
        status = check_symmetry(problem);
    if (status == MBL_OK)
        status = check_definite(problem);
    if (status == MBL_OK)
        status = solve(problem, &answer);
    if (status == MBL_OK)
        status = print_answer(&answer, problem);
    mbl_free(problem);
    return status;
}

int mbl_cmd_solve(int argc, char **argv) {
    static const char about[] =
        "Weights for K gradients from their inner products: minimises |sum_k alpha_k g_k/|g_k||^2 over\n"
        "alpha >= floor, sum alpha = 1. Reads a JSON object from FILE or standard input:\n"
        "  gram       [[..], ..]  inner products <g_i, g_j>, up to 64 x 64\n"
        "  floor      0.0         least weight of a gradient\n"
        "  normalize  true        false: gradients count by their lengths\n"
        "  weights    [..]        priorities: twice the priority, twice the promised progress\n"
        "  linear     [..]        adds linear'alpha to the objective 1/2 alpha'C alpha\n"
        "                         (<g_k, c> / (|g_k| w_k m), m the mean length, w the weights scaled to\n"
        "                         mean 1: balance.common: offset)\n"
        "  cagrad_c   0.5         radius around the mean gradient, of its length (cagrad)\n"
        "Prints the weights, the objective, how far the optimality conditions are missed (kkt_residual),\n"
        "the cosine of the direction with every gradient (none is negative when floor is 0 and there is\n"
        "no linear term), what each gradient is multiplied by (coefficient), and which weights are above\n"
        "the floor. A zero gradient takes no part. Other methods print neither objective nor active.\n\n"
        "example: three rewards, the first two at odds\n"
        "  $ echo '{\"gram\": [[1, -0.8, 0.1], [-0.8, 4, 0.2], [0.1, 0.2, 9]]}' | marble solve";
#define WORD(NAME, word, flags, help) #word,
#define NONE(NAME, word, flags, help)
    static const char *const methods[] = {MBL_METHOD_LIST(WORD, NONE) NULL};
#undef WORD
#undef NONE
    const char *method = "marble";
    const mbl_arg_t args[] = {
        {"method", MBL_ARG_CHOICE, &method, "NAME",
         "as balance.method of a run; those that need more than inner products are left "
         "out",
         0, 0, 0, methods}};
    const mbl_args_t spec = {"solve", "[FILE]", about, args, sizeof args / sizeof *args, 0, 1};
    mbl_arg_texts_t rest;
    bool helped = false;
    mbl_status_t status = mbl_args_parse(&spec, argc, argv, &rest, &helped);
    if (status != MBL_OK || helped)
        return mbl_status_exit_code(status);
    status = run(rest.count ? rest.items[0] : NULL, method);
    mbl_free(rest.items);
    return mbl_status_exit_code(status);
}
