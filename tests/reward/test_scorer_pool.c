/* src/reward/scorer_pool: the same answers on any number of threads, failures that stay failures, batches as
 * scorers take them, specifications that are refused, memory that runs out. */
#include "signs_case.h"

#include "base/clock.h"
#include "base/log.h"

#include <uv.h>

/* A batch of true and disturbed images with their prompts. */
enum { BATCH = 53 };
typedef struct {
    pixels_t pixels[BATCH];
    mbl_image_t images[BATCH];
    mbl_prompt_t prompts[BATCH];
    const mbl_prompt_t *asked[BATCH];
    char text[BATCH][64];
} batch_t;

static void fill_batch(batch_t *batch) {
    for (size_t i = 0; i < BATCH; i++) {
        mbl_rng_t rng = mbl_rng(16, MBL_RNG_WORLD, 0, i);
        mbl_signs_scene_t scene;
        mbl_signs_scene(&rng, &scene);
        mbl_signs_draw(&scene, &rng, batch->pixels[i].rgb);
        mbl_signs_sentence(&scene, batch->text[i]);
        batch->pixels[i] = disturb(batch->pixels[i], (float)(i % 7 * 10));
        batch->images[i] = (mbl_image_t){SIZE, SIZE, batch->pixels[i].rgb};
        batch->prompts[i] = (mbl_prompt_t){batch->text[i], NULL};
        batch->asked[i] = &batch->prompts[i];
    }
}

static const mbl_reward_spec_t five[5] = {{.name = "ocr", .weight = 1},
                                          {.name = "count", .weight = 1},
                                          {.name = "hue", .type = "color", .weight = 1},
                                          {.name = "clean", .weight = 1},
                                          {.name = "jpeg", .weight = 1}};

static void pool_is_the_same_on_any_threads(void **state) {
    (void)state;
    static batch_t batch;
    static mbl_score_t scores[3][BATCH * 5];
    const size_t threads[3] = {0, 2, 5};
    size_t live = mbl_mem_live();
    fill_batch(&batch);
    for (size_t t = 0; t < 3; t++) {
        mbl_scorer_pool_t *pool = NULL;
        assert_int_equal(mbl_scorer_pool_open(five, 5, threads[t], NULL, &pool), MBL_OK);
        for (int repeat = 0; repeat < 3; repeat++) { /* several under way, of odd sizes */
            memset(scores[t], 0x55, sizeof scores[t]);
            for (size_t from = 0, n; from < BATCH; from += n) {
                n = from % 3 ? 1 : 10;
                n = n < BATCH - from ? n : BATCH - from;
                assert_int_equal(mbl_scorer_pool_submit(pool, batch.images + from, batch.asked + from, n,
                                                        scores[t] + 5 * from),
                                 MBL_OK);
            }
            assert_int_equal(mbl_scorer_pool_wait(pool), MBL_OK);
        }
        assert_int_equal(mbl_scorer_pool_wait(pool), MBL_OK); /* nothing under way */
        mbl_scorer_pool_close(pool);
    }
    for (size_t i = 0; i < BATCH; i++)
        for (size_t k = 0; k < 5; k++) {
            mbl_score_t own = ask(mbl_scorer_at(k)->name, &batch.pixels[i], batch.text[i]);
            for (size_t t = 0; t < 3; t++) {
                assert_int_equal(scores[t][5 * i + k].state, own.state);
                assert_near(scores[t][5 * i + k].value, (double)(float)own.value, 0); /* as a server's */
            }
        }
    assert_int_equal(mbl_mem_live(), live);
}

/* A scorer that misbehaves in turn; `self` counts its calls of open and close. */
static mbl_status_t open_bad(const char *options, void **self) {
    static int opened;
    if (options && strcmp(options, "refuse") == 0)
        return MBL_FAIL(MBL_ERR_CONFIG, "bad: refused");
    opened = 1;
    *self = &opened;
    return MBL_OK;
}

static void close_bad(void *self) {
    *(int *)self = 2;
}

static mbl_status_t score_bad_one(const void *self, const mbl_image_t *image, const mbl_prompt_t *prompt,
                                  mbl_score_t *out) {
    if (*(const int *)self != 1)
        return MBL_FAIL(MBL_ERR_INTERNAL, "not open");
    *out = (mbl_score_t){.value = 3, .state = MBL_SCORE_VALID};
    switch (image->rgb[0] % 5) {
    case 0:
        return MBL_FAIL(MBL_ERR_REWARD, "no answer for %s", prompt->text);
    case 1:
        out->value = NAN;
        return MBL_OK;
    case 2:
        out->value = image->rgb[0] % 2 ? INFINITY : 1e39; /* more than FP32 has */
        return MBL_OK;
    case 3:
        out->state = MBL_SCORE_NA;
        return MBL_OK;
    default:
        return MBL_OK;
    }
}

