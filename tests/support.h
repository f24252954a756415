/* What every test shares: cmocka with its headers, comparisons that print both sides, temporary folders. */
#ifndef MBL_TESTS_SUPPORT_H
#define MBL_TESTS_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdbool.h>
#include <cmocka.h>

#include "base/status.h"

/* Fails unless |a - b| <= tolerance, printing what is compared and both values. */
#define assert_near(a, b, tolerance)                                                                         \
    check_near((double)(a), (double)(b), (double)(tolerance), #a, __FILE__, __LINE__)
void check_near(double a, double b, double tolerance, const char *what, const char *file, int line);

/* Fails unless a call came back with `expected` and the last failure's message has `part` in it. */
#define assert_failed(status, expected, part) check_failed(status, expected, part, __FILE__, __LINE__)
void check_failed(mbl_status_t status, mbl_status_t expected, const char *part, const char *file, int line);

/* Under sanitizers, arithmetic is slow, and larger sizes of what it does show them nothing new. */
#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
enum { SANITIZED = 1 };
#else
enum { SANITIZED = 0 };
#endif

/* The backend a test runs on: what MARBLE_TEST_BACKEND names, else cpu. need_backend ends the program with
 * code 77, which ctest counts as skipped, where this build has it and this machine lacks its device. */
const char *test_backend(void);
void need_backend(void);

/* ||a - b|| / max(||b||, tiny) over n values. */
double relative_error_f32(const float *a, const float *b, size_t n);
double relative_error_f64(const double *a, const double *b, size_t n);

/* A fresh empty folder (path is written into out, at least 256 bytes) and its removal with everything in it.
 */
void temporary_folder(char *out);
void remove_folder(const char *path);

/* The whole file, zero-terminated (length in *size when not NULL); fails the test when it cannot be read.
 * Free with free(). */
char *read_whole(const char *path, size_t *size);
/* Bytes written in hexadecimal, zero-terminated; out may be hex itself. */
void unhex(const char *hex, char *out);
void write_whole(const char *path, const void *data, size_t size);
/* A file's JSON; fails the test when it cannot be read. Free with json_decref(). */
struct json_t *read_json(const char *path);

/* Bytes in memory by /proc/self/status: RssAnon, RssFile. */
size_t resident(const char *which);

#endif
