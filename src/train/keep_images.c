/* The images of a rollout: encoded on every rank, gathered and written by rank 0. */
#include "train/keep_images.h"

#include "base/log.h"
#include "base/mem.h"
#include "data/image.h"
#include "io/tar.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PNG_SIDE = 128 };

/* One image as ranks hand it to rank 0; the JSON and the image follow. */
typedef struct {
    uint64_t index, json, image; /* bytes of those */
    uint64_t jpeg;
} record_t;

typedef struct {
    char *bytes;
    size_t size, room;
} blob_t;

/* The encoder's buffer, used again for every image. */
typedef struct {
    uint8_t *bytes;
    size_t room, size;
    bool jpeg;
} encoded_t;

static mbl_status_t append(blob_t *blob, const void *data, size_t size) {
    if (size > blob->room - blob->size) {
        size_t room = 2 * blob->room + size;
        char *more = mbl_realloc(blob->bytes, blob->room, room, 1);
        if (!more)
            return MBL_FAIL(MBL_ERR_MEM, "no memory for %zu bytes of images", room);
        blob->bytes = more;
        blob->room = room;
    }
    if (size > 0)
        memcpy(blob->bytes + blob->size, data, size);
    blob->size += size;
    return MBL_OK;
}

/* The image at most MBL_KEPT_SIDE pixels wide and high. */
static mbl_status_t encode(const mbl_image_t *image, encoded_t *out) {
    size_t longest = image->width > image->height ? image->width : image->height;
    size_t factor = (longest + MBL_KEPT_SIDE - 1) / MBL_KEPT_SIDE;
    mbl_image_t small = {0};
    if (factor > 1)
        MBL_TRY(mbl_image_shrink(image, factor, &small));
    out->jpeg = longest / factor > PNG_SIDE;
    mbl_status_t status =
        mbl_image_encode(factor > 1 ? &small : image, out->jpeg ? MBL_IMAGE_JPEG : MBL_IMAGE_PNG, &out->bytes,
                         &out->room, &out->size);
    mbl_image_free(&small);
    return status;
}

