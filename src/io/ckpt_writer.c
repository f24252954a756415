/* A thread that writes checkpoints. */
#include "io/ckpt_writer.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <time.h>

enum { LOW_PRIORITY = 10 };

typedef enum { IDLE, WRITING, DONE, ENDING } phase_t;

struct mbl_ckpt_writer {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    phase_t phase;
    mbl_ckpt_job_t job;
    mbl_status_t status; /* in phase DONE, with its message */
    char message[1024];
};

static mbl_status_t write_job(const mbl_ckpt_job_t *job) {
    char path[640];
    MBL_TRY(mbl_ckpt_path(job->folder, job->step, path, sizeof path));
    if (job->team) {
        bool failed;
        MBL_TRY(mbl_ckpt_write_together(job->team, path, job->items, job->n, job->attrs, job->n_attrs,
                                        job->parts, job->n_parts, &failed));
        bool first = mbl_ckpt_team_comm(job->team)->rank == 0;
        return failed || !first ? MBL_OK : mbl_ckpt_publish(job->folder, job->step, &job->keep);
    }
    MBL_TRY(mbl_ckpt_write(path, job->items, job->n, job->attrs, job->n_attrs));
    return mbl_ckpt_publish(job->folder, job->step, &job->keep);
}

static void *work(void *context) {
    mbl_ckpt_writer_t *w = context;
    setpriority(PRIO_PROCESS, 0, LOW_PRIORITY); /* of this thread alone, on Linux */
    mbl_fail_quiet(1);                          /* reported by mbl_ckpt_writer_result */
    pthread_mutex_lock(&w->lock);
    while (w->phase != ENDING) {
        if (w->phase != WRITING) {
            pthread_cond_wait(&w->changed, &w->lock);
            continue;
        }
        mbl_ckpt_job_t job = w->job;
        pthread_mutex_unlock(&w->lock);
        mbl_status_t status = write_job(&job);
        pthread_mutex_lock(&w->lock);
        w->status = status;
        snprintf(w->message, sizeof w->message, "%s", status == MBL_OK ? "" : mbl_fail_message());
        w->phase = DONE;
        pthread_cond_broadcast(&w->changed);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

/* Waits, with the lock held, for the write under way. */
static void await_end(mbl_ckpt_writer_t *w) {
    double start = mbl_now();
    while (w->phase == WRITING) {
        if (!w->job.team) {
            pthread_cond_wait(&w->changed, &w->lock);
            continue;
        }
        struct timespec soon;
        mbl_comm_t *comm = mbl_ckpt_team_comm(w->job.team);
        clock_gettime(CLOCK_REALTIME, &soon);
        soon.tv_nsec += 100000000;
        soon.tv_sec += soon.tv_nsec / 1000000000;
        soon.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&w->changed, &w->lock, &soon);
        bool late = comm->deadline_s > 0 && mbl_now() - start > comm->deadline_s;
        if (w->phase != WRITING || (!late && mbl_comm_poll_error(comm) == MBL_OK))
            continue;
        MBL_ERROR("%s: the checkpoint that all ranks write does not end; another rank hangs or died",
                  w->job.folder);
        mbl_comm_abort(comm, 1);
    }
}

mbl_status_t mbl_ckpt_writer_open(mbl_ckpt_writer_t **out) {
    mbl_ckpt_writer_t *w;
    sigset_t all, kept;
    MBL_ALLOC(w, 1);
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->changed, NULL);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &kept);
    int error = pthread_create(&w->thread, NULL, work, w);
    pthread_sigmask(SIG_SETMASK, &kept, NULL);
    if (error) {
        mbl_free(w);
        return MBL_FAIL(MBL_ERR_MEM, "no thread for writing checkpoints (error %d)", error);
    }
    *out = w;
    return MBL_OK;
}

void mbl_ckpt_writer_close(mbl_ckpt_writer_t *w) {
    if (!w)
        return;
    pthread_mutex_lock(&w->lock);
    await_end(w);
    w->phase = ENDING;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    pthread_mutex_destroy(&w->lock);
    pthread_cond_destroy(&w->changed);
    mbl_free(w);
}

mbl_status_t mbl_ckpt_writer_start(mbl_ckpt_writer_t *w, const mbl_ckpt_job_t *job) {
    MBL_REQUIRE(w && job, "a write without writer or content");
    pthread_mutex_lock(&w->lock);
    bool free = w->phase == IDLE;
    if (free) {
        w->job = *job;
        w->phase = WRITING;
        pthread_cond_broadcast(&w->changed);
    }
    pthread_mutex_unlock(&w->lock);
    return free ? MBL_OK
                : MBL_FAIL(MBL_ERR_INTERNAL, "%s: the checkpoint before it is not dealt with", job->folder);
}

mbl_status_t mbl_ckpt_writer_result(mbl_ckpt_writer_t *w, bool wait) {
    char message[sizeof w->message] = "";
    mbl_status_t status = MBL_OK;
    pthread_mutex_lock(&w->lock);
    if (wait)
        await_end(w);
    if (w->phase == DONE) {
        status = w->status;
        snprintf(message, sizeof message, "%s", w->message);
        w->phase = IDLE;
    }
    pthread_mutex_unlock(&w->lock);
    return status == MBL_OK ? MBL_OK : MBL_FAIL(status, "%s", message);
}
