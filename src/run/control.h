/* What a person asks of a run under way: a mailbox on rank 0 that any of its threads may post to, read by all
 * ranks together at the boundaries of steps. */
#ifndef MBL_RUN_CONTROL_H
#define MBL_RUN_CONTROL_H

#include "comm/comm.h"
#include "config/config.h"

typedef enum {
    MBL_CONTROL_CHECKPOINT, /* after this epoch */
    MBL_CONTROL_EVALUATE,   /* the same */
    MBL_CONTROL_PAUSE,      /* before the next epoch, until resume or stop */
    MBL_CONTROL_RESUME,
    MBL_CONTROL_STOP /* before the next epoch, with a checkpoint, as a signal does */
} mbl_control_verb_t;
enum { MBL_CONTROL_TEXT = 1024, MBL_CONTROL_SETS = 16 };

/* What was asked since the last time. Plain bytes: it is broadcast as it is. */
typedef struct {
    bool checkpoint, evaluate, stop;
    bool paused;                 /* as it stands after all requests */
    char text[MBL_CONTROL_TEXT]; /* settings "KEY=VALUE", each ended by a NUL */
    uint16_t sets;               /* how many */
} mbl_control_request_t;

typedef struct mbl_control mbl_control_t;

/* Every rank has one; only rank 0's is posted to. Free with mbl_control_free. */
mbl_status_t mbl_control_new(mbl_control_t **out);
void mbl_control_free(mbl_control_t *control);

/* From any thread of rank 0; returns at once. */
void mbl_control_ask(mbl_control_t *control, mbl_control_verb_t verb);
/* The same of a setting as `--set` takes it, for train.lr, balance.floor, balance.refresh_every,
 * rewards.N.weight and rewards.N.min. ERR_CONFIG for another key, or where the configuration that `config`
 * (of the run, as mbl_control_config gives it) makes with it is refused; ERR_ARG when the mailbox is full
 * until the next step. */
mbl_status_t mbl_control_set(mbl_control_t *control, const char *setting, size_t ranks);
/* The same of n settings: all of them or none. */
mbl_status_t mbl_control_set_all(mbl_control_t *control, const char *const *settings, size_t n, size_t ranks);
/* Whether a pause stands asked for, and whether the run waits in one; both stay where another thread is at
 * the mailbox just now. From any thread of rank 0. */
void mbl_control_pausing(mbl_control_t *control, bool *asked, bool *waits);
/* The run's configuration as it is now, for checks of settings, until the next call; NULL: none are taken. */
void mbl_control_config(mbl_control_t *control, const mbl_config_t *config);

/* Takes what rank 0 was asked, waiting up to `wait` seconds for something to be asked while there is nothing.
 * The same on every rank. Collective. */
mbl_status_t mbl_control_read(mbl_control_t *control, mbl_comm_t *comm, double wait,
                              mbl_control_request_t *out);
/* The configuration with the request's settings; *out is NULL, with a warning, where a rank refuses them
 * (rank 0 checked before). Free with mbl_config_free. Collective. */
mbl_status_t mbl_control_configure(mbl_comm_t *comm, const mbl_config_t *config,
                                   const mbl_control_request_t *request, mbl_config_t **out);

#endif
