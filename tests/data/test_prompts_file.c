/* src/data/prompts_file.c: what people put into prompt files (white space, line ends, repeated and blank
 * lines, pipes), and the digest of a set. */
#include "support.h"
#include "base/log.h"
#include "base/mem.h"
#include "data/prompts.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static char folder[256], path[300];

static int make(void **state) {
    (void)state;
    temporary_folder(folder);
    return 0;
}

static int drop(void **state) {
    (void)state;
    remove_folder(folder);
    return 0;
}

static mbl_status_t load(const char *name, const char *content, size_t limit, mbl_prompts_t *out) {
    snprintf(path, sizeof path, "%s/%s", folder, name);
    write_whole(path, content, strlen(content));
    return mbl_prompts_load("file", path, 0, 0, limit, out);
}

/* The texts are those of `expected`, in order, up to NULL. */
static void check(const mbl_prompts_t *prompts, const char *const *expected) {
    size_t n = 0;
    for (; expected[n]; n++) {
        assert_true(n < prompts->count);
        assert_string_equal(prompts->items[n].text, expected[n]);
    }
    assert_int_equal(prompts->count, n);
}
#define GIVES(name, content, ...)                                                                            \
    do {                                                                                                     \
        mbl_prompts_t prompts_;                                                                              \
        assert_int_equal(load(name, content, 0, &prompts_), MBL_OK);                                         \
        check(&prompts_, (const char *const[]){__VA_ARGS__, NULL});                                          \
        mbl_prompts_free(&prompts_);                                                                         \
    } while (0)

static void every_line_end_ends_a_line(void **state) {
    (void)state;
    GIVES("p.txt", "one\rtwo\r\nthree\n\rfour\r\r\nfive", "one", "two", "three", "four", "five");
    GIVES("p.jsonl", "{\"prompt\": \"one\"}\r{\"prompt\": \"two\"}\r\n{\"prompt\": \"three\"}", "one", "two",
          "three");
}

/* Line numbers in messages count each of them once. */
static void lines_are_counted_as_editors_do(void **state) {
    (void)state;
    mbl_prompts_t prompts;
    assert_int_equal(load("p.txt", "one\rtwo\r\nthree\n\xff", 0, &prompts), MBL_ERR_FORMAT);
    assert_non_null(strstr(mbl_fail_message(), "p.txt:4: not UTF-8"));
}

/* No-break space, ideographic space, tab, form feed; inside a prompt they stay. */
static void white_space_around_a_prompt_goes(void **state) {
    (void)state;
    GIVES("p.txt",
          "\xC2\xA0 a cat\xE3\x80\x80\t\n\x0c\n\xC2\xA0\n a\xC2\xA0"
          "dog \n",
          "a cat",
          "a\xC2\xA0"
          "dog");
    GIVES("p.jsonl", "{\"prompt\": \"  a cat \\n\"}\n{\"prompt\": \"\\u00a0a dog\\u3000\"}\n", "a cat",
          "a dog");
}

static void repeated_prompts_are_one_in_both_kinds(void **state) {
    (void)state;
    GIVES("p.txt", "a cat\n a cat \na dog\na cat\n", "a cat", "a dog");
    GIVES("p.jsonl", "{\"prompt\": \"a cat\"}\n{\"prompt\": \" a cat \"}\n{\"prompt\": \"a dog\"}\n", "a cat",
          "a dog");
}

static void blank_prompts_are_refused_by_line(void **state) {
    (void)state;
    mbl_prompts_t prompts;
    assert_int_equal(load("p.jsonl", "{\"prompt\": \"a\"}\n{\"prompt\": \" \\t\"}\n", 0, &prompts),
                     MBL_ERR_FORMAT);
    assert_non_null(strstr(mbl_fail_message(), "p.jsonl:2: a blank \"prompt\""));
    assert_int_equal(load("p.jsonl", "\n{\"prompt\": \"\\u00a0\\u2003\"}\n", 0, &prompts), MBL_ERR_FORMAT);
    assert_non_null(strstr(mbl_fail_message(), "p.jsonl:2: a blank \"prompt\""));
}

