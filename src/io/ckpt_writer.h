/* Checkpoints written by a thread of their own while training goes on. HDF5 is not thread-safe: between start
 * and the end of that write no other thread may call anything of io/checkpoint.h but mbl_ckpt_path. On rank 0
 * alone, or, for files that all ranks write together, on every rank. */
#ifndef MBL_IO_CKPT_WRITER_H
#define MBL_IO_CKPT_WRITER_H

#include "io/checkpoint.h"
#include "io/ckpt_parallel.h"

typedef struct mbl_ckpt_writer mbl_ckpt_writer_t;

/* What mbl_ckpt_write and then mbl_ckpt_publish are given. All that the pointers lead to stays as it is until
 * the write has ended. */
typedef struct {
    const char *folder;
    size_t step;
    const mbl_ckpt_item_t *items;
    size_t n;
    const mbl_ckpt_attr_t *attrs;
    size_t n_attrs;
    mbl_ckpt_keep_t keep;
    mbl_ckpt_team_t
        *team; /* NULL: this rank writes alone; else every rank starts the same job, with its parts */
    const mbl_ckpt_part_t *parts;
    size_t n_parts;
} mbl_ckpt_job_t;

/* The thread takes no signals and runs at low priority. Close waits for the write under way. Waiting for a
 * write by all ranks ends the job (mbl_comm_abort) when the ranks' communicator fails or its deadline passes:
 * the ranks wait for each other within HDF5, and only that ends a wait for one that hangs. */
mbl_status_t mbl_ckpt_writer_open(mbl_ckpt_writer_t **out);
void mbl_ckpt_writer_close(mbl_ckpt_writer_t *writer);

/* Begins a write; the one before has to have ended (mbl_ckpt_writer_result with wait). */
mbl_status_t mbl_ckpt_writer_start(mbl_ckpt_writer_t *writer, const mbl_ckpt_job_t *job);
/* How the last write ended, reported once: MBL_OK when it went well, is still under way, or was reported
 * before, and on the ranks of a team that did not fail themselves. */
mbl_status_t mbl_ckpt_writer_result(mbl_ckpt_writer_t *writer, bool wait);

#endif