/* What stands beside an image; a [stride * K]. */
static char *describe(const mbl_config_t *config, uint64_t step, const mbl_prompt_t *prompt,
                      const mbl_score_t *scores, const float *a, size_t stride) {
    json_t *by = json_object(), *advantages = json_object();
    for (size_t k = 0; k < config->rewards.count; k++) {
        bool valid = scores[k].state == MBL_SCORE_VALID;
        double advantage = valid ? round(2000 * config->train.clip * (double)a[k * stride]) / 1000 : NAN;
        json_object_set_new(by, config->rewards.items[k].name, mbl_jsonl_real(valid ? scores[k].value : NAN));
        json_object_set_new(advantages, config->rewards.items[k].name, mbl_jsonl_real(advantage));
    }
    json_t *metadata = prompt->metadata ? json_loads(prompt->metadata, 0, NULL) : NULL;
    json_t *meta = json_pack("{s:I,s:s,s:o,s:o,s:o}", "step", (json_int_t)step, "prompt", prompt->text,
                             "metadata", json_is_object(metadata) ? json_incref(metadata) : json_null(),
                             "scores", by, "advantages", advantages);
    char *text = meta ? json_dumps(meta, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(meta);
    json_decref(metadata);
    return text;
}

static mbl_status_t put_image(mbl_file_writer_t *writer, uint64_t index, const char *json, size_t json_size,
                              const void *image, size_t size, bool jpeg) {
    char name[40];
    snprintf(name, sizeof name, "%06llu.%s", (unsigned long long)index, jpeg ? "jpg" : "png");
    MBL_TRY(mbl_tar_put(writer, name, image, size));
    snprintf(name, sizeof name, "%06llu.json", (unsigned long long)index);
    return mbl_tar_put(writer, name, json, json_size);
}

static mbl_status_t finish(mbl_file_writer_t *writer) {
    MBL_TRY(mbl_tar_end(writer));
    return mbl_file_commit(writer);
}

/* A full disk costs these images and no run. */
static mbl_status_t lose(mbl_rundir_t *rundir, mbl_status_t status) {
    if (status != MBL_ERR_IO)
        return status == MBL_OK ? MBL_OK : MBL_FAIL(status, "%s", mbl_fail_message());
    MBL_WARN("%s; images are lost, the run goes on", mbl_fail_message());
    rundir->lost_samples++;
    return MBL_OK;
}

/* This rank's images. */
static mbl_status_t pack(const mbl_event_images_t *images, encoded_t *encoded, blob_t *out) {
    const mbl_engine_t *engine = images->state->engine;
    const mbl_batch_t *batch = images->batch;
    mbl_image_t image;
    mbl_pipeline_image_size(engine->pipeline, &image.height, &image.width);
    for (size_t i = 0; i < batch->n; i++) {
        if (batch->sample[i] >= MBL_KEPT_ROLLOUT)
            continue;
        image.rgb = batch->rgb + i * image.height * image.width * 3;
        MBL_TRY(encode(&image, encoded));
        char *json =
            describe(engine->config, images->state->step + 1, &engine->train.prompts.items[batch->prompt[i]],
                     batch->scores + i * batch->k, images->a + i, batch->n);
        if (!json)
            return MBL_FAIL(MBL_ERR_MEM, "no memory for what an image shows");
        record_t record = {(uint64_t)batch->sample[i], strlen(json), encoded->size, encoded->jpeg};
        mbl_status_t status = append(out, &record, sizeof record);
        if (status == MBL_OK)
            status = append(out, json, record.json);
        free(json);
        MBL_TRY(status);
        MBL_TRY(append(out, encoded->bytes, encoded->size));
    }
    return MBL_OK;
}

/* The records of every rank, `each` bytes apart, the last one's followed by zeros. */
static mbl_status_t write_rollout(const mbl_rundir_t *rundir, const char *all, size_t each, size_t ranks) {
    char path[PATH_MAX];
    mbl_file_writer_t writer;
    MBL_TRY(mbl_rundir_join(rundir->path, "rollout.tar", path, sizeof path));
    MBL_TRY(mbl_file_begin(path, &writer));
    for (size_t rank = 0; rank < ranks; rank++)
        for (size_t at = 0; at + sizeof(record_t) <= each;) {
            record_t record;
            const char *from = all + rank * each + at;
            memcpy(&record, from, sizeof record);
            if (record.json == 0)
                break;
            from += sizeof record;
            MBL_TRY(put_image(&writer, record.index, from, record.json, from + record.json, record.image,
                              record.jpeg));
            at += sizeof record + record.json + record.image;
        }
    return finish(&writer);
}

/* Every rank's blob on all of them. */
static mbl_status_t gather(mbl_comm_t *comm, mbl_rundir_t *rundir, blob_t *mine) {
    int64_t each = (int64_t)mine->size;
    char *all = NULL, *own = NULL;
    MBL_TRY(mbl_comm_allreduce(comm, &each, 1, MBL_COMM_I64, MBL_COMM_MAX));
    own = mbl_calloc((size_t)each, 1);
    all = mbl_calloc((size_t)each, (size_t)comm->size);
    mbl_status_t status =
        own && all ? MBL_OK : MBL_FAIL(MBL_ERR_MEM, "no memory for the images of all ranks");
    MBL_TRY_GOTO(mbl_comm_agree(comm, status), done);
    memcpy(own, mine->bytes, mine->size);
    MBL_TRY_GOTO(mbl_comm_allgather(comm, own, all, (size_t)each), done);
    if (rundir->advantages) {
        mbl_fail_quiet(1);
        status = write_rollout(rundir, all, (size_t)each, (size_t)comm->size);
        mbl_fail_quiet(0);
        status = lose(rundir, status);
    }
    status = mbl_comm_agree(comm, status);
done:
    mbl_free(own);
    mbl_free(all);
    return status;
}

mbl_status_t mbl_keep_rollout(mbl_comm_t *comm, mbl_rundir_t *rundir, const mbl_event_images_t *images) {
    encoded_t encoded = {0};
    blob_t blob = {0};
    mbl_status_t status = mbl_comm_agree(comm, pack(images, &encoded, &blob));
    if (status == MBL_OK)
        status = gather(comm, rundir, &blob);
    mbl_free(encoded.bytes);
    mbl_free(blob.bytes);
    return status;
}
