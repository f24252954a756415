/* A thread starts the process, logs what it writes, and starts it again when it ends. */
#include "reward/remote/child.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "reward/remote/child_folder.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <uv.h>

enum { LINE = 1000, LINE_KEPT = 240, ENDS_WITHIN = 2, ARGUMENTS = 20, SHORT_LIFE = 10, REST_MAX = 30 };

struct mbl_child {
    char *name;
    mbl_child_folder_t folder;
    char *arguments[ARGUMENTS]; /* of the process; its own copies */
    size_t n_arguments;
    char **environment; /* points into this process's */
    pid_t pid;          /* 0: none */
    int output;         /* what it writes */
    uv_thread_t thread;
    bool started;
    uv_mutex_t lock; /* guards all below */
    uv_cond_t wake;
    bool closing, ended;
    char last[LINE_KEPT]; /* that it wrote */
};

extern char **environ;

const char *mbl_child_url(const mbl_child_t *child) {
    return child->folder.url;
}

/* ---- the process ---- */

/* Runs in the forked process, where only calls that are safe in a signal handler are. */
static void become_server(const mbl_child_t *child, int output, pid_t parent) {
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGINT, SIG_IGN); /* Ctrl-C is for the run, which ends its server itself */
    signal(SIGPIPE, SIG_DFL);
    prctl(PR_SET_PDEATHSIG, SIGUSR2); /* SIGTERM is for a run that goes on, and cleans up itself */
    if (getppid() != parent)
        _exit(1); /* it died in between */
    int nothing = open("/dev/null", O_RDWR);
    dup2(nothing, STDIN_FILENO);
    dup2(nothing, STDOUT_FILENO);
    dup2(output, STDERR_FILENO);
    for (int fd = 3; fd < 1024; fd++)
        close(fd);
    environ = child->environment;
    execvp(child->arguments[0], child->arguments);
    static const char text[] = "the interpreter cannot be started\n";
    if (write(STDERR_FILENO, text, sizeof text - 1) < 0)
        _exit(126);
    _exit(127);
}

static mbl_status_t start_process(mbl_child_t *child) {
    int pipe_ends[2];
    pid_t parent = getpid();
    if (pipe2(pipe_ends, O_CLOEXEC))
        return MBL_FAIL(MBL_ERR_IO, "reward %s: no pipe: %s", child->name, strerror(errno));
    pid_t pid = fork();
    if (pid == 0)
        become_server(child, pipe_ends[1], parent);
    close(pipe_ends[1]);
    if (pid < 0) {
        close(pipe_ends[0]);
        return MBL_FAIL(MBL_ERR_IO, "reward %s: %s cannot be started: %s", child->name, child->arguments[0],
                        strerror(errno));
    }
    child->pid = pid;
    child->output = pipe_ends[0];
    return MBL_OK;
}

static bool is_closing(mbl_child_t *child) {
    uv_mutex_lock(&child->lock);
    bool closing = child->closing;
    uv_mutex_unlock(&child->lock);
    return closing;
}

/* ---- what it writes ---- */

typedef struct {
    char text[LINE + 1];
    size_t used;
} line_t;

static void log_line(mbl_child_t *child, line_t *line) {
    line->text[line->used] = 0;
    for (char *c = line->text; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 127)
            *c = ' ';
    if (line->used > 0) {
        MBL_INFO("reward %s: %s", child->name, line->text);
        uv_mutex_lock(&child->lock);
        snprintf(child->last, sizeof child->last, "%.*s", LINE_KEPT - 1, line->text);
        uv_mutex_unlock(&child->lock);
    }
    line->used = 0;
}

static void log_output(mbl_child_t *child, line_t *line, const char *text, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (text[i] == '\n' || line->used == LINE)
            log_line(child, line);
        if (text[i] != '\n' && text[i] != 0)
            line->text[line->used++] = text[i];
    }
}

/* Until it has ended; its exit status. */
static int watch_process(mbl_child_t *child) {
    line_t line = {.used = 0};
    char buffer[4096];
    double asked = 0;
    int status = 0;
    for (bool open = true;;) {
        struct pollfd poller = {.fd = child->output, .events = POLLIN};
        if (is_closing(child) && asked <= 0) {
            asked = mbl_now();
            kill(child->pid, SIGTERM);
        } else if (asked > 0 && mbl_now() - asked > ENDS_WITHIN) {
            kill(child->pid, SIGKILL);
        }
        if (open && poll(&poller, 1, 50) > 0) {
            ssize_t n = read(child->output, buffer, sizeof buffer);
            open = n > 0;
            log_output(child, &line, buffer, n > 0 ? (size_t)n : 0);
        } else if (waitpid(child->pid, &status, WNOHANG) == child->pid) {
            break;
        } else if (!open) {
            usleep(20000);
        }
    }
    log_line(child, &line);
    close(child->output);
    child->pid = 0;
    return status;
}

bool mbl_child_ended(mbl_child_t *child, char *text, size_t size) {
    uv_mutex_lock(&child->lock);
    bool ended = child->ended;
    snprintf(text, size, "%s%s", child->ended ? "; it ended and wrote last: " : "",
             child->ended ? child->last : "");
    uv_mutex_unlock(&child->lock);
    return ended;
}

