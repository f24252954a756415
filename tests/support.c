/* What every test shares. */
#include "support.h"
#include "base/json.h"
#include "ops/ops.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void check_near(double a, double b, double tolerance, const char *what, const char *file, int line) {
    if (!(fabs(a - b) <= tolerance)) {
        print_error("%s: %.12g, expected %.12g within %.3g\n", what, a, b, tolerance);
        _fail(file, line);
    }
}

void check_failed(mbl_status_t status, mbl_status_t expected, const char *part, const char *file, int line) {
    if (status != expected || !strstr(mbl_fail_message(), part)) {
        print_error("%s \"%s\", expected %s with \"%s\"\n", mbl_status_name(status), mbl_fail_message(),
                    mbl_status_name(expected), part);
        _fail(file, line);
    }
}

const char *test_backend(void) {
    const char *name = getenv("MARBLE_TEST_BACKEND");
    return name ? name : "cpu";
}

void need_backend(void) {
    mbl_ops_t *ops;
    mbl_fail_quiet(1);
    mbl_status_t status = mbl_ops_open(test_backend(), 1, &ops);
    mbl_fail_quiet(0);
    if (status == MBL_OK) {
        mbl_ops_close(ops);
    } else if (status == MBL_ERR_UNSUPPORTED) {
        printf("skipped: %s\n", mbl_fail_message());
        exit(77);
    }
}

#define RELATIVE_ERROR(name, type)                                                                           \
    double name(const type *a, const type *b, size_t n) {                                                    \
        double difference = 0, norm = 0;                                                                     \
        for (size_t i = 0; i < n; i++) {                                                                     \
            double d = (double)a[i] - (double)b[i];                                                          \
            difference += d * d;                                                                             \
            norm += (double)b[i] * (double)b[i];                                                             \
        }                                                                                                    \
        return sqrt(difference) / fmax(sqrt(norm), 1e-300);                                                  \
    }
RELATIVE_ERROR(relative_error_f32, float)
RELATIVE_ERROR(relative_error_f64, double)

void temporary_folder(char *out) {
    snprintf(out, 256, "%s/marble-test-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    if (!mkdtemp(out))
        fail_msg("no temporary folder");
}

void remove_folder(const char *path) {
    char command[512];
    snprintf(command, sizeof command, "rm -rf '%s'", path);
    if (system(command) != 0)
        fail_msg("%s cannot be removed", path);
}

char *read_whole(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    if (!file)
        fail_msg("%s cannot be opened", path);
    fseek(file, 0, SEEK_END);
    long n = ftell(file);
    rewind(file);
    char *data = malloc((size_t)n + 1);
    if (!data || fread(data, 1, (size_t)n, file) != (size_t)n)
        fail_msg("%s cannot be read", path);
    fclose(file);
    data[n] = 0;
    if (size)
        *size = (size_t)n;
    return data;
}

void write_whole(const char *path, const void *data, size_t size) {
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(data, 1, size, file) != size || fclose(file) != 0)
        fail_msg("%s cannot be written", path);
}

json_t *read_json(const char *path) {
    json_t *root;
    if (mbl_json_read(path, &root) != MBL_OK)
        fail_msg("%s", mbl_fail_message());
    return root;
}

void unhex(const char *hex, char *out) {
    unsigned byte;
    for (; sscanf(hex, "%2x", &byte) == 1; hex += 2)
        *out++ = (char)byte;
    *out = 0;
}

size_t resident(const char *which) {
    char line[256];
    size_t kib = 0, n = strlen(which);
    FILE *file = fopen("/proc/self/status", "r");
    assert_non_null(file);
    while (fgets(line, sizeof line, file))
        if (strncmp(line, which, n) == 0 && line[n] == ':')
            kib = strtoul(line + n + 1, NULL, 10);
    fclose(file);
    return kib * 1024;
}
