/* Encoding the prompts of a run. */
#include "run/prompt_encode.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/share.h"
#include "run/prompt_cache_place.h"

#include <stdlib.h>
#include <string.h>

enum { REPORT_SECONDS = 10 };

/* All prompts of all sets, one behind the other. */
typedef struct {
    const mbl_prompt_encode_t *encode;
    mbl_prompt_set_t *const *sets;
    size_t n_sets, n;
    const char **texts;     /* [n] */
    mbl_prompt_key_t *keys; /* [n] */
    int64_t *need;          /* [n]: to be encoded; the same on every rank */
    uint32_t *which;        /* [n]: those of this rank */
    mbl_prompt_cache_t *cache;
    mbl_prompt_encoded_t done;
    double start, shown;
    size_t mine; /* prompts of this rank that are encoded now */
} work_t;

static void work_free(work_t *w) {
    mbl_free(w->texts);
    mbl_free(w->keys);
    mbl_free(w->need);
    mbl_free(w->which);
}

static mbl_status_t work_new(work_t *w) {
    for (size_t s = 0; s < w->n_sets; s++)
        w->n += w->sets[s]->prompts.count;
    MBL_ALLOC(w->texts, w->n);
    MBL_ALLOC(w->keys, w->n);
    MBL_ALLOC(w->need, w->n);
    MBL_ALLOC(w->which, w->n);
    for (size_t s = 0, at = 0; s < w->n_sets; s++)
        for (size_t i = 0; i < w->sets[s]->prompts.count; i++)
            w->texts[at++] = w->sets[s]->texts[i];
    return MBL_OK;
}

/* ---- how far ---- */

/* Every few seconds, on rank 0, whose share is as large as any. */
static void progress(void *context, size_t done) {
    work_t *w = context;
    char left[32];
    double now = mbl_now();
    if (w->encode->comm->rank != 0 || now - w->shown < REPORT_SECONDS || done >= w->mine)
        return;
    w->shown = now;
    MBL_INFO("prompts: %zu %% encoded, about %s left", 100 * done / w->mine,
             mbl_duration((now - w->start) / (double)done * (double)(w->mine - done), left));
}

/* ---- without a cache ---- */

static mbl_status_t into_host(void *context, size_t i, const void *record) {
    work_t *w = context;
    size_t bytes = mbl_embeds_bytes(w->encode->encoder);
    for (size_t s = 0; s < w->n_sets; s++) {
        if (i < w->sets[s]->prompts.count) {
            memcpy(mbl_embeds_host(w->sets[s]->embeds) + i * bytes, record, bytes);
            break;
        }
        i -= w->sets[s]->prompts.count;
    }
    return MBL_OK;
}

static mbl_status_t make_host(const work_t *w) {
    for (size_t s = 0; s < w->n_sets; s++)
        if (!mbl_embeds_host(w->sets[s]->embeds))
            return MBL_FAIL(
                MBL_ERR_MEM,
                "no memory for %zu encoded prompts of %zu bytes; expected prompts.cache: a folder, "
                "or fewer prompts",
                w->sets[s]->prompts.count, mbl_embeds_bytes(w->encode->encoder));
    return MBL_OK;
}

/* Prompts first to last of all of them are rank r's share. */
static void share_of(const work_t *w, int r, size_t *first, size_t *last) {
    const mbl_share_t share = mbl_share(w->n, (size_t)w->encode->comm->size, (size_t)r);
    *first = share.first;
    *last = share.first + share.n;
}

static mbl_status_t encode_share(work_t *w, size_t first, size_t last) {
    const mbl_embeds_sink_t sink = {into_host, progress, w};
    for (size_t i = first; i < last; i++)
        w->which[i - first] = (uint32_t)i;
    w->mine = last - first;
    return mbl_embeds_encode(w->encode->encoder, w->texts, w->which, last - first, &sink);
}

/* Every rank's share to all others, set by set. */
static mbl_status_t exchange(const work_t *w) {
    size_t bytes = mbl_embeds_bytes(w->encode->encoder);
    mbl_comm_t *comm = w->encode->comm;
    for (int r = 0; r < comm->size && comm->size > 1; r++) {
        size_t first, last, before = 0;
        share_of(w, r, &first, &last);
        for (size_t s = 0; s < w->n_sets; s++) {
            size_t count = w->sets[s]->prompts.count, from = first > before ? first - before : 0,
                   to = last > before ? last - before : 0;
            from = from < count ? from : count;
            to = to < count ? to : count;
            MBL_TRY(mbl_comm_bcast(comm, mbl_embeds_host(w->sets[s]->embeds) + from * bytes,
                                   (to - from) * bytes, r));
            before += count;
        }
    }
    return MBL_OK;
}