/* The first ones; a file of fewer gives all it has. */
static void a_limit_takes_the_first_ones(void **state) {
    (void)state;
    mbl_prompts_t prompts;
    assert_int_equal(load("p.txt", "one\none\ntwo\nthree\n", 2, &prompts), MBL_OK);
    check(&prompts, (const char *const[]){"one", "two", NULL});
    mbl_prompts_free(&prompts);
    assert_int_equal(load("p.txt", "one\ntwo\n", 1000, &prompts), MBL_OK);
    assert_int_equal(prompts.count, 2);
    mbl_prompts_free(&prompts);
}

/* 25,000 prompts are 25,000 prompts. */
static void a_large_file_is_read_whole(void **state) {
    (void)state;
    enum { N = 25000 };
    char *text = malloc(N * 16);
    size_t used = 0;
    mbl_prompts_t prompts;
    for (int i = 0; i < N; i++)
        used += (size_t)sprintf(text + used, "image %d\n", i);
    assert_int_equal(load("p.txt", text, 0, &prompts), MBL_OK);
    assert_int_equal(prompts.count, N);
    assert_string_equal(prompts.items[N - 1].text, "image 24999");
    mbl_prompts_free(&prompts);
    free(text);
}

static void *feed(void *argument) {
    FILE *out = fopen(argument, "w");
    for (int i = 0; out && i < 20000; i++)
        fprintf(out, "image %d\n", i); /* more than a pipe holds */
    if (out)
        fclose(out);
    return NULL;
}

static void a_pipe_is_read_to_its_end(void **state) {
    (void)state;
    pthread_t thread;
    mbl_prompts_t prompts;
    size_t live = mbl_mem_live();
    snprintf(path, sizeof path, "%s/pipe.txt", folder);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(pthread_create(&thread, NULL, feed, path), 0);
    assert_int_equal(mbl_prompts_load("file", path, 0, 0, 0, &prompts), MBL_OK);
    pthread_join(thread, NULL);
    assert_int_equal(prompts.count, 20000);
    mbl_prompts_free(&prompts);
    assert_int_equal(mbl_mem_live(), live);
    snprintf(path, sizeof path, "%s/folder.txt", folder);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(mbl_prompts_load("file", path, 0, 0, 0, &prompts), MBL_ERR_IO);
}

static void digest_of(const char *name, const char *content, char out[MBL_SHA256_HEX]) {
    mbl_prompts_t prompts;
    assert_int_equal(load(name, content, 0, &prompts), MBL_OK);
    mbl_prompts_digest(&prompts, out);
    mbl_prompts_free(&prompts);
}

/* Order, texts, where one ends and metadata count; white space around, repeats and the file's kind do not. */
static void a_digest_is_of_what_is_trained_on(void **state) {
    (void)state;
    static const char *const others[] = {"b\na\n", "a\nb\nc\n", "a\n", "ab\n", "a\nB\n"};
    char one[MBL_SHA256_HEX], other[MBL_SHA256_HEX];
    digest_of("p.txt", "a\nb\n", one);
    digest_of("p.txt", " a\r\n\r\nb\na", other);
    assert_string_equal(one, other);
    digest_of("p.jsonl", "{\"prompt\": \"a\"}\n{\"prompt\": \"b\"}\n", other);
    assert_string_equal(one, other);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        digest_of("p.txt", others[i], other);
        assert_string_not_equal(one, other);
    }
    digest_of("p.jsonl", "{\"prompt\": \"a\", \"n\": 1}\n{\"prompt\": \"b\"}\n", one);
    digest_of("p.jsonl", "{\"prompt\": \"a\", \"n\": 2}\n{\"prompt\": \"b\"}\n", other);
    assert_string_not_equal(one, other);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_line_end_ends_a_line),
        cmocka_unit_test(lines_are_counted_as_editors_do),
        cmocka_unit_test(white_space_around_a_prompt_goes),
        cmocka_unit_test(repeated_prompts_are_one_in_both_kinds),
        cmocka_unit_test(blank_prompts_are_refused_by_line),
        cmocka_unit_test(a_limit_takes_the_first_ones),
        cmocka_unit_test(a_large_file_is_read_whole),
        cmocka_unit_test(a_pipe_is_read_to_its_end),
        cmocka_unit_test(a_digest_is_of_what_is_trained_on),
    };
    return cmocka_run_group_tests(tests, make, drop);
}
