/* src/model/folder: what lies beside a model that its model_index.json does not name. */
#include "folder_case.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "model/folder.h"

#include <stdlib.h>
#include <string.h>

static json_t *index_of_model(void) {
    return json_pack("{s:s, s:[s, s], s:[s, s], s:[n, n]}", "_class_name", "StableDiffusion3Pipeline",
                     "transformer", "diffusers", "SD3Transformer2DModel", "vae", "diffusers", "AutoencoderKL",
                     "text_encoder_3");
}

static void make(const char *names) {
    char command[1024];
    snprintf(command, sizeof command, "mkdir -p '%s/model' && cd '%s/model' && rm -rf ./* && %s", folder,
             folder, names);
    assert_int_equal(system(command), 0);
}

/* Early revisions of what is published have a folder `vae copy`; later ones single files and encoders for
 * other programs. A part of [null, null] is named as none. */
static void what_is_not_named(void **state) {
    (void)state;
    static const char *const expected[] = {"sd3.5_medium.safetensors", "text_encoder_3/", "text_encoders/",
                                           "vae copy/"};
    json_t *index = index_of_model(), *extras;
    make("mkdir transformer vae 'vae copy' text_encoder_3 text_encoders .cache && touch LICENSE.md README.md "
         "model_index.json sd3.5_medium.safetensors workflow.json");
    assert_int_equal(mbl_folder_extras(in_folder("model"), index, &extras), MBL_OK);
    assert_int_equal(json_array_size(extras), 4);
    for (size_t i = 0; i < 4; i++)
        assert_string_equal(json_string_value(json_array_get(extras, i)), expected[i]);
    json_decref(extras);
    assert_int_equal(mbl_folder_extras(in_folder("nowhere"), index, &extras), MBL_ERR_IO);
    json_decref(index);
}

static void it_is_said_once(void **state) {
    (void)state;
    json_t *index = index_of_model();
    size_t size;
    make("mkdir transformer vae 'vae copy' && touch a.ckpt b.gguf c.pth");
    mbl_log_set_level(MBL_LOG_INFO);
    assert_int_equal(mbl_log_open(in_folder("log.txt")), MBL_OK);
    assert_int_equal(mbl_folder_log_extras(in_folder("model"), index), MBL_OK);
    make("mkdir transformer");
    assert_int_equal(mbl_folder_log_extras(in_folder("model"), index), MBL_OK);
    assert_int_equal(mbl_log_open(NULL), MBL_OK);
    char *log = read_whole(in_folder("log.txt"), &size);
    char *said =
        strstr(log, "not read, as model_index.json names it as no part: a.ckpt, b.gguf, c.pth and 1 more");
    assert_non_null(said);
    assert_null(strstr(said + 1, "not read"));
    free(log);
    json_decref(index);
}

static void survives_failing_memory(void **state) {
    (void)state;
    json_t *index = index_of_model(), *extras;
    make("mkdir 'vae copy' && touch a.ckpt");
    size_t live = mbl_mem_live(), n = 1;
    for (mbl_status_t status = MBL_ERR_MEM; status != MBL_OK; n++) {
        extras = NULL;
        mbl_mem_fail_at(n);
        status = mbl_folder_extras(in_folder("model"), index, &extras);
        mbl_mem_fail_at(0);
        assert_true(status == MBL_OK || status == MBL_ERR_MEM);
        json_decref(extras);
        assert_int_equal(mbl_mem_live(), live);
    }
    assert_in_range(n, 4, 20);
    json_decref(index);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(what_is_not_named), cmocka_unit_test(it_is_said_once),
                                       cmocka_unit_test(survives_failing_memory)};
    return cmocka_run_group_tests(tests, make_folder, drop_folder);
}
