/* Asking a run to stop: SIGINT, SIGTERM, SIGUSR1, or a limit of wall-clock time. The first request lets the
 * run write a checkpoint and exit 75; a second signal ends the process at once. */
#ifndef MBL_TRAIN_STOP_H
#define MBL_TRAIN_STOP_H

/* Catches the signals from now on; seconds > 0 also asks to stop that long from now (looked at by
 * mbl_stop_check). The flag returned is nonzero once stopping was asked for; it lives as long as the process.
 */
const volatile int *mbl_stop_catch(double seconds);
/* Looks at the clock too; nonzero when the run should stop. */
int mbl_stop_check(void);
/* Gives the signals back their default action. */
void mbl_stop_release(void);

#endif
