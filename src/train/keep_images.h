/* The images of a rollout one by one, for the page of a run and whoever else looks: an archive (io/tar.h) in
 * the form of WebDataset, image i as IIIIII.png, or .jpg where it is larger than 128 pixels, with
 * IIIIII.json:
 * {"step", "prompt", "metadata", "scores": {NAME: number or null}, "advantages": {...}}. */
#ifndef MBL_TRAIN_KEEP_IMAGES_H
#define MBL_TRAIN_KEEP_IMAGES_H

#include "run/events.h"
#include "run/rundir.h"

enum { MBL_KEPT_ROLLOUT = 1024, MBL_KEPT_SIDE = 256 };

/* rollout.tar: the first MBL_KEPT_ROLLOUT images of an epoch, of all ranks, at most MBL_KEPT_SIDE pixels on a
 * side, with scores and clamped advantages; it takes the place of the one before. A disk that is full costs
 * the file and no run. Collective. */
mbl_status_t mbl_keep_rollout(mbl_comm_t *comm, mbl_rundir_t *rundir, const mbl_event_images_t *images);

#endif
