/* marble doctor: what was built in, what is missing, and how to get it. */
#include "base/cpus.h"
#include "base/mem.h"
#include "cli/args.h"
#include "cli/commands.h"
#include "comm/list.h"
#include "ops/cpu/isa.h"
#include "ops/list.h"
#include "reward/reward.h"

#include <hdf5.h>
#include <jansson.h>
#include <mpi.h>
#include <png.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>
#include <yaml.h>

enum { TEXT = 200, MAX_FINDINGS = 24 };

typedef struct {
    const char *name;
    char found[TEXT];
    bool good;
    const char *remedy; /* when it is not good */
} finding_t;

typedef struct {
    finding_t items[MAX_FINDINGS];
    size_t count;
} findings_t;

static finding_t *add(findings_t *all, const char *name, bool good, const char *remedy) {
    finding_t *finding = &all->items[all->count < MAX_FINDINGS ? all->count++ : MAX_FINDINGS - 1];
    *finding = (finding_t){.name = name, .good = good, .remedy = remedy};
    return finding;
}

#ifdef __OPTIMIZE__
static const bool optimized = true;
#else
static const bool optimized = false;
#endif
#ifdef H5_HAVE_PARALLEL
static const bool parallel_hdf5 = true;
#else
static const bool parallel_hdf5 = false;
#endif

static void find_build(findings_t *all) {
    snprintf(add(all, "marble", true, NULL)->found, TEXT, "%s", MBL_VERSION);
    snprintf(add(all, "compiler", true, NULL)->found, TEXT, "%s%s",
             __VERSION__[0] >= '0' && __VERSION__[0] <= '9' ? "gcc " : "", __VERSION__);
    snprintf(add(all, "build", optimized,
                 "for speed: cmake -DCMAKE_BUILD_TYPE=Release -S . -B build, then build again")
                 ->found,
             TEXT, "%s", optimized ? "optimized" : "not optimized");
}

/* What multiplies here; returns whether the processor has instructions for bf16. */
static bool find_isa(findings_t *all) {
    mbl_ops_t *ops = NULL;
    mbl_fail_quiet(1);
    const bool works = mbl_ops_open("cpu", 1, &ops) == MBL_OK;
    mbl_fail_quiet(0);
    finding_t *finding = add(all, "isa", works, "unset MARBLE_CPU_ISA, or set it to what this processor has");
    if (!works) {
        snprintf(finding->found, TEXT, "%s", mbl_fail_message());
        return false;
    }
    ops->table->describe(ops, finding->found, TEXT);
    const bool bf16 = mbl_ops_bf16_is_native(ops);
    mbl_ops_close(ops);
    return bf16;
}

static void find_compute(findings_t *all) {
    char version[MBL_CPU_TEXT], isa[MBL_CPU_TEXT];
    mbl_threads_t threads;
    mbl_threads_alone(&threads);
    finding_t *onednn = add(all, "onednn", true, NULL);
    const bool bf16 = find_isa(all);
    mbl_cpu_onednn(version, isa); /* only now: the first use of oneDNN decides its instructions */
    snprintf(onednn->found, TEXT, "%s", version);
    snprintf(add(all, "bf16", bf16, "this CPU multiplies bf16 slowly; precision: auto runs f32 here")->found,
             TEXT, "%s", bf16 ? "native" : "not native");
    snprintf(add(all, "threads", true, NULL)->found, TEXT, "%s", threads.text);
}

static bool on_path(const char *program) {
    const char *path = getenv("PATH");
    char file[4096];
    while (path && *path) {
        size_t length = strcspn(path, ":");
        snprintf(file, sizeof file, "%.*s/%s", (int)length, path, program);
        if (access(file, X_OK) == 0)
            return true;
        path += length + (path[length] == ':');
    }
    return false;
}

static void find_libraries(findings_t *all) {
    char mpi[MPI_MAX_LIBRARY_VERSION_STRING] = "";
    int length = 0;
    unsigned major = 0, minor = 0, release = 0;
    MPI_Get_library_version(mpi, &length); /* allowed before MPI_Init */
    H5get_libversion(&major, &minor, &release);
    snprintf(add(all, "mpi", true, NULL)->found, TEXT, "%.*s", (int)strcspn(mpi, ",\n"), mpi);
    bool mpirun = on_path("mpirun"), srun = on_path("srun");
    snprintf(
        add(all, "launcher", mpirun || srun, "for more than one rank: deploy/install-packages (openmpi-bin)")
            ->found,
        TEXT, "%s",
        mpirun && srun ? "mpirun, srun"
        : mpirun       ? "mpirun"
        : srun         ? "srun"
                       : "none found");
    snprintf(
        add(all, "hdf5", parallel_hdf5, "deploy/install-packages (libhdf5-openmpi-dev), then build again")
            ->found,
        TEXT, "%u.%u.%u %s", major, minor, release, parallel_hdf5 ? "parallel" : "serial");
    snprintf(add(all, "libuv", true, NULL)->found, TEXT, "%s", uv_version_string());
    snprintf(add(all, "jansson", true, NULL)->found, TEXT, "%s", jansson_version_str());
    snprintf(add(all, "libyaml", true, NULL)->found, TEXT, "%s", yaml_get_version_string());
    snprintf(add(all, "libpng", true, NULL)->found, TEXT, "%s", png_get_libpng_ver(NULL));
}

