/* Checkpoints that all ranks write together, through parallel HDF5: rank 0 lays the file out, with zeros
 * where the parts of the ranks will stand, every rank writes its parts by collective calls, rank 0 verifies
 * every digest and puts the file in its place. The file is byte for byte the one that mbl_ckpt_write makes of
 * the same content, on any number of ranks. */
#ifndef MBL_IO_CKPT_PARALLEL_H
#define MBL_IO_CKPT_PARALLEL_H

#include "comm/comm.h"
#include "io/checkpoint.h"

typedef struct mbl_ckpt_team mbl_ckpt_team_t;

/* A rank's share of an f32 item: elements [first, first + count) of `size`, count 0 on a rank that has none.
 * In order of the ranks the shares make up the whole. */
typedef struct {
    const char *name;
    size_t size, first, count;
    const float *data; /* host */
} mbl_ckpt_part_t;

enum { MBL_CKPT_MAX_PARTS = 4 };

/* ERR_UNSUPPORTED, not logged, with the reason in mbl_fail_message, where HDF5 is serial, there is one rank,
 * or MPI does not let threads communicate at the same time; the same status on every rank. `comm` must
 * outlive it. Collective. */
mbl_status_t mbl_ckpt_team_open(mbl_comm_t *comm, mbl_ckpt_team_t **out);
void mbl_ckpt_team_close(mbl_ckpt_team_t *team); /* local */
mbl_comm_t *mbl_ckpt_team_comm(const mbl_ckpt_team_t *team);

/* mbl_ckpt_write by all ranks. Rank 0 gives the items and attributes; an item without data is made of parts,
 * which every rank gives in the same order. A rank that fails says why; *failed (the same on every rank)
 * says that one did, and those that did not fail themselves return OK. The file is then as it was before. An
 * I/O error inside MPI-IO on one rank alone is no such failure: HDF5 and Open MPI leave the other ranks
 * waiting for it, which only the end of the job (see ckpt_writer.h) ends; ranks that cannot open the file,
 * and a full disk, are met before. Uses no communication of `comm`, which other threads may use meanwhile.
 * Collective. */
mbl_status_t mbl_ckpt_write_together(mbl_ckpt_team_t *team, const char *path, const mbl_ckpt_item_t *items,
                                     size_t n, const mbl_ckpt_attr_t *attrs, size_t n_attrs,
                                     const mbl_ckpt_part_t *parts, size_t n_parts, bool *failed);

#endif