static mbl_status_t encode_into_memory(work_t *w) {
    mbl_comm_t *comm = w->encode->comm;
    size_t first, last;
    MBL_TRY(mbl_comm_agree(comm, make_host(w)));
    share_of(w, comm->rank, &first, &last);
    MBL_TRY(mbl_comm_agree(comm, encode_share(w, first, last)));
    w->done.prompts = w->done.encoded = w->n;
    return exchange(w);
}

/* ---- with one ---- */

/* The digest of the encoders, which one rank of each host reads: all weights. */
static mbl_status_t find_group(const work_t *w, char out[MBL_SHA256_HEX]) {
    mbl_comm_t *comm = w->encode->comm;
    char mine[MBL_SHA256_HEX] = "", (*all)[MBL_SHA256_HEX] = mbl_calloc((size_t)comm->size, sizeof *all);
    mbl_status_t status = all ? MBL_OK : MBL_FAIL(MBL_ERR_MEM, "no memory for %d ranks", comm->size);
    if (status == MBL_OK && comm->local_rank == 0)
        status = mbl_text_digest(w->encode->encoder->text, mine);
    status = mbl_comm_agree(comm, status);
    if (status == MBL_OK)
        status = mbl_comm_allgather(comm, mine, all, sizeof mine);
    if (status == MBL_OK && strcmp(all[comm->host], all[0]) != 0)
        status = MBL_FAIL(MBL_ERR_FORMAT,
                          "%s: other text encoders on this host than on rank 0's (digest %.16s and %.16s); "
                          "expected one content on every node",
                          w->encode->config->model.path, all[comm->host], all[0]);
    status = mbl_comm_agree(comm, status);
    if (status == MBL_OK)
        memcpy(out, all[0], sizeof mine);
    mbl_free(all);
    return status;
}

static mbl_status_t find_keys(work_t *w) {
    for (size_t i = 0; i < w->n; i++)
        MBL_TRY(mbl_text_key(w->encode->encoder->text, w->texts[i], w->keys[i].byte));
    return MBL_OK;
}

static mbl_status_t open_cache(work_t *w, const char *place, const char *group) {
    const mbl_config_t *config = w->encode->config;
    char *about = mbl_format(
        "records of %zu bytes: context [%zu tokens, width] and pooled states, %s, by the text encoders of %s",
        mbl_embeds_bytes(w->encode->encoder), mbl_text_tokens(w->encode->encoder->text),
        mbl_dtype_name(w->encode->encoder->dtype), config->model.path);
    if (!about)
        return MBL_FAIL(MBL_ERR_MEM, "no memory for a text");
    mbl_status_t status = mbl_prompt_cache_open(
        &(mbl_prompt_cache_options_t){place, group, about, mbl_embeds_bytes(w->encode->encoder)}, &w->cache);
    mbl_free(about);
    return status;
}

static int by_key(const void *a, const void *b, void *keys) {
    uint32_t i = *(const uint32_t *)a, j = *(const uint32_t *)b;
    int order =
        memcmp(&((mbl_prompt_key_t *)keys)[i], &((mbl_prompt_key_t *)keys)[j], sizeof(mbl_prompt_key_t));
    return order ? order : (i > j) - (i < j);
}

/* Leaves one of those that have the same tokens. */
static void drop_twins(work_t *w) {
    w->done.prompts = 0;
    for (size_t i = 0; i < w->n; i++)
        w->which[i] = (uint32_t)i;
    qsort_r(w->which, w->n, sizeof *w->which, by_key, w->keys);
    for (size_t i = 0; i < w->n; i++) {
        bool twin = i > 0 && memcmp(&w->keys[w->which[i]], &w->keys[w->which[i - 1]], sizeof *w->keys) == 0;
        w->done.prompts += !twin;
        if (twin)
            w->need[w->which[i]] = 0;
    }
}

/* Records that are there, this rank's share of them, read and compared with their digests. */
static mbl_status_t verify(work_t *w) {
    size_t first, last;
    unsigned char *record;
    MBL_ALLOC(record, mbl_embeds_bytes(w->encode->encoder));
    share_of(w, w->encode->comm->rank, &first, &last);
    for (size_t i = first; i < last; i++)
        (void)mbl_prompt_cache_read(w->cache, &w->keys[i], record);
    mbl_free(record);
    return MBL_OK;
}

