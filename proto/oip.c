/* Open Inference Protocol: options, questions, the request. Formats as the protocol's and the binary tensor
 * extension's pages say, and as Triton, MLServer and KServe's Python server read them (tests/golden/proto).
 */
#include "proto/oip.h"
#include "base/mem.h"

#include <stdio.h>
#include <string.h>

const oip_type_t *mbl_oip_type(const char *name) {
    static const oip_type_t types[] = {
        {"BOOL", 1, OIP_BOOL},       {"UINT8", 1, OIP_UNSIGNED},  {"UINT16", 2, OIP_UNSIGNED},
        {"UINT32", 4, OIP_UNSIGNED}, {"UINT64", 8, OIP_UNSIGNED}, {"INT8", 1, OIP_SIGNED},
        {"INT16", 2, OIP_SIGNED},    {"INT32", 4, OIP_SIGNED},    {"INT64", 8, OIP_SIGNED},
        {"FP16", 2, OIP_FLOAT},      {"FP32", 4, OIP_FLOAT},      {"FP64", 8, OIP_FLOAT},
        {"BYTES", 0, OIP_BYTES},
    };
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strcmp(types[i].name, name) == 0)
            return &types[i];
    return NULL;
}

const char *mbl_oip_companion(const char *output, const char *what, char *out, size_t room) {
    snprintf(out, room, "%s_%s", output, what);
    return out;
}

static void oip_close(void *self) {
    oip_t *oip = self;
    for (int i = 0; i < OIP_INPUTS; i++)
        mbl_free(oip->names[i]);
    mbl_free(oip->model);
    mbl_free(oip->model_path);
    mbl_proto_text_free(&oip->tail);
    mbl_free(oip);
}

static mbl_status_t check_name(const char *key, const char *name) {
    if (!*name || strlen(name) > 200 || !mbl_proto_is_utf8(name, strlen(name)))
        return MBL_FAIL(MBL_ERR_CONFIG,
                        "%s: empty, over 200 bytes, or not UTF-8; expected a name that the server knows",
                        key);
    return MBL_OK;
}

static mbl_status_t oip_open(const mbl_proto_options_t *options, mbl_proto_peer_t *peer) {
    static const char *const keys[] = {"image_input", "prompt_input", "metadata_input"};
    const char *names[] = {options->image_input ? options->image_input : "images",
                           options->prompt_input ? options->prompt_input : "prompts",
                           options->metadata_input ? options->metadata_input : "metadata"};
    if (!options->model)
        return MBL_FAIL(MBL_ERR_CONFIG,
                        "model: missing; expected the name of a model at the server, as in /v2/models/NAME");
    MBL_TRY(check_name("model", options->model));
    if (options->version)
        MBL_TRY(check_name("version", options->version));
    oip_t *oip;
    MBL_ALLOC(oip, 1);
    peer->self = oip;
    oip->wire = options->wire;
    for (int i = 0; i < OIP_INPUTS; i++) {
        MBL_TRY(check_name(keys[i], names[i]));
        for (int j = 0; j < i; j++)
            if (strcmp(names[i], names[j]) == 0)
                return MBL_FAIL(MBL_ERR_CONFIG, "%s: %s, as %s is; expected another name", keys[i], names[i],
                                keys[j]);
        oip->names[i] = mbl_strdup(names[i]);
    }
    mbl_proto_text_t path = {0};
    mbl_proto_puts(&path, "/v2/models/");
    mbl_proto_put_path(&path, options->model);
    if (options->version) {
        mbl_proto_puts(&path, "/versions/");
        mbl_proto_put_path(&path, options->version);
    }
    mbl_proto_put(&path, "", 1);
    bool failed = path.failed;
    if (!failed)
        oip->model_path = mbl_strdup(path.data);
    mbl_proto_text_free(&path);
    oip->model = mbl_strdup(options->model);
    if (failed || !oip->model_path || !oip->model || !oip->names[0] || !oip->names[1] || !oip->names[2])
        return MBL_FAIL(MBL_ERR_MEM, "no memory for the options of a reward server");
    return MBL_OK;
}

