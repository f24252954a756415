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

enum { LINE = 1000, ENDS_WITHIN = 2, ARGUMENTS = 24, SHORT_LIFE = 10, REST_MAX = 30 };
/* The last lines that it wrote, for messages; and what of all lines goes to the log: a function that prints
 * for every image would fill it. */
enum { KEPT = 3, LINE_KEPT = 240, LINES_AT_ONCE = 200, SECONDS_A_LINE = 10 };

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
    double allowed, allowed_at; /* lines that may be logged, as of then */
    size_t dropped;
    char lines[KEPT][LINE_KEPT]; /* what the process wrote last, the newest first */
    uv_mutex_t lock;             /* guards all below */
    uv_cond_t wake;
    bool closing;
    double ended_at; /* 0: it has not ended yet */
    char how[64];
    char last[KEPT][LINE_KEPT]; /* the lines of the process that ended last */
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
    /* Ctrl-C, and the SIGTERM that a time limit sends to all processes of a job, are for the run, which goes
     * on to the end of its step and ends its server itself. */
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    signal(SIGPIPE, SIG_DFL);
    prctl(PR_SET_PDEATHSIG, SIGUSR2); /* as if by SIGUSR1, and it removes its folder */
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
    int why = errno;
    const char *const texts[] = {"the interpreter ", child->arguments[0], " cannot be started: ",
                                 why == ENOENT   ? "there is no such program"
                                 : why == EACCES ? "it may not be run"
                                                 : "it is no program for this machine",
                                 " (key python)\n"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (write(STDERR_FILENO, texts[i], strlen(texts[i])) < 0)
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

/* Whether one more line goes to the log: some at once, and then one now and then. */
static bool may_log(mbl_child_t *child) {
    double now = mbl_now();
    child->allowed += (now - child->allowed_at) / SECONDS_A_LINE;
    if (child->allowed > LINES_AT_ONCE)
        child->allowed = LINES_AT_ONCE;
    child->allowed_at = now;
    if (child->allowed < 1) {
        child->dropped++;
        return false;
    }
    child->allowed--;
    return true;
}

static void log_dropped(mbl_child_t *child) {
    if (child->dropped)
        MBL_INFO("reward %s: %zu lines of its Python server are left out here: it writes too many",
                 child->name, child->dropped);
    child->dropped = 0;
}

static void log_line(mbl_child_t *child, line_t *line) {
    line->text[line->used] = 0;
    for (char *c = line->text; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 127)
            *c = ' ';
    if (line->used > 0) {
        if (may_log(child)) {
            log_dropped(child);
            MBL_INFO("reward %s: %s", child->name, line->text);
        }
        memmove(child->lines[1], child->lines[0], sizeof child->lines - sizeof child->lines[0]);
        snprintf(child->lines[0], LINE_KEPT, "%.*s", LINE_KEPT - 1, line->text);
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
            kill(child->pid, SIGUSR1);
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
    log_dropped(child);
    close(child->output);
    child->pid = 0;
    return status;
}

bool mbl_child_ended(mbl_child_t *child, char *text, size_t size) {
    uv_mutex_lock(&child->lock);
    bool ended = child->ended_at > 0;
    int used = ended ? snprintf(text, size, "its Python server (%s) ended (%s) %.0f s ago%s",
                                child->arguments[0], child->how, mbl_now() - child->ended_at,
                                child->last[0][0] ? "" : " and wrote nothing")
                     : snprintf(text, size, "its Python server is still loading the file");
    static const char *const before[KEPT] = {"; its last line: ", "; before that: ", " / "};
    for (size_t i = 0; ended && i < KEPT; i++)
        if (child->last[i][0] && used >= 0 && (size_t)used < size)
            used += snprintf(text + used, size - (size_t)used, "%s%s", before[i], child->last[i]);
    uv_mutex_unlock(&child->lock);
    return ended;
}

static void report_end(mbl_child_t *child, int status, double rest) {
    uv_mutex_lock(&child->lock);
    child->ended_at = mbl_now();
    memcpy(child->last, child->lines, sizeof child->last);
    memset(child->lines, 0, sizeof child->lines);
    if (WIFSIGNALED(status))
        snprintf(child->how, sizeof child->how, "signal %d", WTERMSIG(status));
    else
        snprintf(child->how, sizeof child->how, "exit code %d", WEXITSTATUS(status));
    uv_mutex_unlock(&child->lock);
    MBL_WARN("reward %s: its Python server (%s on %s) ended (%s) and starts again in %g s", child->name,
             child->arguments[0], child->arguments[3], child->how, rest);
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
    char workers[32], batch[32], grace[32], seconds[40];
    snprintf(workers, sizeof workers, "%zu", options->workers);
    snprintf(batch, sizeof batch, "%zu", options->batch);
    snprintf(grace, sizeof grace, "%d", ENDS_WITHIN / 2);
    snprintf(seconds, sizeof seconds, "%.6g", options->seconds);
    const char *const texts[] = {options->python, child->folder.program,
                                 "serve",         options->file,
                                 "--listen",      child->folder.url,
                                 "--with-parent", "--own-folder",
                                 "--workers",     workers,
                                 "--batch",       batch,
                                 "--device",      options->device,
                                 "--grace",       grace,
                                 "--max-body",    "1G",
                                 "--seconds",     seconds};
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
    child->allowed = LINES_AT_ONCE;
    child->allowed_at = mbl_now();
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