/* need: what any rank misses. */
static mbl_status_t find_missing(work_t *w, size_t *missing) {
    *missing = 0;
    for (size_t i = 0; i < w->n; i++)
        w->need[i] = !mbl_prompt_cache_has(w->cache, &w->keys[i]);
    MBL_TRY(mbl_comm_allreduce(w->encode->comm, w->need, w->n, MBL_COMM_I64, MBL_COMM_MAX));
    drop_twins(w);
    for (size_t i = 0; i < w->n; i++)
        *missing += (size_t)w->need[i];
    return MBL_OK;
}

static mbl_status_t check_space(const work_t *w, const char *place, size_t missing) {
    uint64_t free_bytes, bytes = (uint64_t)missing * mbl_embeds_bytes(w->encode->encoder);
    char where[500];
    if (w->encode->comm->rank != 0 || missing == 0)
        return MBL_OK;
    MBL_TRY(mbl_prompt_cache_free_bytes(place, &free_bytes));
    if (free_bytes < bytes + bytes / 50)
        return MBL_FAIL(MBL_ERR_IO,
                        "%s: %.1f GB for %zu prompts, and %.1f GB free in %s; expected room there, another "
                        "folder, or off",
                        mbl_config_where(w->encode->config, "prompts.cache", where, sizeof where),
                        1e-9 * (double)bytes, missing, 1e-9 * (double)free_bytes, place);
    return MBL_OK;
}

static mbl_status_t into_cache(void *context, size_t i, const void *record) {
    work_t *w = context;
    return mbl_prompt_cache_put(w->cache, &w->keys[i], record);
}

/* Share `share` of `of` of what is missing, to disk. */
static mbl_status_t encode_missing(work_t *w, size_t missing, size_t share, size_t of) {
    const mbl_embeds_sink_t sink = {into_cache, progress, w};
    const mbl_share_t own = mbl_share(missing, of, share);
    size_t at = 0, n = 0;
    char where[500];
    for (size_t i = 0; i < w->n; i++)
        if (w->need[i] && at++ >= own.first && at <= own.first + own.n)
            w->which[n++] = (uint32_t)i;
    w->mine = n;
    mbl_status_t status = mbl_embeds_encode(w->encode->encoder, w->texts, w->which, n, &sink);
    if (status == MBL_OK)
        status = mbl_prompt_cache_flush(w->cache);
    if (status == MBL_ERR_IO)
        MBL_ERROR("%s: the cache in %s cannot be written; expected room there, another folder, or off",
                  mbl_config_where(w->encode->config, "prompts.cache", where, sizeof where),
                  mbl_prompt_cache_path(w->cache));
    return status;
}

/* The files that each rank has written since `before` of them, to all others. */
static mbl_status_t exchange_names(work_t *w, size_t before) {
    mbl_comm_t *comm = w->encode->comm;
    char mine[MBL_PROMPT_CACHE_NAME], (*all)[MBL_PROMPT_CACHE_NAME];
    double most = (double)(mbl_prompt_cache_written(w->cache) - before);
    MBL_TRY(mbl_comm_allreduce(comm, &most, 1, MBL_COMM_F64, MBL_COMM_MAX));
    all = mbl_calloc((size_t)comm->size, sizeof *all);
    MBL_TRY(mbl_comm_agree(comm, all ? MBL_OK : MBL_FAIL(MBL_ERR_MEM, "no memory for %d ranks", comm->size)));
    mbl_status_t status = MBL_OK;
    for (size_t i = 0; i < (size_t)most && status == MBL_OK; i++) {
        mbl_prompt_cache_name(w->cache, before + i, mine);
        status = mbl_comm_allgather(comm, mine, all, sizeof mine);
        for (int r = 0; r < comm->size && status == MBL_OK; r++)
            if (r != comm->rank && all[r][0])
                (void)mbl_prompt_cache_take(w->cache, all[r]);
    }
    mbl_free(all);
    return status;
}

/* One round: the ranks `of` shares are cut for, and what then is missing still. */
static mbl_status_t round_of(work_t *w, size_t share, size_t of, size_t *missing) {
    size_t before = mbl_prompt_cache_written(w->cache);
    MBL_TRY(mbl_comm_agree(w->encode->comm, encode_missing(w, *missing, share, of)));
    MBL_TRY(exchange_names(w, before));
    return find_missing(w, missing);
}

