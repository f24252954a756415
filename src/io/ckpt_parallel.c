/* Collective writing of checkpoints. Between the steps the ranks agree on how they went, so that no rank
 * waits in HDF5 for one that cannot go on. Our own waits sleep between looks; HDF5's spin, but are short. */
#include "io/ckpt_parallel.h"

#include "base/log.h"
#include "base/mem.h"
#include "io/checkpoint_internal.h"

#ifdef H5_HAVE_PARALLEL
#include <errno.h>
#include <fcntl.h>
#include <mpi.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct mbl_ckpt_team {
    mbl_comm_t *comm;
    MPI_Comm mpi;
    int rank, size;
};

mbl_status_t mbl_ckpt_team_open(mbl_comm_t *comm, mbl_ckpt_team_t **out) {
    const void *native = NULL;
    MBL_REQUIRE(comm && out, "a team without ranks");
    MBL_TRY(mbl_comm_second(comm, &native));
    mbl_ckpt_team_t *team = mbl_calloc(1, sizeof *team);
    mbl_status_t status = team ? MBL_OK : MBL_FAIL(MBL_ERR_MEM, "no memory for writing checkpoints");
    status = mbl_comm_agree(comm, status);
    if (status != MBL_OK) {
        mbl_free(team);
        return status;
    }
    *team = (mbl_ckpt_team_t){comm, *(const MPI_Comm *)native, comm->rank, comm->size};
    *out = team;
    return MBL_OK;
}

/* Waits for what a call began, which returned `code`. A message that failed leaves the ranks out of step, and
 * some of them waiting for this one: the job ends. */
static mbl_status_t wait_for(const mbl_ckpt_team_t *team, int code, MPI_Request *request) {
    int done = 0, length;
    char text[MPI_MAX_ERROR_STRING] = "unknown error";
    while (code == MPI_SUCCESS) {
        code = MPI_Test(request, &done, MPI_STATUS_IGNORE);
        if (code == MPI_SUCCESS && done)
            return MBL_OK;
        nanosleep(&(struct timespec){.tv_nsec = 500000}, NULL);
    }
    MPI_Error_string(code, text, &length);
    MBL_ERROR("mpi: a message about a checkpoint failed: %s; the job ends with it", text);
    mbl_comm_abort(team->comm, 1);
    return MBL_FAIL(MBL_ERR_COMM, "mpi: a message about a checkpoint failed: %s", text);
}

/* Whether all ranks are well. */
static bool all_well(const mbl_ckpt_team_t *team, mbl_status_t mine) {
    MPI_Request request;
    int bad = mine != MBL_OK;
    int code = MPI_Iallreduce(MPI_IN_PLACE, &bad, 1, MPI_INT, MPI_MAX, team->mpi, &request);
    return wait_for(team, code, &request) == MBL_OK && !bad;
}

/* The digest of every whole on rank 0: its state goes from rank to rank, each adding its share. */
static mbl_status_t digest_parts(const mbl_ckpt_team_t *team, const mbl_ckpt_part_t *parts, size_t n,
                                 char digests[][MBL_SHA256_HEX]) {
    MPI_Request request;
    mbl_sha256_t sha;
    int code, bytes = (int)sizeof sha, last = team->size - 1;
    for (size_t i = 0; i < n; i++) {
        mbl_sha256_init(&sha);
        if (team->rank > 0) {
            code = MPI_Irecv(&sha, bytes, MPI_BYTE, team->rank - 1, (int)i, team->mpi, &request);
            MBL_TRY(wait_for(team, code, &request));
        }
        mbl_sha256_update(&sha, parts[i].data, parts[i].count * sizeof *parts[i].data);
        code = MPI_Isend(&sha, bytes, MPI_BYTE, (team->rank + 1) % team->size, (int)i, team->mpi, &request);
        MBL_TRY(wait_for(team, code, &request));
    }
    for (size_t i = 0; i < n && team->rank == 0; i++) {
        code = MPI_Irecv(&sha, bytes, MPI_BYTE, last, (int)i, team->mpi, &request);
        MBL_TRY(wait_for(team, code, &request));
        mbl_sha256_hex(&sha, digests[i]);
    }
    return MBL_OK;
}

static mbl_status_t write_skeleton(const char *path, const mbl_ckpt_item_t *items, size_t n,
                                   const mbl_ckpt_attr_t *attrs, size_t n_attrs, const mbl_ckpt_part_t *parts,
                                   size_t n_parts, char digests[][MBL_SHA256_HEX]) {
    const char **stated;
    MBL_ALLOC(stated, n + 1);
    for (size_t i = 0; i < n; i++)
        for (size_t p = 0; p < n_parts; p++)
            if (!items[i].data && strcmp(items[i].name, parts[p].name) == 0)
                stated[i] = digests[p];
    mbl_status_t status = mbl_ckpt_make(path, items, n, attrs, n_attrs, stated, mbl_ckpt_write_skeleton);
    mbl_free(stated);
    return status;
}

