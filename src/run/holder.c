/* Who works in a run's folder, and whether it still does. */
#include "run/holder.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SLURM_ANSWERS_MS = 10000 };

extern char **environ;

/* The first line of a small file, "" without it. */
static void read_line(const char *path, char *out, size_t size) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, out, size - 1);
    if (fd >= 0)
        close(fd);
    out[n > 0 ? n : 0] = 0;
    out[strcspn(out, "\n")] = 0;
}

/* State and start of a process from /proc (proc(5): fields 3 and 22; the name before them may hold anything).
 */
static bool read_process(long long pid, char *state, long long *start) {
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%lld/stat", pid);
    read_line(path, text, sizeof text);
    const char *at = strrchr(text, ')');
    if (!at || sscanf(at + 1, " %c", state) != 1)
        return false;
    for (int field = 2; at && field < 22; field++)
        at = strchr(at + 1, ' ');
    return at && sscanf(at, "%lld", start) == 1;
}

static void copy_env(const char *name, char *out, size_t size) {
    const char *value = getenv(name);
    snprintf(out, size, "%s", value ? value : "");
}

void mbl_holder_self(mbl_holder_t *out) {
    char state;
    memset(out, 0, sizeof *out);
    if (gethostname(out->host, sizeof out->host - 1) != 0 || !out->host[0])
        snprintf(out->host, sizeof out->host, "unknown");
    read_line("/proc/sys/kernel/random/boot_id", out->boot, sizeof out->boot);
    ssize_t n = readlink("/proc/self/ns/pid", out->space, sizeof out->space - 1);
    out->space[n > 0 ? n : 0] = 0;
    out->pid = getpid();
    (void)read_process(out->pid, &state, &out->start);
    copy_env("SLURM_CLUSTER_NAME", out->cluster, sizeof out->cluster);
    copy_env("SLURM_JOB_ID", out->job, sizeof out->job);
    copy_env("SLURM_STEP_ID", out->step, sizeof out->step);
    copy_env("SLURM_RESTART_COUNT", out->restart, sizeof out->restart);
}

void mbl_holder_write(const mbl_holder_t *h, char *out) {
    json_t *object =
        json_pack("{s:s,s:I,s:I,s:s,s:s,s:s,s:s,s:s,s:s}", "host", h->host, "pid", (json_int_t)h->pid,
                  "start", (json_int_t)h->start, "boot", h->boot, "pid_namespace", h->space, "slurm_cluster",
                  h->cluster, "slurm_job", h->job, "slurm_step", h->step, "slurm_restart", h->restart);
    size_t n = object ? json_dumpb(object, out, MBL_HOLDER_TEXT - 2, JSON_COMPACT) : 0;
    snprintf(out + (n < MBL_HOLDER_TEXT - 2 ? n : 0), 2, "\n");
    json_decref(object);
}

bool mbl_holder_read(const char *text, mbl_holder_t *out) {
    json_t *object = json_loads(text, 0, NULL);
    const struct {
        const char *key;
        char *place;
        size_t size;
    } texts[] = {{"host", out->host, sizeof out->host},
                 {"boot", out->boot, sizeof out->boot},
                 {"pid_namespace", out->space, sizeof out->space},
                 {"slurm_cluster", out->cluster, sizeof out->cluster},
                 {"slurm_job", out->job, sizeof out->job},
                 {"slurm_step", out->step, sizeof out->step},
                 {"slurm_restart", out->restart, sizeof out->restart}};
    memset(out, 0, sizeof *out);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        const char *value = json_string_value(json_object_get(object, texts[i].key));
        snprintf(texts[i].place, texts[i].size, "%s", value ? value : "");
    }
    out->pid = json_integer_value(json_object_get(object, "pid"));
    out->start = json_integer_value(json_object_get(object, "start"));
    json_decref(object);
    return out->host[0] && out->pid > 0;
}