static mbl_status_t fill_cache(work_t *w, const char *place) {
    mbl_comm_t *comm = w->encode->comm;
    size_t missing, before;
    MBL_TRY(find_missing(w, &before));
    missing = before;
    if (w->encode->ahead) {
        MBL_TRY(mbl_comm_agree(comm, verify(w)));
        MBL_TRY(find_missing(w, &missing));
    }
    w->done.damaged = missing - before;
    w->done.encoded = missing;
    MBL_TRY(mbl_comm_agree(comm, check_space(w, place, missing)));
    if (missing > 0)
        MBL_INFO("prompts: %zu of %zu are encoded now, into %s", missing, w->done.prompts,
                 mbl_prompt_cache_path(w->cache));
    else
        MBL_INFO("prompts: all %zu are in %s", w->done.prompts, mbl_prompt_cache_path(w->cache));
    if (missing > 0)
        MBL_TRY(round_of(w, (size_t)comm->rank, (size_t)comm->size, &missing));
    if (missing > 0) { /* hosts that do not share the folder */
        MBL_INFO("prompts: %s is not one folder for all hosts; each encodes its own", place);
        MBL_TRY(round_of(w, (size_t)comm->local_rank, (size_t)comm->local_size, &missing));
    }
    if (missing > 0)
        return mbl_comm_agree(comm,
                              MBL_FAIL(MBL_ERR_IO, "%s: %zu prompts were written and cannot be read back",
                                       mbl_prompt_cache_path(w->cache), missing));
    return MBL_OK;
}

/* Sets keep their keys and read from the cache. */
static mbl_status_t attach(const work_t *w) {
    for (size_t s = 0, at = 0; s < w->n_sets; s++) {
        mbl_prompt_set_t *set = w->sets[s];
        MBL_ALLOC(set->keys, set->prompts.count);
        memcpy(set->keys, w->keys + at, set->prompts.count * sizeof *set->keys);
        mbl_embeds_read_from(set->embeds, w->cache, set->keys);
        at += set->prompts.count;
    }
    return MBL_OK;
}

static mbl_status_t encode_into_cache(work_t *w, const char *place) {
    mbl_comm_t *comm = w->encode->comm;
    char group[MBL_SHA256_HEX];
    MBL_TRY(find_group(w, group));
    MBL_TRY(mbl_comm_agree(comm, find_keys(w)));
    MBL_TRY(mbl_comm_agree(comm, open_cache(w, place, group)));
    MBL_TRY(fill_cache(w, place));
    return mbl_comm_agree(comm, attach(w));
}

/* ---- both ---- */

/* Rank 0's choice. */
static mbl_status_t find_place(const work_t *w, char place[PATH_MAX]) {
    const mbl_prompt_encode_t *e = w->encode;
    size_t bytes = w->n * mbl_embeds_bytes(e->encoder);
    memset(place, 0, PATH_MAX);
    mbl_status_t status =
        mbl_prompt_cache_place(e->config, mbl_text_bytes(e->encoder->text), bytes, e->ahead, place);
    MBL_TRY(mbl_comm_agree(e->comm, e->comm->rank == 0 ? status : MBL_OK));
    return mbl_comm_bcast(e->comm, place, PATH_MAX, 0);
}

mbl_status_t mbl_prompt_sets_encode(const mbl_prompt_encode_t *encode, mbl_prompt_set_t *const *sets,
                                    size_t n_sets, mbl_prompt_cache_t **cache, mbl_prompt_encoded_t *report) {
    char place[PATH_MAX];
    work_t w = {.encode = encode, .sets = sets, .n_sets = n_sets, .start = mbl_now()};
    w.shown = w.start;
    mbl_status_t status = mbl_comm_agree(encode->comm, work_new(&w));
    if (status == MBL_OK)
        status = find_place(&w, place);
    if (status == MBL_OK)
        status = place[0] ? encode_into_cache(&w, place) : encode_into_memory(&w);
    mbl_text_release(encode->encoder->text);
    w.done.bytes = (uint64_t)w.done.prompts * mbl_embeds_bytes(encode->encoder);
    w.done.seconds = mbl_now() - w.start;
    work_free(&w);
    if (status != MBL_OK) {
        mbl_prompt_cache_close(w.cache);
        return status;
    }
    *cache = w.cache;
    if (report)
        *report = w.done;
    return MBL_OK;
}

mbl_status_t mbl_prompt_set_encode_alone(const mbl_encoder_t *encoder, mbl_prompt_set_t *set) {
    mbl_comm_t self = {.size = 1};
    mbl_prompt_encode_t encode = {.comm = &self, .encoder = encoder};
    work_t w = {.encode = &encode, .sets = &set, .n_sets = 1, .start = mbl_now()};
    w.shown = w.start;
    mbl_status_t status = work_new(&w);
    if (status == MBL_OK)
        status = make_host(&w);
    if (status == MBL_OK)
        status = encode_share(&w, 0, w.n);
    work_free(&w);
    return status;
}