/* Whether this build has the GPU backend, and whether it works here. */
static void find_cuda(findings_t *all) {
    static const char *const elsewhere = "everything runs on device: cpu";
    mbl_ops_t *ops;
    if (mbl_ops_cuda.missing) {
        snprintf(add(all, "cuda", false, mbl_ops_cuda.missing)->found, TEXT, "not built in");
        return;
    }
    mbl_fail_quiet(1);
    bool works = mbl_ops_open("cuda", 1, &ops) == MBL_OK;
    mbl_fail_quiet(0);
    finding_t *finding = add(all, "cuda", works, elsewhere);
    if (!works) {
        snprintf(finding->found, TEXT, "%s", mbl_fail_message());
        return;
    }
    ops->table->describe(ops, finding->found, TEXT);
    mbl_ops_close(ops);
}

static void find_nccl(findings_t *all) {
    const char *why_not;
    bool nccl = mbl_comm_nccl.available(&why_not);
    const char *algorithms = getenv("NCCL_ALGO"); /* main.c sets it where the user has not */
    snprintf(add(all, "nccl", nccl, why_not)->found, TEXT, nccl ? "built in; NCCL_ALGO=%s" : "not used",
             algorithms ? algorithms : "");
}

static void find_rewards(findings_t *all) {
    const mbl_scorer_t *scorer;
    char *out = add(all, "rewards", true, NULL)->found;
    size_t used = 0;
    for (size_t i = 0; (scorer = mbl_scorer_at(i)) && used < TEXT; i++)
        used += (size_t)snprintf(out + used, TEXT - used, "%s%s", i ? ", " : "", scorer->name);
}

static void print_text(const findings_t *all) {
    for (size_t i = 0; i < all->count; i++) {
        const finding_t *finding = &all->items[i];
        printf("%-3s %-10s %s\n", finding->good ? "ok" : "--", finding->name, finding->found);
        if (!finding->good)
            printf("               %s\n", finding->remedy);
    }
}

static mbl_status_t print_json(const findings_t *all) {
    json_t *root = json_object();
    int failed = root == NULL;
    for (size_t i = 0; i < all->count && !failed; i++) {
        const finding_t *finding = &all->items[i];
        failed =
            json_object_set_new(root, finding->name,
                                json_pack("{s:s, s:b, s:s*}", "found", finding->found, "ok", finding->good,
                                          "remedy", finding->good ? NULL : finding->remedy));
    }
    char *text = failed ? NULL : json_dumps(root, 0);
    json_decref(root);
    if (!text)
        return MBL_FAIL(MBL_ERR_MEM, "doctor: no memory for the JSON");
    puts(text);
    free(text);
    return MBL_OK;
}

int mbl_cmd_doctor(int argc, char **argv) {
    bool json = false, helped = false;
    const mbl_arg_t args[] = {
        {"json", MBL_ARG_FLAG, &json, NULL, "one JSON object, by item: found, ok, remedy", 0, 0, 0, NULL}};
    const mbl_args_t spec = {"doctor",
                             "",
                             "Says what was built in, what is missing, and how to get it.\n"
                             "The environment variable MARBLE_CPU_ISA holds this and every other command to\n"
                             "instructions that a processor has: portable, avx2, or avx512 (without AMX).",
                             args,
                             1,
                             0,
                             0};
    mbl_arg_texts_t rest;
    mbl_status_t status = mbl_args_parse(&spec, argc, argv, &rest, &helped);
    if (status != MBL_OK || helped)
        return mbl_status_exit_code(status);
    findings_t all = {.count = 0};
    find_build(&all);
    find_compute(&all);
    find_libraries(&all);
    find_cuda(&all);
    find_nccl(&all);
    find_rewards(&all);
    if (json)
        status = print_json(&all);
    else
        print_text(&all);
    return mbl_status_exit_code(status);
}