/* What would leave the others waiting in HDF5: a file that this rank cannot open. */
static mbl_status_t try_open(const char *temporary) {
    int fd = open(temporary, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return MBL_FAIL(MBL_ERR_IO, "%s: cannot be opened by this rank: %s", temporary, strerror(errno));
    close(fd);
    return MBL_OK;
}

static hid_t open_together(const mbl_ckpt_team_t *team, const char *temporary) {
    hid_t access = H5Pcreate(H5P_FILE_ACCESS), file = H5I_INVALID_HID;
    if (access >= 0 && H5Pset_fapl_mpio(access, team->mpi, MPI_INFO_NULL) >= 0 &&
        H5Pset_file_locking(access, false, true) >= 0 && H5Pset_fclose_degree(access, H5F_CLOSE_STRONG) >= 0)
        file = H5Fopen(temporary, H5F_ACC_RDWR, access);
    if (access >= 0)
        H5Pclose(access);
    return file;
}

static mbl_status_t write_part(hid_t file, const char *path, const mbl_ckpt_part_t *part) {
    hsize_t whole = part->size, first = part->first, count = part->count, room = count ? count : 1;
    float none = 0;
    hid_t data = H5Dopen2(file, part->name, H5P_DEFAULT), transfer = H5Pcreate(H5P_DATASET_XFER);
    hid_t space = H5Screate_simple(1, &whole, NULL), memory = H5Screate_simple(1, &room, NULL);
    bool good = data >= 0 && transfer >= 0 && space >= 0 && memory >= 0 &&
                H5Pset_dxpl_mpio(transfer, H5FD_MPIO_COLLECTIVE) >= 0;
    if (good)
        good = count ? H5Sselect_hyperslab(space, H5S_SELECT_SET, &first, NULL, &count, NULL) >= 0
                     : H5Sselect_none(space) >= 0 && H5Sselect_none(memory) >= 0;
    good = good && H5Dwrite(data, H5T_IEEE_F32LE, memory, space, transfer, count ? part->data : &none) >= 0;
    mbl_status_t status = good ? MBL_OK : mbl_ckpt_hdf5_failed(path, "store this rank's part of", part->name);
    if (memory >= 0)
        H5Sclose(memory);
    if (space >= 0)
        H5Sclose(space);
    if (transfer >= 0)
        H5Pclose(transfer);
    if (data >= 0)
        H5Dclose(data);
    return status;
}

static mbl_status_t write_parts(const mbl_ckpt_team_t *team, const char *path, const char *temporary,
                                const mbl_ckpt_part_t *parts, size_t n) {
    mbl_status_t status = MBL_OK;
    mbl_ckpt_quiet_hdf5();
    hid_t file = open_together(team, temporary);
    if (file < 0)
        status = mbl_ckpt_hdf5_failed(path, "open", "the file for all ranks");
    if (!all_well(team, status))
        goto done;
    for (size_t i = 0; i < n; i++) {
        status = write_part(file, path, &parts[i]);
        if (!all_well(team, status))
            break;
    }
done:
    if (file >= 0 && H5Fclose(file) < 0 && status == MBL_OK)
        status = mbl_ckpt_hdf5_failed(path, "close", "the file");
    return status;
}

mbl_status_t mbl_ckpt_write_together(mbl_ckpt_team_t *team, const char *path, const mbl_ckpt_item_t *items,
                                     size_t n, const mbl_ckpt_attr_t *attrs, size_t n_attrs,
                                     const mbl_ckpt_part_t *parts, size_t n_parts, bool *failed) {
    char digests[MBL_CKPT_MAX_PARTS][MBL_SHA256_HEX];
    char *temporary = mbl_format("%s.tmp", path);
    bool first = team->rank == 0, laid_out = false;
    mbl_status_t status = temporary ? MBL_OK : MBL_FAIL(MBL_ERR_MEM, "%s: no memory", path);
    *failed = true;
    if (status == MBL_OK && n_parts > MBL_CKPT_MAX_PARTS)
        status = MBL_FAIL(MBL_ERR_ARG, "%s: %zu parts; at most %d", path, n_parts, MBL_CKPT_MAX_PARTS);
    if (!all_well(team, status))
        goto done;
    status = digest_parts(team, parts, n_parts, digests);
    if (status == MBL_OK && first)
        status = write_skeleton(path, items, n, attrs, n_attrs, parts, n_parts, digests);
    laid_out = first && status == MBL_OK;
    if (!all_well(team, status))
        goto done;
    status = try_open(temporary);
    if (!all_well(team, status))
        goto done;
    status = write_parts(team, path, temporary, parts, n_parts);
    if (!all_well(team, status))
        goto done;
    if (first)
        status = mbl_ckpt_verify_inside(temporary);
    if (first && status == MBL_OK)
        status = mbl_ckpt_finish_file(path);
    *failed = !all_well(team, status);
done:
    if (*failed && laid_out)
        unlink(temporary);
    mbl_free(temporary);
    return status;
}

#else

struct mbl_ckpt_team {
    mbl_comm_t *comm;
};

mbl_status_t mbl_ckpt_team_open(mbl_comm_t *comm, mbl_ckpt_team_t **out) {
    (void)comm, (void)out;
    mbl_fail_quiet(1);
    mbl_status_t status = MBL_FAIL(MBL_ERR_UNSUPPORTED, "the HDF5 that marble was built with is serial");
    mbl_fail_quiet(0);
    return status;
}

mbl_status_t mbl_ckpt_write_together(mbl_ckpt_team_t *team, const char *path, const mbl_ckpt_item_t *items,
                                     size_t n, const mbl_ckpt_attr_t *attrs, size_t n_attrs,
                                     const mbl_ckpt_part_t *parts, size_t n_parts, bool *failed) {
    (void)team, (void)items, (void)n, (void)attrs, (void)n_attrs, (void)parts, (void)n_parts;
    *failed = true;
    return MBL_FAIL(MBL_ERR_UNSUPPORTED, "%s: the HDF5 that marble was built with is serial", path);
}

#endif

void mbl_ckpt_team_close(mbl_ckpt_team_t *team) {
    mbl_free(team);
}

mbl_comm_t *mbl_ckpt_team_comm(const mbl_ckpt_team_t *team) {
    return team->comm;
}
