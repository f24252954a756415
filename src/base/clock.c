/* Wall clock and named spans of time. */
#include "base/clock.h"

#include <stdio.h>
#include <time.h>

double mbl_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double mbl_lap(double *start) {
    double now = mbl_now(), span = now - *start;
    *start = now;
    return span;
}

char *mbl_duration(double seconds, char *out) {
    long whole = (long)(seconds + 0.5);
    if (seconds < 59.95)
        snprintf(out, 32, "%.1f s", seconds > 0 ? seconds : 0.0);
    else if (whole < 3600)
        snprintf(out, 32, "%ld min %02ld s", whole / 60, whole % 60);
    else
        snprintf(out, 32, "%ld h %02ld min", whole / 3600, whole % 3600 / 60);
    return out;
}

char *mbl_date(char out[32]) {
    time_t now = time(NULL);
    struct tm parts;
    gmtime_r(&now, &parts);
    strftime(out, 32, "%Y-%m-%dT%H:%M:%SZ", &parts);
    return out;
}
