/* TensorBoard event files, which many trackers take too: records of protocol
 * buffers with masked CRC-32C sums. A start of a run is a file of its own, which begins with the step from
 * which on readers forget what earlier files say. Written by own code: the six kinds of messages in use take
 * fewer lines than their schema would for protobuf-c, which needs a compiler of its own at build time. */
#ifndef MBL_IO_TENSORBOARD_H
#define MBL_IO_TENSORBOARD_H

#include "base/status.h"

#include <jansson.h>
#include <stdint.h>

typedef struct mbl_tensorboard mbl_tensorboard_t;

/* A new file in `folder`, which is made; `next_step` is the first step that this start writes. ERR_IO. */
mbl_status_t mbl_tensorboard_open(const char *folder, uint64_t next_step, mbl_tensorboard_t **out);
void mbl_tensorboard_close(mbl_tensorboard_t *board); /* NULL does nothing */

/* Values are collected, then written as one event. Memory that is missing shows at the write. */
void mbl_tensorboard_scalar(mbl_tensorboard_t *board, const char *tag, double value);
/* Every finite number of an object: TAG/KEY for those of objects within it (TAG is then their key), GROUP/KEY
 * for its own. "step" is left out. */
void mbl_tensorboard_numbers(mbl_tensorboard_t *board, const char *group, const json_t *object);
void mbl_tensorboard_png(mbl_tensorboard_t *board, const char *tag, size_t width, size_t height,
                         const void *png, size_t size);
void mbl_tensorboard_text(mbl_tensorboard_t *board, const char *tag, const char *markdown);
/* counts [n] of values in n equal bins from low to high. */
typedef struct {
    double low, high, sum, squares;
    const double *counts;
    size_t n;
} mbl_tensorboard_bins_t;
void mbl_tensorboard_histogram(mbl_tensorboard_t *board, const char *tag, const mbl_tensorboard_bins_t *bins);
/* What was collected since the last write, as an event of `step`, in one piece or not at all. What the disk
 * does not take is lost, with a warning the first time and every hundredth. ERR_MEM. */
mbl_status_t mbl_tensorboard_write(mbl_tensorboard_t *board, uint64_t step);

#endif