static void report_end(mbl_child_t *child, int status, double rest) {
    char how[64];
    uv_mutex_lock(&child->lock);
    child->ended = true;
    uv_mutex_unlock(&child->lock);
    if (WIFSIGNALED(status))
        snprintf(how, sizeof how, "signal %d", WTERMSIG(status));
    else
        snprintf(how, sizeof how, "exit code %d", WEXITSTATUS(status));
    MBL_WARN("reward %s: its Python server ended (%s) and starts again in %g s", child->name, how, rest);
}

/* A server that ends at once is started less and less often. */
static void run(void *user) {
    mbl_child_t *child = user;
    double rest = 1;
    while (!is_closing(child)) {
        double start = mbl_now();
        int status = 0;
        if (child->pid || start_process(child) == MBL_OK)
            status = watch_process(child);
        if (is_closing(child))
            return;
        rest = mbl_now() - start > SHORT_LIFE ? 1 : rest;
        report_end(child, status, rest);
        uv_mutex_lock(&child->lock);
        if (!child->closing)
            uv_cond_timedwait(&child->wake, &child->lock, (uint64_t)(rest * 1e9));
        uv_mutex_unlock(&child->lock);
        rest = 2 * rest < REST_MAX ? 2 * rest : REST_MAX;
    }
}

/* ---- opening ---- */

static mbl_status_t add_argument(mbl_child_t *child, const char *text) {
    char *copy = mbl_strdup(text);
    if (!copy)
        return MBL_FAIL(MBL_ERR_MEM, "no memory for an argument");
    child->arguments[child->n_arguments++] = copy;
    return MBL_OK;
}

static mbl_status_t make_arguments(mbl_child_t *child, const mbl_child_options_t *options) {
    char workers[32], batch[32], grace[32];
    snprintf(workers, sizeof workers, "%zu", options->workers);
    snprintf(batch, sizeof batch, "%zu", options->batch);
    snprintf(grace, sizeof grace, "%d", ENDS_WITHIN / 2);
    const char *const texts[] = {
        options->python, child->folder.program, "serve",     options->file, "--listen",   child->folder.url,
        "--with-parent", "--own-folder",        "--workers", workers,       "--batch",    batch,
        "--device",      options->device,       "--grace",   grace,         "--max-body", "1G"};
    _Static_assert(sizeof texts / sizeof *texts < ARGUMENTS, "an argument list ends with NULL");
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        MBL_TRY(add_argument(child, texts[i]));
    return MBL_OK;
}

/* The server is no rank, whatever libraries the user's file imports; and marble's threads are not its. */
static bool is_for_it(const char *variable) {
    static const char *const not [] = {
        "OMPI_", "PMIX_", "PMI_", "PRTE_", "OMP_", "GOMP_", "MARBLE_REWARD_TOKEN="};
    for (size_t i = 0; i < sizeof not / sizeof *not ; i++)
        if (strncmp(variable, not [i], strlen(not [i])) == 0)
            return false;
    return true;
}

static mbl_status_t make_environment(mbl_child_t *child) {
    size_t n = 0, kept = 0;
    while (environ[n])
        n++;
    MBL_ALLOC(child->environment, n + 1);
    for (size_t i = 0; i < n; i++)
        if (is_for_it(environ[i]))
            child->environment[kept++] = environ[i];
    return MBL_OK;
}

static mbl_status_t fill(mbl_child_t *child, const mbl_child_options_t *options) {
    child->name = mbl_strdup(options->name);
    if (!child->name)
        return MBL_FAIL(MBL_ERR_MEM, "no memory for a name");
    MBL_TRY(mbl_child_folder_make(child->name, &child->folder));
    MBL_TRY(make_arguments(child, options));
    MBL_TRY(make_environment(child));
    int error = uv_thread_create(&child->thread, run, child);
    if (error)
        return MBL_FAIL(MBL_ERR_MEM, "a thread for reward %s: %s", options->name, uv_strerror(error));
    child->started = true;
    return MBL_OK;
}

mbl_status_t mbl_child_open(const mbl_child_options_t *options, mbl_child_t **out) {
    mbl_child_t *child;
    MBL_ALLOC(child, 1);
    child->folder.lock = -1;
    int error = uv_mutex_init(&child->lock);
    if (!error && (error = uv_cond_init(&child->wake)) != 0)
        uv_mutex_destroy(&child->lock);
    if (error) {
        mbl_free(child);
        return MBL_FAIL(MBL_ERR_MEM, "a lock for reward %s: %s", options->name, uv_strerror(error));
    }
    mbl_status_t status = fill(child, options);
    if (status != MBL_OK) {
        mbl_child_close(child);
        return status;
    }
    *out = child;
    return MBL_OK;
}

void mbl_child_close(mbl_child_t *child) {
    if (!child)
        return;
    if (child->started) {
        uv_mutex_lock(&child->lock);
        child->closing = true;
        uv_cond_signal(&child->wake);
        uv_mutex_unlock(&child->lock);
        uv_thread_join(&child->thread);
    }
    mbl_child_folder_remove(&child->folder);
    for (size_t i = 0; i < child->n_arguments; i++)
        mbl_free(child->arguments[i]);
    uv_cond_destroy(&child->wake);
    uv_mutex_destroy(&child->lock);
    mbl_free(child->environment);
    mbl_free(child->name);
    mbl_free(child);
}
