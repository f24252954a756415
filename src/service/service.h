/* The service of a run under way: an observer (run/events.h) that starts a server in a thread of rank 0 when
 * the run begins, tells it what happens, and posts what it is asked to the run's mailbox. It reads the run's
 * files; of the run itself it knows the phase alone, so that it cannot slow it down. */
#ifndef MBL_SERVICE_SERVICE_H
#define MBL_SERVICE_SERVICE_H

#include "run/control.h"
#include "run/events.h"

typedef struct mbl_service mbl_service_t;

/* On every rank. Free with mbl_service_free, which ends the thread. */
mbl_status_t mbl_service_new(mbl_control_t *control, mbl_service_t **out);
void mbl_service_free(mbl_service_t *service);
/* For mbl_events_add, with the service itself. An address that is not to be had is a warning: the run goes on
 * without the service. */
extern const mbl_observer_t mbl_service_observer;

/* service.json of a run's folder, of mode 600: where its service answers and the token for /api/control. What
 * is there from before is used again by the next process, so that open pages find it. */
typedef struct {
    char address[512], token[72];
    unsigned short port;
} mbl_service_place_t;
/* False where there is none, or it is not its owner's alone. */
bool mbl_service_read(const char *folder, mbl_service_place_t *out);
/* Whether service.listen means a service here: `auto` does where progress goes to a terminal. */
bool mbl_service_wanted(const char *listen);

#endif