/* What the server is and can do, whether the model is ready, what it takes and gives. */
static void oip_ask(const mbl_proto_peer_t *peer, size_t q, mbl_proto_text_t *path) {
    const oip_t *oip = peer->self;
    mbl_proto_puts(path, q == 0 ? "/v2" : oip->model_path);
    if (q == 1)
        mbl_proto_puts(path, "/ready");
}

/* ---- the request ---- */

/* {"name": ..., "shape": [...], "datatype": ... up to where its data or its size follows. */
static void put_input(const oip_t *oip, int input, const mbl_proto_batch_t *batch, bool files,
                      store_t *store) {
    mbl_proto_text_t *text = &store->text;
    mbl_proto_puts(text, input == OIP_IMAGES ? "{\"name\":" : ",{\"name\":");
    mbl_proto_put_quoted(text, oip->names[input], strlen(oip->names[input]));
    mbl_proto_putf(text, ",\"shape\":[%zu", batch->n);
    if (input == OIP_IMAGES && !files)
        mbl_proto_putf(text, ",%zu,%zu,3],\"datatype\":\"UINT8\"", batch->height, batch->width);
    else
        mbl_proto_puts(text,
                       oip->ranks[input] == 2 ? ",1],\"datatype\":\"BYTES\"" : "],\"datatype\":\"BYTES\"");
}

static mbl_proto_piece_t element(int input, const mbl_proto_batch_t *batch, size_t i) {
    const char *text = input == OIP_PROMPTS                    ? batch->prompts[i]
                       : batch->metadata && batch->metadata[i] ? batch->metadata[i]
                                                               : "{}";
    return input == OIP_IMAGES ? batch->encoded[i] : (mbl_proto_piece_t){text, strlen(text)};
}

static size_t binary_size(int input, const mbl_proto_batch_t *batch, bool files) {
    if (input == OIP_IMAGES && !files)
        return batch->n * batch->width * batch->height * 3;
    size_t total = 0;
    for (size_t i = 0; i < batch->n; i++)
        total += 4 + element(input, batch, i).bytes;
    return total;
}

/* The JSON, then texts with their lengths, copied, and images as they lie at the caller's. */
static void put_binary(const mbl_proto_peer_t *peer, const mbl_proto_batch_t *batch, bool files,
                       store_t *store) {
    const oip_t *oip = peer->self;
    mbl_proto_text_t *text = &store->text;
    mbl_proto_puts(text, "{\"inputs\":[");
    for (int input = 0; input < OIP_INPUTS; input++)
        if (oip->ranks[input]) {
            put_input(oip, input, batch, files, store);
            mbl_proto_putf(text, ",\"parameters\":{\"binary_data_size\":%zu}}",
                           binary_size(input, batch, files));
        }
    mbl_proto_puts(text, "]");
    mbl_proto_put(text, oip->tail.data, oip->tail.size);
    mbl_proto_puts(text, "}");
    snprintf(store->header_length, sizeof store->header_length, "%zu", text->size);
    mbl_proto_add_header(store, "Content-Type", "application/octet-stream");
    mbl_proto_add_header(store, "Inference-Header-Content-Length", store->header_length);
    for (int input = 0; input < OIP_INPUTS; input++)
        for (size_t i = 0; oip->ranks[input] && i < batch->n; i++) {
            if (input == OIP_IMAGES && !files) {
                mbl_proto_add_text(store);
                mbl_proto_add_bytes(store, batch->rgb[i], batch->width * batch->height * 3);
                continue;
            }
            mbl_proto_piece_t bytes = element(input, batch, i);
            mbl_proto_put_le32(text, bytes.bytes);
            if (input == OIP_IMAGES) {
                mbl_proto_add_text(store);
                mbl_proto_add_bytes(store, bytes.data, bytes.bytes);
            } else
                mbl_proto_put(text, bytes.data, bytes.bytes);
        }
}

/* Bytes as numbers in text: each is a comma and up to three digits, of which always four characters are
 * written and as many kept as it has. */