const char *mbl_holder_name(const mbl_holder_t *h, char *out) {
    int n = snprintf(out, MBL_HOLDER_TEXT, "pid %lld on host %s", h->pid, h->host);
    if (h->job[0] && n > 0 && n < MBL_HOLDER_TEXT)
        snprintf(out + n, MBL_HOLDER_TEXT - (size_t)n, " (job %s of Slurm%s%s)", h->job,
                 h->step[0] ? ", step " : "", h->step);
    return out;
}

bool mbl_holder_is_near(const mbl_holder_t *h, const mbl_holder_t *asking) {
    return strcmp(h->host, asking->host) == 0 && strcmp(h->boot, asking->boot) == 0 &&
           strcmp(h->space, asking->space) == 0;
}

static mbl_holder_state_t state_of_process(const mbl_holder_t *h, const char **why) {
    char state = 0;
    long long start = 0;
    *why = "that process has ended";
    if (read_process(h->pid, &state, &start))
        return state != 'Z' && state != 'X' && start == h->start ? MBL_HOLDER_RUNS : MBL_HOLDER_ENDED;
    return kill((pid_t)h->pid, 0) != 0 && errno == ESRCH ? MBL_HOLDER_ENDED : MBL_HOLDER_UNKNOWN;
}

/* What a command prints, its first word; false when it cannot be run, fails or takes too long. */
static bool ask(char *const argv[], char *out, size_t size) {
    int ends[2], status = -1;
    pid_t child = -1;
    posix_spawn_file_actions_t actions;
    if (pipe(ends) != 0)
        return false;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addclose(&actions, ends[0]);
    bool started = posix_spawnp(&child, argv[0], &actions, NULL, argv, environ) == 0;
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    struct pollfd ready = {.fd = ends[0], .events = POLLIN};
    ssize_t n = started && poll(&ready, 1, SLURM_ANSWERS_MS) > 0 ? read(ends[0], out, size - 1) : -1;
    close(ends[0]);
    out[n > 0 ? n : 0] = 0;
    out[strcspn(out, " \n")] = 0;
    if (started && n < 0)
        kill(child, SIGKILL);
    return started && waitpid(child, &status, 0) == child && n >= 0 && WIFEXITED(status) &&
           WEXITSTATUS(status) == 0;
}

/* Slurm forgets a job some minutes after its end, and knows it as ended until then. That it does not answer
 * says nothing. */
static mbl_holder_state_t state_of_job(const char *job, const char **why) {
    static const char *const over[] = {"COMPLETED",     "FAILED",    "CANCELLED", "TIMEOUT",  "NODE_FAIL",
                                       "OUT_OF_MEMORY", "PREEMPTED", "BOOT_FAIL", "DEADLINE", "REVOKED"};
    char word[64], copy[40], squeue[] = "squeue", head[] = "--noheader", all[] = "--states=all",
                             form[] = "--format=%T", jobs[] = "--jobs";
    char *const argv[] = {squeue, head, all, form, jobs, copy, NULL};
    char *const every[] = {squeue, head, form, NULL};
    snprintf(copy, sizeof copy, "%s", job);
    bool answered = ask(argv, word, sizeof word);
    *why = "Slurm says that its job has ended";
    for (size_t i = 0; answered && i < sizeof over / sizeof *over; i++)
        if (strcmp(word, over[i]) == 0)
            return MBL_HOLDER_ENDED;
    if (answered && word[0])
        return MBL_HOLDER_UNKNOWN;
    *why = "Slurm knows its job no more";
    return answered || ask(every, word, sizeof word) ? MBL_HOLDER_ENDED : MBL_HOLDER_UNKNOWN;
}

mbl_holder_state_t mbl_holder_state(const mbl_holder_t *h, const mbl_holder_t *asking, const char **why) {
    if (mbl_holder_is_near(h, asking))
        return state_of_process(h, why);
    *why = "this job has been started again since";
    bool same_cluster = h->job[0] && asking->job[0] && strcmp(h->cluster, asking->cluster) == 0;
    if (same_cluster && strcmp(h->job, asking->job) == 0)
        return strcmp(h->restart, asking->restart) != 0 ? MBL_HOLDER_ENDED : MBL_HOLDER_UNKNOWN;
    return same_cluster ? state_of_job(h->job, why) : MBL_HOLDER_UNKNOWN;
}