MBL_SCORE_EACH(score_bad, score_bad_one)

static const mbl_scorer_t bad = {.name = "bad",
                                 .help = "misbehaves",
                                 .low = 0,
                                 .high = 3,
                                 .batch = 1,
                                 .open = open_bad,
                                 .close = close_bad,
                                 .score = score_bad};

static void failures_are_failed_not_zero(void **state) {
    (void)state;
    enum { N = 40 };
    static pixels_t pixels[N];
    static mbl_image_t images[N];
    static const mbl_prompt_t prompt = {"anything", NULL};
    const mbl_prompt_t *asked[N];
    mbl_score_t scores[2 * N];
    const mbl_scorer_t *scorers[2] = {&bad, mbl_scorer_find("clean")};
    mbl_reward_spec_t specs[2] = {{.name = "bad"}, {.name = "clean"}};
    for (int i = 0; i < N; i++) {
        pixels[i] = flat((uint8_t[3]){(uint8_t)(i + 3), 0, 0});
        images[i] = (mbl_image_t){SIZE, SIZE, pixels[i].rgb};
        asked[i] = &prompt;
    }
    for (int stop = 0; stop < 2; stop++)
        for (size_t threads = 1; threads <= 3; threads += 2) {
            mbl_scorer_pool_t *pool;
            specs[0].on_failure = stop ? MBL_ON_FAILURE_STOP : MBL_ON_FAILURE_SKIP;
            mbl_log_set_level(MBL_LOG_OFF);
            assert_int_equal(mbl_scorer_pool_open_with(scorers, specs, 2, threads, NULL, &pool), MBL_OK);
            assert_int_equal(mbl_scorer_pool_submit(pool, images, asked, N, scores), MBL_OK);
            assert_int_equal(mbl_scorer_pool_wait(pool), stop ? MBL_ERR_REWARD : MBL_OK);
            if (stop) { /* the earliest: image 2, whose first byte is 5 */
                assert_non_null(
                    strstr(mbl_fail_message(), "reward bad failed on 'anything': no answer for anything"));
            }
            assert_int_equal(mbl_scorer_pool_wait(pool), MBL_OK); /* reported once */
            mbl_scorer_pool_close(pool);
            mbl_log_set_level(MBL_LOG_INFO);
            for (int i = 0; i < N; i++) {
                int way = (i + 3) % 5;
                assert_int_equal(scores[2 * i].state, way < 3    ? MBL_SCORE_FAILED
                                                      : way == 3 ? MBL_SCORE_NA
                                                                 : MBL_SCORE_VALID);
                assert_near(scores[2 * i].value, way == 4 ? 3 : 0, 0);
                assert_int_equal(scores[2 * i + 1].state, MBL_SCORE_VALID);
            }
        }
}

static mbl_status_t score_plain(void *self, const mbl_image_t *images, const mbl_prompt_t *const *prompts,
                                size_t n, mbl_score_t *out) {
    (void)self;
    (void)prompts;
    for (size_t i = 0; i < n; i++)
        out[i] = (mbl_score_t){.value = images[i].rgb[0], .state = MBL_SCORE_VALID};
    return MBL_OK;
}

/* What the first submit had made for it, for the workers and for a scorer's own thread, serves the next. */
static void later_submits_allocate_nothing(void **state) {
    static const mbl_scorer_t shared = {.name = "shared", .high = 255, .score = score_plain},
                              own = {.name = "own", .high = 255, .async = true, .score = score_plain};
    const mbl_scorer_t *scorers[] = {&shared, &own};
    const mbl_reward_spec_t specs[] = {{.name = "shared"}, {.name = "own"}};
    const mbl_prompt_t prompt = {"anything", NULL}, *asked[] = {&prompt};
    pixels_t pixels = flat((uint8_t[3]){7, 0, 0});
    mbl_image_t image = {SIZE, SIZE, pixels.rgb};
    mbl_score_t scores[2];
    mbl_scorer_pool_t *pool;
    size_t made = 0;
    (void)state;
    assert_int_equal(mbl_scorer_pool_open_with(scorers, specs, 2, 2, NULL, &pool), MBL_OK);
    for (int round = 0; round < 10; round++) {
        assert_int_equal(mbl_scorer_pool_submit(pool, &image, asked, 1, scores), MBL_OK);
        assert_int_equal(mbl_scorer_pool_wait(pool), MBL_OK);
        assert_near(scores[0].value + scores[1].value, 14, 0);
        if (round == 0)
            made = mbl_mem_count();
    }
    assert_int_equal(mbl_mem_count(), made);
    mbl_scorer_pool_close(pool);
}

