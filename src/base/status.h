/* Status codes and the macros that pass them on. Every call that can fail returns mbl_status_t;
 * out-parameters come last and are set only on success. The first failure is reported once, where it happens,
 * with MBL_FAIL; callers only MBL_TRY. */
#ifndef MBL_BASE_STATUS_H
#define MBL_BASE_STATUS_H

#include <stdbool.h>
#include <stddef.h>

/* code, what it means to a user */
#define MBL_STATUS_LIST(X)                                                                                   \
    X(OK, "ok")                                                                                              \
    X(ERR_ARG, "a call was given something it cannot take")                                                  \
    X(ERR_USAGE, "bad command line")                                                                         \
    X(ERR_CONFIG, "bad configuration")                                                                       \
    X(ERR_MEM, "out of memory")                                                                              \
    X(ERR_IO, "reading or writing failed")                                                                   \
    X(ERR_FORMAT, "a file is damaged or not of the expected kind")                                           \
    X(ERR_UNSUPPORTED, "valid, but not supported by this build")                                             \
    X(ERR_NUMERIC, "a number that must be finite is not")                                                    \
    X(ERR_COMM, "a message between ranks failed")                                                            \
    X(ERR_DEADLINE, "something took longer than its deadline")                                               \
    X(ERR_DEVICE, "the compute device failed")                                                               \
    X(ERR_REWARD, "a reward could not be computed")                                                          \
    X(ERR_ALARM, "a health alarm stopped the run, with a checkpoint")                                        \
    X(ERR_BUSY, "another process works there")                                                               \
    X(ERR_STOPPED, "stopped on request, with a checkpoint")                                                  \
    X(ERR_INTERNAL, "a defect in marble")

typedef enum {
#define MBL_STATUS_ENUM(code, text) MBL_##code,
    MBL_STATUS_LIST(MBL_STATUS_ENUM)
#undef MBL_STATUS_ENUM
        MBL_STATUS_COUNT
} mbl_status_t;

/* Name ("ERR_IO") and meaning of a status; never NULL. */
const char *mbl_status_name(mbl_status_t status);
const char *mbl_status_text(mbl_status_t status);

/* Exit code of the command line for a status: 0 done, 1 failed, 2 bad usage or config, 71 the device of
 * this rank failed, 75 stopped and resumable. */
int mbl_status_exit_code(mbl_status_t status);

/* Records and logs a failure (printf format, one sentence, no newline) and returns `status`. Usage and
 * configuration errors and alarms are printed by rank 0 only, since every rank finds them alike. Thread-safe.
 */
mbl_status_t mbl_fail_at(const char *file, int line, mbl_status_t status, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
#define MBL_FAIL(status, ...) mbl_fail_at(__FILE__, __LINE__, status, __VA_ARGS__)

/* Logs the last failure of this thread if it was left to rank 0 and has not been logged since: for a rank
 * that finds out that rank 0 did not meet with it. */
void mbl_fail_show(void);

/* The last failure message of this thread ("" when none); kept until the next failure. */
const char *mbl_fail_message(void);

/* While quiet (counted, per thread), failures are recorded and not logged: for callers that try one way, then
 * another. */
void mbl_fail_quiet(int on);
bool mbl_fail_is_quiet(void); /* for whoever logs more than the failure itself */

#define MBL_TRY(expr)                                                                                        \
    do {                                                                                                     \
        mbl_status_t try_status_ = (expr);                                                                   \
        if (try_status_ != MBL_OK)                                                                           \
            return try_status_;                                                                              \
    } while (0)

/* Needs a variable `mbl_status_t status` in scope; jumps to `label` (which unwinds and returns status) on
 * failure. */
#define MBL_TRY_GOTO(expr, label)                                                                            \
    do {                                                                                                     \
        status = (expr);                                                                                     \
        if (status != MBL_OK)                                                                                \
            goto label;                                                                                      \
    } while (0)

/* Argument check of a public entry point. */
#define MBL_REQUIRE(cond, ...)                                                                               \
    do {                                                                                                     \
        if (!(cond))                                                                                         \
            return MBL_FAIL(MBL_ERR_ARG, __VA_ARGS__);                                                       \
    } while (0)

#endif
