/* What the tests of run.yaml share: a configuration with most keys, and what must be refused. */
#ifndef MBL_TESTS_CONFIG_CASE_H
#define MBL_TESTS_CONFIG_CASE_H

#include "support.h"
#include "base/mem.h"
#include "config/config.h"

#include <string.h>

static const char full[] = "seed: 7\n"
                           "device: cpu\n"
                           "model:\n"
                           "  path: .\n"
                           "  lora: {rank: 8, alpha: 12.5, targets: [attn.to_q, \"attn.to_k\"]}\n"
                           "prompts: {source: signs, groups: 4, group_size: 6}\n"
                           "rollout: {steps: 8, solver: euler, shift: 2.5, micro_batch: 12}\n"
                           "train:\n"
                           "  steps: 30\n"
                           "  lr: 1.0e-3\n"
                           "  old_decay: {flat: 75, rate: .0075, hold: .999}\n"
                           "  checkpoint_blocks: all\n"
                           "rewards:\n"
                           "  - {name: ocr, weight: 2}\n"
                           "  - name: small\n"
                           "    type: jpeg\n"
                           "    on_failure: stop\n"
                           "    options: {quality: 90, floor: -1.5, tags: [a, 'b', true, null]}\n"
                           "balance: {method: marble, floor: 0.05, common: apart}\n"
                           "limits: {seconds: 15 min, micro_batch_bytes: 2 GiB}\n"
                           "pretrain: {model: {dual_attention_layers: [0, 2]}}\n";

static inline mbl_status_t parse(const char *text, const char *set, mbl_config_t **out) {
    return mbl_config_parse(text, strlen(text), "run.yaml", &set, set ? 1 : 0, out);
}

/* Fails unless `text` holds every one of the `n` parts. */
static inline void check_parts(const char *text, const char *const *parts, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!strstr(text, parts[i]))
            fail_msg("\"%s\" lacks \"%s\"", text, parts[i]);
}

/* Parses what must be refused with all the parts in its message. */
static inline void refused(const char *yaml, const char *set, const char *const *parts, size_t n) {
    mbl_config_t *config = NULL;
    size_t live = mbl_mem_live();
    mbl_status_t status = parse(yaml, set, &config);
    if (status != MBL_ERR_CONFIG)
        fail_msg("%s [%s]: status %s, expected ERR_CONFIG", yaml, set ? set : "", mbl_status_name(status));
    assert_null(config);
    assert_int_equal(mbl_status_exit_code(status), 2);
    check_parts(mbl_fail_message(), parts, n);
    assert_int_equal(mbl_mem_live(), live);
}
#define REFUSED(yaml, set, ...)                                                                              \
    do {                                                                                                     \
        const char *const parts_[] = {__VA_ARGS__};                                                          \
        refused(yaml, set, parts_, sizeof parts_ / sizeof *parts_);                                          \
    } while (0)

/* mbl_config_check of `full` with one override: refused with the parts. */
static inline void check_refused(const char *set, size_t ranks, const char *part) {
    mbl_config_t *config;
    assert_int_equal(parse(full, set, &config), MBL_OK);
    assert_int_equal(mbl_config_check(config, ranks), MBL_ERR_CONFIG);
    check_parts(mbl_fail_message(), &part, 1);
    mbl_config_free(config);
}

#endif
