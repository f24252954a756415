/* src/model/st_check: a tensor that is missing, or has another shape, is named with what was found and
 * expected, and a transformer's folder is refused so. */
#include "mmdit_case.h"
#include "ops_case.h"

#include "model/safetensors.h"
#include "model/st_check.h"

static int set_up(void **state) {
    (void)state;
    return open_ops_and_folder("cpu", 1);
}

static void names_what_was_found_and_expected(void **state) {
    (void)state;
    static const float data[6] = {0};
    const size_t size = SIZE_MAX / 2;
    const mbl_st_tensor_t tensors[] = {{"matrix", MBL_F32, 2, {2, 3}, data},
                                       {"number", MBL_F32, 0, {0}, data}};
    mbl_st_t *st;
    assert_ok(mbl_st_write(in_folder("a.safetensors"), tensors, 2, NULL));
    assert_ok(mbl_st_open(in_folder("a.safetensors"), &st));
    assert_ok(mbl_st_check_shape(st, "there", "matrix", 2, (const size_t[]){2, 3}));
    assert_ok(mbl_st_check_shape(st, "there", "number", 0, &size));
    assert_failed(mbl_st_check_shape(st, "there", "matrix", 2, (const size_t[]){3, 2}), MBL_ERR_FORMAT,
                  "there: tensor matrix: found shape [2,3]; expected [3,2]");
    assert_failed(mbl_st_check_shape(st, "there", "matrix", 1, (const size_t[]){2}), MBL_ERR_FORMAT,
                  "found shape [2,3]; expected [2],");
    assert_failed(mbl_st_check_shape(st, "there", "number", 1, &size), MBL_ERR_FORMAT,
                  "found shape []; expected [9223372036854775807]");
    assert_failed(mbl_st_check_shape(st, "there", "vector", 8,
                                     (const size_t[8]){size, size, size, size, size, size, size, size}),
                  MBL_ERR_FORMAT, "there: tensor vector: missing; expected one of shape [92233");
    mbl_st_close(st);
}

/* A transformer with one tensor of another shape, and without it. */
static void transformers_are_refused(void **state) {
    (void)state;
    mbl_dit_t *model = case_model(ops, MBL_F32, &mmdit_cases[1]), *none = NULL;
    const mbl_param_t *last = mbl_dit_param(model, mbl_dit_param_count(model) - 1);
    mbl_st_tensor_t *tensors = mbl_calloc(mbl_dit_param_count(model), sizeof *tensors);
    char expected[200];
    size_t n = mbl_dit_param_count(model);
    assert_ok(mbl_dit_save(model, mbl_dit_weights(model)->data, MBL_F32, in_folder("model")));
    for (size_t i = 0; i < n; i++) {
        const mbl_param_t *param = mbl_dit_param(model, i);
        tensors[i] = (mbl_st_tensor_t){.name = param->name, .dtype = MBL_F32, .ndim = param->ndim};
        memcpy(tensors[i].dim, param->dim, sizeof param->dim);
        tensors[i].data = (const float *)mbl_dit_weights(model)->data + param->offset;
    }
    const char *path = in_folder("model/diffusion_pytorch_model.safetensors");
    tensors[n - 1].dim[0]--;
    assert_ok(mbl_st_write(path, tensors, n, NULL));
    snprintf(expected, sizeof expected, "model: tensor %s: found shape [%zu", last->name, last->dim[0] - 1);
    assert_failed(mbl_dit_open(ops, MBL_F32, in_folder("model"), &none), MBL_ERR_FORMAT, expected);
    assert_ok(mbl_st_write(path, tensors, n - 1, NULL));
    snprintf(expected, sizeof expected, "model: tensor %s: missing; expected one of shape [%zu", last->name,
             last->dim[0]);
    assert_failed(mbl_dit_open(ops, MBL_F32, in_folder("model"), &none), MBL_ERR_FORMAT, expected);
    assert_null(none);
    mbl_free(tensors);
    mbl_dit_close(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_what_was_found_and_expected),
        cmocka_unit_test(transformers_are_refused),
    };
    return cmocka_run_group_tests(tests, set_up, close_ops_and_folder);
}
