/* Open addressing of tables that only grow: how many slots, and where to begin to look. */
#ifndef MBL_MODEL_TEXT_SLOTS_H
#define MBL_MODEL_TEXT_SLOTS_H

#include <stddef.h>
#include <stdint.h>

/* A power of two, so that at most half of the slots are taken. */
static inline size_t mbl_slots_for(size_t entries) {
    size_t slots = 16;
    while (slots < 2 * entries)
        slots *= 2;
    return slots;
}

static inline size_t mbl_slot_of(uint64_t key, size_t slots) {
    return (size_t)((key * 0x9e3779b97f4a7c15u) >> 20) & (slots - 1);
}

static inline size_t mbl_slot_after(size_t slot, size_t slots) {
    return (slot + 1) & (slots - 1);
}

#endif
