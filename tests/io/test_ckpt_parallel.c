/* Checkpoints that all ranks write: byte for byte the file that one rank writes of the same content, for
 * shares that are empty, end within a chunk or share one; and a layout that fails on rank 0, after which
 * every rank knows, nothing is left over and the next write succeeds.
 *
 * ctest-ranks: 2 3 4 */
#include "ranks.h"

#include "io/ckpt_parallel.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static mbl_comm_t *comm;
static mbl_ckpt_team_t *team;
static char folder[256], path[512], expected[512];

static int prepare(void **state) {
    (void)state;
    comm = open_ranks();
    if (!comm)
        return -1;
    if (comm->rank == 0)
        temporary_folder(folder);
    if (mbl_comm_bcast(comm, folder, sizeof folder, 0) != MBL_OK)
        return -1;
    snprintf(path, sizeof path, "%s/step-000001.h5", folder);
    snprintf(expected, sizeof expected, "%s/expected.h5", folder);
    mbl_status_t status = mbl_ckpt_team_open(comm, &team);
    return status == MBL_OK || status == MBL_ERR_UNSUPPORTED ? 0 : -1;
}

static int finish(void **state) {
    (void)state;
    mbl_ckpt_team_close(team);
    if (comm->rank == 0)
        remove_folder(folder);
    mbl_comm_close(comm);
    return 0;
}

static float value(size_t i, size_t of) {
    return (float)((i * 2654435761u + of) % 1000003) / 1009.0f;
}

static mbl_status_t write_it(const char *to, size_t size, bool *failed) {
    static const char *const names[] = {"optimizer/m", "optimizer/v"};
    static const mbl_ckpt_attr_t attrs[] = {{"kind", "train"}, {"step", "1"}};
    double small[3] = {1, 2, 3};
    size_t first, last;
    float *own[2], *adapter = malloc((size + 1) * sizeof *adapter);
    mbl_ckpt_part_t parts[2];
    mbl_shard_range(size, comm->size, comm->rank, &first, &last);
    for (size_t p = 0; p < 2; p++) {
        own[p] = malloc((last - first + 1) * sizeof *own[p]);
        for (size_t i = first; i < last; i++)
            own[p][i - first] = value(i, p);
        parts[p] = (mbl_ckpt_part_t){names[p], size, first, last - first, own[p]};
    }
    for (size_t i = 0; i < size; i++)
        adapter[i] = value(i, 7);
    const mbl_ckpt_item_t items[] = {{"adapter/current", MBL_F32, size, adapter},
                                     {names[0], MBL_F32, size, NULL},
                                     {names[1], MBL_F32, size, NULL},
                                     {"balance/alpha_mean", MBL_F64, 3, small}};
    mbl_status_t status = mbl_ckpt_write_together(team, to, items, 4, attrs, 2, parts, 2, failed);
    free(own[0]);
    free(own[1]);
    free(adapter);
    return status;
}

/* Rank 0 writes the same by itself and compares. */
static void same_file(size_t size) {
    size_t n[2];
    static const mbl_ckpt_attr_t attrs[] = {{"kind", "train"}, {"step", "1"}};
    double small[3] = {1, 2, 3};
    float *whole[3];
    static const size_t of[] = {7, 0, 1};
    for (size_t p = 0; p < 3; p++) {
        whole[p] = malloc((size + 1) * sizeof *whole[p]);
        for (size_t i = 0; i < size; i++)
            whole[p][i] = value(i, of[p]);
    }
    const mbl_ckpt_item_t items[] = {{"adapter/current", MBL_F32, size, whole[0]},
                                     {"optimizer/m", MBL_F32, size, whole[1]},
                                     {"optimizer/v", MBL_F32, size, whole[2]},
                                     {"balance/alpha_mean", MBL_F64, 3, small}};
    assert_int_equal(mbl_ckpt_write(expected, items, 4, attrs, 2), MBL_OK);
    char *a = read_whole(expected, &n[0]), *b = read_whole(path, &n[1]);
    assert_int_equal(n[0], n[1]);
    for (size_t i = 0; i < n[0]; i++)
        if (a[i] != b[i])
            fail_msg("%zu numbers on %d ranks: byte %zu of %zu is %d, %d when gathered", size, comm->size, i,
                     n[0], b[i], a[i]);
    free(a);
    free(b);
    for (size_t p = 0; p < 3; p++)
        free(whole[p]);
    mbl_ckpt_t *ckpt;
    assert_int_equal(mbl_ckpt_open(path, &ckpt), MBL_OK);
    mbl_ckpt_close(ckpt);
    assert_int_equal(unlink(path), 0);
}

static bool no_team(void) {
    if (!team)
        print_message("no writing together: one rank, serial HDF5 or an MPI without threads\n");
    return !team;
}

static void the_file_is_the_gathered_one(void **state) {
    static const size_t sizes[] = {1, 20, 1000, 262144, 262145, 5 * 262144 + 1003};
    (void)state;
    if (no_team())
        return;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        bool failed;
        mbl_status_t status = write_it(path, sizes[i], &failed);
        assert_int_equal(mbl_comm_agree(comm, status), MBL_OK);
        assert_false(failed);
        if (comm->rank == 0)
            same_file(sizes[i]);
        assert_int_equal(mbl_comm_barrier(comm), MBL_OK);
    }
}

/* The rank that fails says so, every rank knows, nothing is left, and the next write succeeds. */
static void check_failure(const char *to, int who, mbl_status_t want) {
    bool failed;
    mbl_fail_quiet(1);
    mbl_status_t status = write_it(to, 900000, &failed);
    mbl_fail_quiet(0);
    assert_true(failed);
    if (comm->rank == who)
        assert_int_equal(status, want);
    if (comm->rank == 0) {
        assert_int_not_equal(access(path, F_OK), 0);
        char temporary[600];
        snprintf(temporary, sizeof temporary, "%s.tmp", path);
        assert_int_not_equal(access(temporary, F_OK), 0);
    }
    status = write_it(path, 900000, &failed);
    assert_int_equal(mbl_comm_agree(comm, status), MBL_OK);
    assert_false(failed);
    if (comm->rank == 0)
        same_file(900000);
    assert_int_equal(mbl_comm_barrier(comm), MBL_OK);
}

static void a_layout_that_fails_is_reported(void **state) {
    char nowhere[600];
    (void)state;
    if (no_team())
        return;
    snprintf(nowhere, sizeof nowhere, "%s/not/there.h5", folder);
    check_failure(nowhere, 0, MBL_ERR_IO);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_file_is_the_gathered_one),
                                       cmocka_unit_test(a_layout_that_fails_is_reported)};
    return cmocka_run_group_tests(tests, prepare, finish);
}
