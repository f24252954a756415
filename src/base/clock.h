/* Wall clock and named spans of time. */
#ifndef MBL_BASE_CLOCK_H
#define MBL_BASE_CLOCK_H

/* Monotonic seconds. */
double mbl_now(void);

/* Seconds since *start, which is set to now: `total += mbl_lap(&start)`. */
double mbl_lap(double *start);

/* "1 h 02 min", "3 min 20 s", "12.3 s" into out (at least 32 bytes); returns out. */
char *mbl_duration(double seconds, char *out);

/* Date and time of day in UTC, "2026-05-08T09:30:00Z", into out; returns out. */
char *mbl_date(char out[32]);

#endif