/* What was asked of a scorer, by all threads. */
static struct {
    uv_mutex_t lock;
    size_t under_way, most_at_once, calls, largest, pixels;
    bool by_others; /* by more threads than one */
    uv_thread_t thread;
} calls;

/* The first byte of every image; the whole call fails where one of them is 0. */
static mbl_status_t score_several(void *self, const mbl_image_t *images, const mbl_prompt_t *const *prompts,
                                  size_t n, mbl_score_t *out) {
    uv_thread_t me = uv_thread_self();
    (void)self;
    (void)prompts;
    uv_mutex_lock(&calls.lock);
    calls.by_others |= calls.calls > 0 && !uv_thread_equal(&me, &calls.thread);
    calls.thread = me;
    calls.calls++;
    calls.pixels += n;
    calls.largest = n > calls.largest ? n : calls.largest;
    calls.under_way++;
    calls.most_at_once = calls.under_way > calls.most_at_once ? calls.under_way : calls.most_at_once;
    uv_mutex_unlock(&calls.lock);
    uv_sleep(2);
    bool zero = false;
    for (size_t i = 0; i < n; i++) {
        out[i] = (mbl_score_t){.value = images[i].rgb[0], .state = MBL_SCORE_VALID};
        zero |= images[i].rgb[0] == 0;
    }
    uv_mutex_lock(&calls.lock);
    calls.under_way--;
    uv_mutex_unlock(&calls.lock);
    return zero ? MBL_FAIL(MBL_ERR_REWARD, "an image of zeros") : MBL_OK;
}

/* Calls are as large as a scorer takes them; one that waits or has a device is called by one thread, one call
 * at a time, while the workers go on with the others. A call that fails takes its images along and no
 * others. */
static void scorers_take_batches(void **state) {
    enum { N = 50, ZERO = 23 };
    static const struct {
        size_t batch, threads, largest, calls;
        bool device, async;
    } kinds[] = {{4, 3, 4, 13, false, false}, /* workers take 8 at a time, at last 2 */
                 {0, 1, 8, 7, false, false},
                 {16, 3, 16, 4, true, false},
                 {0, 3, N, 1, false, true},
                 {1, 2, 1, N, false, true}};
    static pixels_t pixels[N];
    static mbl_image_t images[N];
    static const mbl_prompt_t prompt = {"anything", NULL};
    const mbl_prompt_t *asked[N];
    (void)state;
    for (int i = 0; i < N; i++) {
        pixels[i] = flat((uint8_t[3]){(uint8_t)(i == ZERO ? 0 : i + 1), 0, 0});
        images[i] = (mbl_image_t){SIZE, SIZE, pixels[i].rgb};
        asked[i] = &prompt;
    }
    for (size_t j = 0; j < sizeof kinds / sizeof *kinds; j++) {
        mbl_scorer_t scorer = {.name = "several",
                               .low = 0,
                               .high = 255,
                               .batch = kinds[j].batch,
                               .device = kinds[j].device,
                               .async = kinds[j].async,
                               .score = score_several};
        const mbl_scorer_t *scorers[] = {&scorer, mbl_scorer_find("clean")};
        mbl_reward_spec_t specs[] = {{.name = "several"}, {.name = "clean"}};
        mbl_score_t scores[2 * N];
        mbl_scorer_pool_t *pool;
        memset(&calls, 0, sizeof calls);
        assert_int_equal(uv_mutex_init(&calls.lock), 0);
        mbl_log_set_level(MBL_LOG_OFF);
        assert_int_equal(mbl_scorer_pool_open_with(scorers, specs, 2, kinds[j].threads, NULL, &pool), MBL_OK);
        assert_int_equal(mbl_scorer_pool_submit(pool, images, asked, N, scores), MBL_OK);
        assert_int_equal(mbl_scorer_pool_wait(pool), MBL_OK);
        mbl_scorer_pool_close(pool);
        mbl_log_set_level(MBL_LOG_INFO);
        uv_mutex_destroy(&calls.lock);
        assert_int_equal(calls.pixels, N);
        assert_int_equal(calls.largest, kinds[j].largest);
        assert_int_equal(calls.calls, kinds[j].calls);
        if (kinds[j].device || kinds[j].async)
            assert_true(calls.most_at_once == 1 && !calls.by_others);
        size_t failed = 0;
        for (size_t i = 0; i < N; i++) {
            failed += scores[2 * i].state == MBL_SCORE_FAILED;
            if (scores[2 * i].state == MBL_SCORE_VALID)
                assert_near(scores[2 * i].value, (double)i + 1, 0);
            assert_int_equal(scores[2 * i + 1].state, MBL_SCORE_VALID);
        }
        assert_int_equal(scores[2 * ZERO].state, MBL_SCORE_FAILED);
        assert_in_range(failed, 1, kinds[j].largest);
    }
}

static volatile sig_atomic_t stop;

