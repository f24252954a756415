/* Observers, one after another. */
#include "run/events.h"

mbl_status_t mbl_events_add(mbl_events_t *events, const mbl_observer_t *observer, void *self) {
    MBL_REQUIRE(events->n < MBL_EVENTS_MOST, "observer %s: there are %zu already, expected at most %d",
                observer->name, events->n, MBL_EVENTS_MOST);
    events->items[events->n].observer = observer;
    events->items[events->n++].self = self;
    return MBL_OK;
}

#define SHOW(slot, type)                                                                                     \
    mbl_status_t mbl_events_##slot(const mbl_events_t *events, const type *event) {                          \
        for (size_t i = 0; i < events->n; i++)                                                               \
            if (events->items[i].observer->slot)                                                             \
                MBL_TRY(events->items[i].observer->slot(events->items[i].self, event));                      \
        return MBL_OK;                                                                                       \
    }
SHOW(begin, mbl_event_begin_t)
SHOW(images, mbl_event_images_t)
SHOW(step, mbl_event_step_t)
SHOW(epoch, mbl_event_epoch_t)
SHOW(evaluated, mbl_event_eval_t)
SHOW(end, mbl_event_end_t)
#undef SHOW

void mbl_events_phase(const mbl_events_t *events, mbl_phase_t phase) {
    for (size_t i = 0; i < events->n; i++)
        if (events->items[i].observer->phase)
            events->items[i].observer->phase(events->items[i].self, phase);
}
