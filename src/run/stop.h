/* Asking a run to stop: SIGINT, SIGTERM, SIGUSR1, SIGUSR2, SIGHUP (unless it was ignored, as under nohup),
 * SIGXCPU, or a limit of wall-clock time. The first request lets the run write a checkpoint and exit 75; a
 * second SIGINT, SIGTERM or SIGUSR1 ends the process at once. */
#ifndef MBL_TRAIN_STOP_H
#define MBL_TRAIN_STOP_H

#include <signal.h>
/* Catches the signals from now on; seconds > 0 also asks to stop that long from now (SIGALRM). The flag
 * returned is nonzero once stopping was asked for; it lives as long as the process. A second signal within
 * half a second of the first is the same one on another way (a launcher passes on what the terminal sent
 * too).
 */
const volatile sig_atomic_t *mbl_stop_catch(double seconds);
/* The same flag, without catching anything: it stays as it is until signals are caught. */
const volatile sig_atomic_t *mbl_stop_flag(void);
/* Nonzero when the run should stop. */
int mbl_stop_check(void);
/* Gives the signals back their default action and forgets the limit. */
void mbl_stop_release(void);

/* Seconds from now that a run has: `limit` (0: none), or less where SLURM_JOB_END_TIME (seconds since 1970),
 * less `margin`, comes first. 0 when nothing limits it; never below a moment otherwise. */
double mbl_stop_seconds(double limit, double margin);

#endif