static mbl_status_t stop_and_score(void *self, const mbl_image_t *images, const mbl_prompt_t *const *prompts,
                                   size_t n, mbl_score_t *out) {
    (void)self;
    (void)prompts;
    (void)images;
    stop = 1;
    uv_sleep(250);
    for (size_t i = 0; i < n; i++)
        out[i] = (mbl_score_t){1, MBL_SCORE_VALID};
    return MBL_OK;
}

/* A stop that comes while the first of many images is scored leaves the others out. */
static void a_stop_ends_waiting(void **state) {
    enum { N = 100 };
    static const mbl_prompt_t prompt = {"anything", NULL};
    static const mbl_scorer_t scorer = {.name = "slow", .batch = 1, .async = true, .score = stop_and_score};
    const mbl_scorer_t *scorers[] = {&scorer};
    mbl_reward_spec_t spec = {.name = "slow", .on_failure = MBL_ON_FAILURE_STOP};
    static pixels_t pixels;
    mbl_image_t images[N];
    const mbl_prompt_t *asked[N];
    mbl_score_t scores[N];
    mbl_scorer_pool_t *pool;
    (void)state;
    pixels = flat((uint8_t[3]){0, 0, 0});
    for (int i = 0; i < N; i++) {
        images[i] = (mbl_image_t){SIZE, SIZE, pixels.rgb};
        asked[i] = &prompt;
    }
    stop = 0;
    assert_int_equal(mbl_scorer_pool_open_with(scorers, &spec, 1, 1, &stop, &pool), MBL_OK);
    assert_int_equal(mbl_scorer_pool_submit(pool, images, asked, N, scores), MBL_OK);
    double start = mbl_now();
    assert_int_equal(mbl_scorer_pool_wait(pool), MBL_ERR_STOPPED);
    assert_true(mbl_now() - start < 2);
    mbl_scorer_pool_close(pool);
    assert_int_equal(scores[0].state, MBL_SCORE_VALID);
    assert_int_equal(scores[N - 1].state, MBL_SCORE_FAILED);
}

static void wrong_specs_are_refused(void **state) {
    (void)state;
    mbl_scorer_pool_t *pool = NULL;
    const mbl_scorer_t *scorers[2] = {mbl_scorer_find("clean"), &bad};
    mbl_reward_spec_t unknown = {.name = "beauty"}, options = {.name = "clean", .options = "{\"a\": 1}"};
    mbl_reward_spec_t refuse[2] = {{.name = "clean"}, {.name = "bad", .options = "refuse"}};
    size_t live = mbl_mem_live();
    mbl_fail_quiet(1);
    assert_int_equal(mbl_scorer_pool_open(&unknown, 1, 1, NULL, &pool), MBL_ERR_CONFIG);
    assert_non_null(strstr(mbl_fail_message(), "'beauty'; there are: ocr, count, color, clean, jpeg"));
    assert_int_equal(mbl_scorer_pool_open(&options, 1, 1, NULL, &pool), MBL_ERR_CONFIG);
    assert_int_equal(mbl_scorer_pool_open(five, 0, 1, NULL, &pool), MBL_ERR_ARG);
    assert_int_equal(mbl_scorer_pool_open_with(scorers, refuse, 2, 1, NULL, &pool), MBL_ERR_CONFIG);
    mbl_fail_quiet(0);
    assert_null(pool);
    assert_int_equal(mbl_mem_live(), live);
}

static void pool_survives_want_of_memory(void **state) {
    (void)state;
    static batch_t batch;
    static mbl_score_t scores[BATCH * 5];
    size_t live = mbl_mem_live(), n = 1;
    fill_batch(&batch);
    mbl_fail_quiet(1);
    for (;; n++) {
        mbl_scorer_pool_t *pool = NULL;
        mbl_mem_fail_at(n);
        mbl_status_t status = mbl_scorer_pool_open(five, 5, 2, NULL, &pool);
        if (status == MBL_OK)
            status = mbl_scorer_pool_submit(pool, batch.images, batch.asked, BATCH, scores);
        mbl_mem_fail_at(0);
        mbl_scorer_pool_close(pool);
        assert_int_equal(mbl_mem_live(), live);
        if (status == MBL_OK)
            break;
        assert_int_equal(status, MBL_ERR_MEM);
    }
    mbl_fail_quiet(0);
    assert_in_range(n, 9, 20); /* five names and the rest each failed once */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pool_is_the_same_on_any_threads),
        cmocka_unit_test(failures_are_failed_not_zero),
        cmocka_unit_test(later_submits_allocate_nothing),
        cmocka_unit_test(scorers_take_batches),
        cmocka_unit_test(a_stop_ends_waiting),
        cmocka_unit_test(wrong_specs_are_refused),
        cmocka_unit_test(pool_survives_want_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