static void put_numbers(mbl_proto_text_t *text, const uint8_t *bytes, size_t n, bool first) {
    char digits[256][4] = {{0}};
    uint8_t length[256];
    for (unsigned b = 0; b < 256; b++) {
        uint8_t k = 0;
        digits[b][k++] = ',';
        if (b >= 100)
            digits[b][k++] = (char)('0' + b / 100);
        if (b >= 10)
            digits[b][k++] = (char)('0' + b / 10 % 10);
        digits[b][k++] = (char)('0' + b % 10);
        length[b] = k;
    }
    char *at = mbl_proto_put_room(text, 4 * n), *begin = at;
    if (!at)
        return;
    for (size_t i = 0; i < n; i++) {
        memcpy(at, digits[bytes[i]], 4);
        at += length[bytes[i]];
    }
    text->size -= 4 * n - (size_t)(at - begin);
    if (first && n) { /* without its comma */
        memmove(begin, begin + 1, (size_t)(at - begin) - 1);
        text->size--;
    }
}

/* Everything in JSON: pixels as numbers, files in base64 and texts as strings, with the content types that
 * MLServer decodes by. */
static void put_json(const mbl_proto_peer_t *peer, const mbl_proto_batch_t *batch, bool files,
                     store_t *store) {
    const oip_t *oip = peer->self;
    mbl_proto_text_t *text = &store->text;
    mbl_proto_add_header(store, "Content-Type", "application/json");
    mbl_proto_puts(text, "{\"inputs\":[");
    for (int input = 0; input < OIP_INPUTS; input++) {
        if (!oip->ranks[input])
            continue;
        bool pixels = input == OIP_IMAGES && !files;
        put_input(oip, input, batch, files, store);
        if (!pixels)
            mbl_proto_putf(text, ",\"parameters\":{\"content_type\":\"%s\"}",
                           input == OIP_IMAGES ? "base64" : "str");
        mbl_proto_puts(text, ",\"data\":[");
        for (size_t i = 0; i < batch->n; i++) {
            if (pixels) {
                put_numbers(text, batch->rgb[i], batch->width * batch->height * 3, i == 0);
                continue;
            }
            mbl_proto_piece_t bytes = element(input, batch, i);
            mbl_proto_puts(text, i ? "," : "");
            if (input != OIP_IMAGES) {
                mbl_proto_put_quoted(text, bytes.data, bytes.bytes);
                continue;
            }
            mbl_proto_puts(text, "\"");
            mbl_proto_put_base64(text, bytes.data, bytes.bytes);
            mbl_proto_puts(text, "\"");
        }
        mbl_proto_puts(text, "]}");
    }
    mbl_proto_puts(text, "]");
    mbl_proto_put(text, oip->tail.data, oip->tail.size);
    mbl_proto_puts(text, "}");
}

static mbl_status_t oip_request(const mbl_proto_peer_t *peer, const mbl_proto_batch_t *batch,
                                store_t *store) {
    const oip_t *oip = peer->self;
    bool raw = peer->images == MBL_PROTO_IMAGES_RAW;
    if (raw && ((oip->height && batch->height != oip->height) || (oip->width && batch->width != oip->width)))
        return MBL_FAIL(
            MBL_ERR_ARG,
            "images of %zu x %zu pixels (height x width); the server's metadata asks for %zu x %zu "
            "(0: any); expected a server that takes this run's size",
            batch->height, batch->width, oip->height, oip->width);
    mbl_proto_puts(&store->path, oip->model_path);
    mbl_proto_puts(&store->path, "/infer");
    (oip->binary ? put_binary : put_json)(peer, batch, !raw, store);
    return MBL_OK;
}

const mbl_codec_t mbl_codec_oip = {
    .name = "oip",
    .help = "Open Inference Protocol 2: Triton, KServe, MLServer, proto/python; binary or JSON tensors",
    .questions = 3,
    .ready_question = 1,
    .absent = "expected a server of the Open Inference Protocol at this URL, which answers GET /v2",
    .open = oip_open,
    .close = oip_close,
    .ask = oip_ask,
    .learn = mbl_oip_learn,
    .request = oip_request,
    .response = mbl_oip_response,
};
