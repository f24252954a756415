/* The replicas of a server: what each says of itself, whether it is of use, and waiting for the first one. */
#include "reward/remote/client_internal.h"

#include "base/clock.h"
#include "base/log.h"

#include <stdio.h>

/* What the protocol says of its options, with the reward's name. */
static mbl_status_t open_peer(const mbl_remote_options_t *options, mbl_proto_peer_t **out) {
    char why[1024];
    mbl_fail_quiet(1);
    mbl_status_t status = mbl_proto_open(&options->server, out);
    mbl_fail_quiet(0);
    if (status == MBL_OK)
        return MBL_OK;
    snprintf(why, sizeof why, "%s", mbl_fail_message());
    return MBL_FAIL(status, "reward %s: %s", options->name, why);
}

mbl_status_t mbl_remote_replica_open(mbl_remote_t *remote, const mbl_remote_options_t *options, size_t r) {
    replica_t *replica = &remote->replicas[r];
    const char *why;
    if (!mbl_http_url_valid(options->urls[r], &why))
        return MBL_FAIL(
            MBL_ERR_CONFIG,
            "reward %s: url: \"%.200s\" %s; expected such as http://localhost:8000 or unix:/run/s.sock",
            options->name, options->urls[r], why);
    MBL_TRY(mbl_remote_copy(options->urls[r], &replica->url));
    MBL_TRY(mbl_remote_copy(options->label ? options->label : options->urls[r], &replica->shown));
    replica->server = (mbl_http_server_t){.url = replica->url,
                                          .ca = remote->ca,
                                          .cert = remote->cert,
                                          .key = remote->key,
                                          .token = remote->token};
    replica->probe = (exchange_t){.remote = remote, .replica = r, .probe = true};
    return open_peer(options, &replica->peer);
}

/* ---- questions to a replica ---- */

void mbl_remote_note_trouble(mbl_remote_t *remote, size_t r, const char *text) {
    uv_mutex_lock(&remote->lock);
    snprintf(remote->replicas[r].why, sizeof remote->replicas[r].why, "%s", text);
    uv_mutex_unlock(&remote->lock);
}

const char *mbl_remote_no_answer(const mbl_remote_t *remote, const mbl_http_call_t *call, char *out,
                                 size_t size) {
    mbl_http_end_t end = mbl_http_end(call);
    if (!remote->own_ended || (end != MBL_HTTP_CONNECT && end != MBL_HTTP_CUT))
        return mbl_http_text(call);
    (void)remote->own_ended(remote->own_user, out, size);
    return out;
}

static void probed(exchange_t *probe, bool good) {
    mbl_remote_t *remote = probe->remote;
    mbl_schedule_probed(remote->schedule, mbl_now(), probe->replica, good);
    uv_mutex_lock(&remote->lock);
    replica_t *replica = &remote->replicas[probe->replica];
    replica->asked = true;
    if (good)
        snprintf(replica->said, sizeof replica->said, "%s", mbl_proto_describe(replica->peer));
    uv_mutex_unlock(&remote->lock);
}

static void ask(exchange_t *probe) {
    replica_t *replica = &probe->remote->replicas[probe->replica];
    if (probe->question == mbl_proto_questions(replica->peer)) {
        probed(probe, true);
        return;
    }
    mbl_status_t status = mbl_proto_ask(replica->peer, probe->question, &probe->request);
    if (status == MBL_OK)
        status = mbl_remote_send(probe);
    if (status != MBL_OK) {
        mbl_remote_note_trouble(probe->remote, probe->replica, mbl_fail_message());
        probed(probe, false);
    }
}

void mbl_remote_probe(mbl_remote_t *remote, size_t r) {
    exchange_t *probe = &remote->replicas[r].probe;
    probe->question = 0;
    ask(probe);
}

void mbl_remote_probe_ended(exchange_t *probe) {
    mbl_remote_t *remote = probe->remote;
    replica_t *replica = &remote->replicas[probe->replica];
    mbl_proto_error_t error = {.kind = MBL_PROTO_ERROR_NONE};
    mbl_http_end_t end = mbl_http_end(probe->call);
    mbl_status_t status = MBL_ERR_REWARD;
    char text[MBL_PROTO_ERROR_TEXT];
    if (end != MBL_HTTP_ANSWERED)
        mbl_remote_note_trouble(remote, probe->replica,
                                mbl_remote_no_answer(remote, probe->call, text, sizeof text));
    else
        status = mbl_proto_learn(replica->peer, probe->question, mbl_http_response(probe->call), &error);
    if (end == MBL_HTTP_ANSWERED && status != MBL_OK)
        mbl_remote_note_trouble(remote, probe->replica,
                                status == MBL_ERR_REWARD ? error.text : mbl_fail_message());
    if (error.kind == MBL_PROTO_ERROR_DENIED)
        (void)mbl_remote_token_renew(remote, probe->token); /* for the next time */
    replica->hopeless =
        mbl_http_lasts(probe->call) ||
        (status == MBL_ERR_REWARD && end == MBL_HTTP_ANSWERED && !mbl_proto_error_again(error.kind));
    mbl_http_free(probe->call);
    probe->call = NULL;
    if (status != MBL_OK || remote->stopping) {
        probed(probe, false);
    } else {
        probe->question++;
        ask(probe);
    }
}

