/* What plan takes a case's model for. */
#ifndef MBL_TESTS_SHAPE_CASE_H
#define MBL_TESTS_SHAPE_CASE_H

#include "mmdit_case.h"

#include "plan/setup.h"

/* `run` with the tokens, the model and the sizes of a case. Free with mbl_plan_shape_free. */
static inline mbl_plan_shape_t shape_of_case(const mmdit_case_t *c, mbl_plan_shape_t run) {
    mbl_mmdit_config_t config = c->config;
    config.in_channels = config.out_channels = 3;
    config.sample_size = c->height;
    run.tokens = c->tokens;
    run.model = mbl_mmdit_config_json(&config);
    assert_ok(mbl_dit_config_sizes("a case", run.model, &run.sizes));
    return run;
}

#endif
