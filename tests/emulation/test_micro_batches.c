/* Micro-batches of a step on the cuda backend: all of them run by the same few graphs, whichever rows of the
 * batch they take, and the host waits for the device once, at their end. */
#include "shape_case.h"

#include <cuda_runtime_api.h>

enum { IMAGES = 6, REWARDS = 2 };

static struct { int captures, launches, waits; } seen;

cudaError_t __real_cudaEventSynchronize(cudaEvent_t event);
cudaError_t __wrap_cudaEventSynchronize(cudaEvent_t event);
cudaError_t __wrap_cudaEventSynchronize(cudaEvent_t event) {
    seen.waits++;
    return __real_cudaEventSynchronize(event);
}

cudaError_t __real_cudaStreamSynchronize(cudaStream_t stream);
cudaError_t __wrap_cudaStreamSynchronize(cudaStream_t stream);
cudaError_t __wrap_cudaStreamSynchronize(cudaStream_t stream) {
    seen.waits++;
    return __real_cudaStreamSynchronize(stream);
}

cudaError_t __real_cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode);
cudaError_t __wrap_cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode);
cudaError_t __wrap_cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode) {
    seen.captures++;
    return __real_cudaStreamBeginCapture(stream, mode);
}

cudaError_t __real_cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream);
cudaError_t __wrap_cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream);
cudaError_t __wrap_cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
    seen.launches++;
    return __real_cudaGraphLaunch(exec, stream);
}

static mbl_plan_shape_t shape_of(const mmdit_case_t *c) {
    const mbl_plan_shape_t run = {.dtype = MBL_F32,
                                  .lora = {.rank = 2, .alpha = 4},
                                  .prompts = 1,
                                  .rewards = REWARDS,
                                  .images = IMAGES,
                                  .ranks = 1,
                                  .rollout_batch = 1,
                                  .rollout_steps = 1,
                                  .solver = MBL_SOLVER_EULER,
                                  .train_batch = 1,
                                  .timesteps = 1,
                                  .inner_epochs = 1,
                                  .updates = 1,
                                  .kl = true};
    return shape_of_case(c, run);
}

static void run_all_images(mbl_plan_setup_t *setup) {
    uint32_t prompt[IMAGES] = {0};
    int64_t sample[IMAGES] = {0, 1, 2, 3, 4, 5};
    float a[REWARDS * IMAGES] = {0.5f, -0.5f, 0.25f};
    const mbl_batch_t batch = {.n = IMAGES,
                               .n_global = IMAGES,
                               .group_size = 1,
                               .k = REWARDS,
                               .prompt = prompt,
                               .sample = sample,
                               .x0 = mbl_tensor_rows(&setup->x0, 0, IMAGES)};
    const mbl_gradient_args_t args = {.batch = &batch,
                                      .conditions = &setup->conditions,
                                      .current = &setup->update.policy.in_current,
                                      .old = &setup->update.policy.in_old,
                                      .plan = &setup->plan,
                                      .timesteps = 1,
                                      .slices = 1,
                                      .beta = 0.1,
                                      .clip = 5,
                                      .kl = 1e-4,
                                      .a = a,
                                      .parts = REWARDS};
    mbl_gradient_stats_t stats;
    const mbl_tensor_t sets = mbl_tensor_rows(&setup->update.sets, 0, mbl_gradient_sets(&args));
    assert_ok(mbl_gradient_run(setup->update.gradient, &args, &sets, &stats));
    assert_ok(setup->ops->table->sync(setup->ops));
}

/* Three parts a micro-batch: forward passes with seeds, two backward passes. Scratch memory grows in the
 * first one, so the first run has a part or two more without a graph. */
static void graphs_are_shared(void **state) {
    mbl_plan_shape_t shape = shape_of(&mmdit_cases[0]);
    mbl_plan_setup_t setup = {.shape = &shape};
    mbl_plan_memory_t ignored;
    (void)state;
    assert_ok(mbl_ops_open("cuda", 1, &setup.ops));
    mbl_ops_t *ops = setup.ops;
    assert_ok(mbl_plan_setup_open(&setup, &ignored));
    ops->record = true;
    run_all_images(&setup);
    assert_int_equal(seen.captures, 3);
    seen.launches = seen.waits = 0;
    const uint64_t before = ops->waits;
    run_all_images(&setup);
    assert_int_equal(ops->waits - before, seen.waits); /* the count that marble bench shows */
    assert_int_equal(seen.waits,
                     2); /* for the losses of all micro-batches; the one that ends run_all_images */
    assert_int_equal(seen.captures, 3);
    assert_int_equal(seen.launches, 3 * IMAGES);
    mbl_plan_setup_close(&setup);
    mbl_plan_shape_free(&shape);
    mbl_ops_close(ops);
}

/* Images go to six places and all come by one graph: scratch memory grows in the first pass, the second runs
 * as it is, the third is captured. */
static void rollouts_share_a_graph(void **state) {
    mbl_plan_shape_t shape = shape_of(&mmdit_cases[0]);
    mbl_plan_setup_t setup = {.shape = &shape};
    mbl_plan_memory_t ignored;
    const uint32_t prompt = 0;
    (void)state;
    assert_ok(mbl_ops_open("cuda", 1, &setup.ops));
    mbl_ops_t *ops = setup.ops;
    assert_ok(mbl_plan_setup_open(&setup, &ignored));
    ops->record = true;
    memset(&seen, 0, sizeof seen);
    for (int64_t i = 0; i < IMAGES; i++) {
        const mbl_sample_request_t request = {.adapter = &setup.update.policy.in_old,
                                              .conditions = &setup.conditions,
                                              .index = &prompt,
                                              .sample = &i,
                                              .n = 1};
        const mbl_tensor_t x0 = mbl_tensor_rows(&setup.x0, (size_t)i, 1);
        assert_ok(mbl_sampler_run(setup.sampler, &setup.plan, &request, &x0));
    }
    assert_int_equal(seen.captures, 1);
    assert_int_equal(seen.launches, IMAGES - 2);
    mbl_plan_setup_close(&setup);
    mbl_plan_shape_free(&shape);
    mbl_ops_close(ops);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(graphs_are_shared),
                                       cmocka_unit_test(rollouts_share_a_graph)};
    return cmocka_run_group_tests_name("micro-batches", tests, NULL, NULL);
}