/* ---- being of use or not ---- */

void mbl_remote_log_quarantine(mbl_remote_t *remote, const mbl_schedule_action_t *action) {
    replica_t *replica = &remote->replicas[action->replica];
    bool restored = action->kind == MBL_SCHEDULE_RESTORE;
    uv_mutex_lock(&remote->lock);
    bool quiet = remote->opening; /* opening reports by itself */
    uv_mutex_unlock(&remote->lock);
    quiet |= restored && !replica->reported;
    replica->reported = !restored && !quiet;
    if (quiet)
        return;
    if (restored)
        MBL_INFO("reward %s: %s answers again", remote->name, replica->shown);
    else
        MBL_WARN("reward %s: %s is set aside and asked again from time to time: %s", remote->name,
                 replica->shown, replica->why[0] ? replica->why : "it takes far longer than the others");
}

/* Whether waiting for replicas has an end, with the lock held; *ready: one is of use. */
static bool is_decided(const mbl_remote_t *remote, bool late, bool *ready) {
    bool asked = true;
    *ready = false;
    for (size_t r = 0; r < remote->n_replicas; r++) {
        asked &= remote->replicas[r].asked;
        *ready |= remote->replicas[r].ready;
    }
    return asked && (*ready || late || remote->hopeless == remote->n_replicas);
}

mbl_status_t mbl_remote_replicas_await(mbl_remote_t *remote, const mbl_remote_options_t *options) {
    char why[MBL_PROTO_ERROR_TEXT], how[MBL_PROTO_ERROR_TEXT];
    bool ended = false;
    double end = mbl_now() + options->start;
    bool ready = false, stop = false;
    uv_mutex_lock(&remote->lock);
    while (!is_decided(remote, mbl_now() >= end, &ready) && !(stop = options->stop && *options->stop) &&
           !(ended = options->ended && options->ended(options->ended_user, how, sizeof how)))
        uv_cond_timedwait(&remote->changed, &remote->lock, 100000000);
    remote->opening = false;
    if (ended)
        snprintf(remote->replicas[0].why, sizeof remote->replicas[0].why, "%s", how);
    snprintf(why, sizeof why, "%s", remote->replicas[0].why);
    uv_mutex_unlock(&remote->lock);
    if (stop) {
        MBL_WARN("asked to stop while reward %s waited for its server %s (%s); nothing was trained",
                 remote->name, remote->replicas[0].shown, why[0] ? why : "no answer yet");
        return MBL_ERR_STOPPED;
    }
    for (size_t r = 0; r < remote->n_replicas; r++) {
        mbl_remote_replica_t replica;
        mbl_remote_replica(remote, r, &replica);
        if (ready && replica.ready)
            MBL_INFO("reward %s: %s: %s", remote->name, replica.url, replica.text);
        else if (ready)
            MBL_WARN("reward %s: %s: %s; the run begins without it", remote->name, replica.url, replica.text);
    }
    if (!ready && options->optional) {
        MBL_WARN("reward %s: %s: %s; it is a monitor, so the run begins without it", remote->name,
                 remote->replicas[0].shown, why);
        return MBL_OK;
    }
    if (!ready)
        return MBL_FAIL(MBL_ERR_REWARD, "reward %s: %s: %s%s", remote->name, remote->replicas[0].shown, why,
                        remote->n_replicas > 1 ? "; nor is another of its urls of use" : "");
    return MBL_OK;
}

/* ---- for people ---- */

size_t mbl_remote_replicas(const mbl_remote_t *remote) {
    return remote->n_replicas;
}

void mbl_remote_replica(mbl_remote_t *remote, size_t i, mbl_remote_replica_t *out) {
    replica_t *replica = &remote->replicas[i];
    uv_mutex_lock(&remote->lock);
    out->url = replica->shown;
    out->ready = replica->ready;
    snprintf(out->text, sizeof out->text, "%s", replica->ready ? replica->said : replica->why);
    uv_mutex_unlock(&remote->lock);
}
