/* Open Inference Protocol: what a server says of itself and of a model, held against what a reward sends and
 * needs. */
#include "base/mem.h"
#include "proto/oip.h"

#include <stdio.h>
#include <string.h>

enum { SHAPE_MAX = 8 };

/* A tensor as metadata lists it; -1 in shape: any size. */
typedef struct {
    const char *name, *datatype;
    long long shape[SHAPE_MAX];
    size_t rank;
    char shown[120]; /* UINT8 [-1, 512, 512, 3] */
} listed_t;

static mbl_status_t read_listed(const json_t *json, const char *what, listed_t *out,
                                mbl_proto_error_t *error) {
    const json_t *shape;
    if (!json_is_object(json))
        return mbl_proto_fault(error, MBL_PROTO_ERROR_MALFORMED, "%s lists a tensor that is no object", what);
    MBL_TRY(mbl_proto_json_string(json, what, "name", &out->name, error));
    MBL_TRY(mbl_proto_json_string(json, what, "datatype", &out->datatype, error));
    MBL_TRY(mbl_proto_json_array(json, what, "shape", SHAPE_MAX, &shape, error));
    out->rank = json_array_size(shape);
    size_t used = 0;
    int n = snprintf(out->shown, sizeof out->shown, "%.16s [", out->datatype);
    used = (size_t)n;
    for (size_t i = 0; i < out->rank; i++) {
        const json_t *dim = json_array_get(shape, i);
        /* MLServer's metadata has null where Triton's has -1. */
        bool any = json_is_null(dim);
        json_int_t value = any ? -1 : json_integer_value(dim);
        if ((!any && !json_is_integer(dim)) || value < -1 || value > 1000000000) {
            char shown[40];
            return mbl_proto_fault(error, MBL_PROTO_ERROR_MALFORMED,
                                   "%s: the shape of %.60s holds %s; expected whole numbers, or -1 for any",
                                   what, out->name, mbl_proto_json_show(dim, shown, sizeof shown));
        }
        out->shape[i] = value;
        if (used + 16 < sizeof out->shown)
            used += (size_t)snprintf(out->shown + used, sizeof out->shown - used, "%s%lld", i ? ", " : "",
                                     (long long)value);
    }
    snprintf(out->shown + used, sizeof out->shown - used, "]");
    return MBL_OK;
}

/* The inputs or outputs of a model: those it lists, none where the key is absent or null. The caller frees
 * *out. */
static mbl_status_t read_list(const json_t *metadata, const char *key, listed_t **out, size_t *n,
                              mbl_proto_error_t *error) {
    char what[60];
    snprintf(what, sizeof what, "the model's metadata (%s)", key);
    *n = 0;
    const json_t *list = json_object_get(metadata, key);
    if (!list || json_is_null(list))
        return MBL_OK;
    MBL_TRY(mbl_proto_json_array(metadata, "the model's metadata", key, MBL_PROTO_TENSORS_MAX, &list, error));
    listed_t *tensors = *out = mbl_calloc(json_array_size(list) + 1, sizeof *tensors);
    if (!tensors)
        return MBL_FAIL(MBL_ERR_MEM, "no memory for the metadata of a reward server");
    for (size_t i = 0; i < json_array_size(list); i++) {
        MBL_TRY(read_listed(json_array_get(list, i), what, &tensors[i], error));
        for (size_t j = 0; j < i; j++)
            if (strcmp(tensors[i].name, tensors[j].name) == 0)
                return mbl_proto_fault(error, MBL_PROTO_ERROR_MALFORMED, "%s lists %.60s twice", what,
                                       tensors[i].name);
    }
    *n = json_array_size(list);
    return MBL_OK;
}

static const listed_t *find(const listed_t *list, size_t n, const char *name) {
    for (size_t i = 0; i < n; i++)
        if (strcmp(list[i].name, name) == 0)
            return &list[i];
    return NULL;
}

/* "images UINT8 [-1, -1, -1, 3], prompts BYTES [-1]"; where it is long, its first entries "and 3 more". */
static const char *show_list(const listed_t *list, size_t n, char *out, size_t room) {
    enum { MORE = 24 };
    size_t used = 0;
    out[0] = 0;
    for (size_t i = 0; i < n; i++) {
        char entry[200];
        int k = snprintf(entry, sizeof entry, "%s%.40s %.100s", i ? ", " : "", list[i].name, list[i].shown);
        if (k < 0 || used + (size_t)k + MORE > room) {
            snprintf(out + used, room - used, "%s%zu more", i ? " and " : "", n - i);
            break;
        }
        memcpy(out + used, entry, (size_t)k + 1);
        used += (size_t)k;
    }
    return out;
}

/* ---- inputs ---- */

/* The first dimension is the batch: any number, or 1 and then one image a request. */
static mbl_status_t check_batch_dim(mbl_proto_peer_t *peer, const listed_t *input, mbl_proto_error_t *error) {
    if (input->shape[0] == 1)
        peer->max_batch = 1;
    else if (input->shape[0] != -1)
        return mbl_proto_fault(error, MBL_PROTO_ERROR_MISMATCH,
                               "input %.60s is %s: exactly %lld images a request; expected a first dimension "
                               "of -1 (any number) or 1",
                               input->name, input->shown, input->shape[0]);
    return MBL_OK;
}

static mbl_status_t check_pixels(mbl_proto_peer_t *peer, const listed_t *input, mbl_proto_error_t *error) {
    const long long *shape = input->shape;
    if (input->rank == 4 && shape[1] == 3 && shape[3] != 3)
        return mbl_proto_fault(
            error, MBL_PROTO_ERROR_MISMATCH,
            "input %.60s is %s, channels first; expected channels last, UINT8 [N, height, width, 3]",
            input->name, input->shown);
    if (input->rank != 4 || (shape[3] != 3 && shape[3] != -1))
        return mbl_proto_fault(error, MBL_PROTO_ERROR_MISMATCH,
                               "input %.60s is %s; expected UINT8 [N, height, width, 3]", input->name,
                               input->shown);
    bool fits = (shape[1] == -1 || !peer->height || shape[1] == (long long)peer->height) &&
                (shape[2] == -1 || !peer->width || shape[2] == (long long)peer->width);
    if (!fits)
        return mbl_proto_fault(error, MBL_PROTO_ERROR_MISMATCH,
                               "input %.60s is %s; this run's images are %zu x %zu (height x width)",
                               input->name, input->shown, peer->height, peer->width);
    oip_t *oip = peer->self;
    oip->height = shape[1] > 0 ? (size_t)shape[1] : 0;
    oip->width = shape[2] > 0 ? (size_t)shape[2] : 0;
    return check_batch_dim(peer, input, error);
}

static mbl_status_t check_texts(mbl_proto_peer_t *peer, const listed_t *input, const char *expected,
                                mbl_proto_error_t *error) {
    bool column = input->rank == 2 && (input->shape[1] == 1 || input->shape[1] == -1);
    if (strcmp(input->datatype, "BYTES") != 0 || (input->rank != 1 && !column))
        return mbl_proto_fault(error, MBL_PROTO_ERROR_MISMATCH, "input %.60s is %s; expected %s", input->name,
                               input->shown, expected);
    return check_batch_dim(peer, input, error);
}

/* UINT8: pixels; BYTES: files, PNG unless JPEG was asked for, since PNG loses nothing. */
static mbl_status_t check_images(mbl_proto_peer_t *peer, const listed_t *input, mbl_proto_error_t *error) {
    static const char expected[] =
        "UINT8 [N, height, width, 3] for pixels, or BYTES [N] or [N, 1] for PNG or JPEG files";
    bool files = strcmp(input->datatype, "BYTES") == 0;
    if (!files && strcmp(input->datatype, "UINT8") != 0)
        return mbl_proto_fault(error, MBL_PROTO_ERROR_MISMATCH, "input %.60s is %s; expected %s", input->name,
                               input->shown, expected);
    if (files && peer->wanted == MBL_PROTO_IMAGES_RAW)
        return mbl_proto_fault(error, MBL_PROTO_ERROR_MISMATCH,
                               "input %.60s is %s: files; the reward says images: raw; expected png or jpeg",
                               input->name, input->shown);
    if (!files && (peer->wanted == MBL_PROTO_IMAGES_PNG || peer->wanted == MBL_PROTO_IMAGES_JPEG))
        return mbl_proto_fault(error, MBL_PROTO_ERROR_MISMATCH,
                               "input %.60s is %s: pixels; the reward says images: png or jpeg; expected raw",
                               input->name, input->shown);
    peer->images = !files                                  ? MBL_PROTO_IMAGES_RAW
                   : peer->wanted == MBL_PROTO_IMAGES_AUTO ? MBL_PROTO_IMAGES_PNG
                                                           : peer->wanted;
    return files ? check_texts(peer, input, expected, error) : check_pixels(peer, input, error);
}

/* A model that lists its inputs gets those; one that lists none gets all three. */
static mbl_status_t settle_inputs(mbl_proto_peer_t *peer, const listed_t *inputs, size_t n,
                                  mbl_proto_error_t *error) {
    oip_t *oip = peer->self;
    char shown[300];
    peer->max_batch = MBL_PROTO_BATCH_MAX;
    oip->height = oip->width = 0;
    if (n == 0) {
        peer->images = peer->wanted == MBL_PROTO_IMAGES_AUTO ? MBL_PROTO_IMAGES_RAW : peer->wanted;
        for (int i = 0; i < OIP_INPUTS; i++)
            oip->ranks[i] = 1;
        return MBL_OK;
    }
    for (int i = 0; i < OIP_INPUTS; i++) {
        const listed_t *input = find(inputs, n, oip->names[i]);
        oip->ranks[i] = input ? input->rank : 0;
        if (i == OIP_IMAGES && !input)
            return mbl_proto_fault(error, MBL_PROTO_ERROR_MISMATCH,
                                   "the model takes %s; expected an input called %.60s (key image_input)",
                                   show_list(inputs, n, shown, sizeof shown), oip->names[i]);
        if (input)
            MBL_TRY(i == OIP_IMAGES ? check_images(peer, input, error)
                                    : check_texts(peer, input, "BYTES [N] or [N, 1]", error));
    }
    for (size_t i = 0; i < n; i++)
        if (strcmp(inputs[i].name, oip->names[0]) != 0 && strcmp(inputs[i].name, oip->names[1]) != 0 &&
            strcmp(inputs[i].name, oip->names[2]) != 0)
            return mbl_proto_fault(error, MBL_PROTO_ERROR_MISMATCH,
                                   "the model takes %s; a reward has only %.40s, %.40s and %.40s (keys "
                                   "image_input, prompt_input, "
                                   "metadata_input)",
                                   show_list(inputs, n, shown, sizeof shown), oip->names[0], oip->names[1],
                                   oip->names[2]);
    return MBL_OK;
}

/* ---- outputs ---- */

static mbl_status_t check_score(const listed_t *output, mbl_proto_error_t *error) {
    const oip_type_t *type = mbl_oip_type(output->datatype);
    bool column = output->rank == 2 && (output->shape[1] == 1 || output->shape[1] == -1);
    if (!type || type->class == OIP_BYTES || (output->rank != 1 && !column))
        return mbl_proto_fault(error, MBL_PROTO_ERROR_MISMATCH,
                               "output %.60s is %s; expected FP32 [N] or [N, 1] (FP64, FP16 or whole "
                               "numbers will do)",
                               output->name, output->shown);
    return MBL_OK;
}

static void want_output(oip_t *oip, const char *name) {
    mbl_proto_puts(&oip->tail, oip->tail.size ? ",{\"name\":" : ",\"outputs\":[{\"name\":");
    mbl_proto_put_quoted(&oip->tail, name, strlen(name));
    mbl_proto_puts(&oip->tail, oip->binary ? ",\"parameters\":{\"binary_data\":true}}" : "}");
}

/* X_valid, else valid; X_reason, else reason: asked for where the model lists it, once. */
static void want_companion(oip_t *oip, const listed_t *outputs, size_t n, const char *output,
                           const char *what, bool *wanted) {
    char own[OIP_COMPANION];
    if (find(outputs, n, mbl_oip_companion(output, what, own, sizeof own)))
        want_output(oip, own);
    else if (find(outputs, n, what) && !*wanted) {
        want_output(oip, what);
        *wanted = true;
    }
}

static mbl_status_t settle_outputs(mbl_proto_peer_t *peer, const listed_t *outputs, size_t n,
                                   mbl_proto_error_t *error) {
    oip_t *oip = peer->self;
    char shown[300];
    bool valid = false, reason = false;
    mbl_proto_text_clear(&oip->tail);
    for (size_t k = 0; n > 0 && k < peer->n_outputs; k++) {
        const listed_t *output = find(outputs, n, peer->outputs[k]);
        if (!output)
            return mbl_proto_fault(error, MBL_PROTO_ERROR_MISMATCH,
                                   "the model answers with %s; expected an output called %.60s (key output)",
                                   show_list(outputs, n, shown, sizeof shown), peer->outputs[k]);
        MBL_TRY(check_score(output, error));
        want_output(oip, peer->outputs[k]);
        want_companion(oip, outputs, n, peer->outputs[k], "valid", &valid);
        want_companion(oip, outputs, n, peer->outputs[k], "reason", &reason);
    }
    if (n > 0)
        mbl_proto_puts(&oip->tail, "]");
    else if (oip->binary)
        mbl_proto_puts(&oip->tail, ",\"parameters\":{\"binary_data_output\":true}");
    if (oip->tail.failed)
        return MBL_FAIL(MBL_ERR_MEM, "no memory for the outputs of a reward server");
    return MBL_OK;
}

/* ---- the three answers ---- */

static mbl_status_t learn_server(oip_t *oip, const json_t *json, mbl_proto_error_t *error) {
    static const char what[] = "the server's metadata (/v2)";
    const char *name = NULL, *version = NULL;
    MBL_TRY(mbl_proto_json_string(json, what, "name", &name, error));
    const json_t *given = json_object_get(json, "version"), *list = json_object_get(json, "extensions");
    version = json_is_string(given) ? json_string_value(given) : "";
    char line[160];
    int n = snprintf(line, sizeof line, "%.50s%s%.24s", name, *version ? " " : "", version);
    mbl_proto_printable(line, n < 0 ? 0 : strlen(line), oip->server, sizeof oip->server);
    oip->has_binary = false;
    if (!list || json_is_null(list))
        return MBL_OK;
    MBL_TRY(mbl_proto_json_array(json, what, "extensions", 1000, &list, error));
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *item = json_array_get(list, i);
        if (json_is_string(item) && strcmp(json_string_value(item), "binary_tensor_data") == 0)
            oip->has_binary = true;
    }
    return MBL_OK;
}

static mbl_status_t learn_ready(const mbl_proto_response_t *response, mbl_proto_error_t *error) {
    if (response->body_bytes == 0) /* Triton says it by the status alone */
        return MBL_OK;
    json_t *json = NULL;
    MBL_TRY(mbl_proto_json(response->body, response->body_bytes, "whether the model is ready", &json, error));
    bool ready = !json_is_false(json_object_get(json, "ready"));
    json_decref(json);
    return ready ? MBL_OK : mbl_proto_fault(error, MBL_PROTO_ERROR_BUSY, "the model is not ready yet");
}

static void describe_model(mbl_proto_peer_t *peer, const listed_t *inputs, size_t n_inputs,
                           const listed_t *outputs, size_t n_outputs) {
    const oip_t *oip = peer->self;
    static const char *const forms[] = {
#define FORM(name, id, help) name,
        MBL_PROTO_IMAGES_LIST(FORM)
#undef FORM
    };
    char line[MBL_PROTO_DESCRIPTION], taken[140], given[140];
    snprintf(line, sizeof line, "%s, model %.60s: %s tensors, images %s; inputs: %s; outputs: %s",
             oip->server, oip->model, oip->binary ? "binary" : "JSON", forms[peer->images],
             n_inputs ? show_list(inputs, n_inputs, taken, sizeof taken) : "not listed",
             n_outputs ? show_list(outputs, n_outputs, given, sizeof given) : "not listed");
    mbl_proto_printable(line, strlen(line), peer->description, sizeof peer->description);
}

static mbl_status_t learn_model(mbl_proto_peer_t *peer, const json_t *json, mbl_proto_error_t *error) {
    oip_t *oip = peer->self;
    listed_t *inputs = NULL, *outputs = NULL;
    size_t n_inputs, n_outputs;
    mbl_status_t status;
    MBL_TRY_GOTO(read_list(json, "inputs", &inputs, &n_inputs, error), end);
    MBL_TRY_GOTO(read_list(json, "outputs", &outputs, &n_outputs, error), end);
    if (oip->wire == MBL_PROTO_WIRE_JSON)
        oip->binary = false;
    else
        oip->binary = oip->has_binary || oip->wire == MBL_PROTO_WIRE_BINARY;
    MBL_TRY_GOTO(settle_inputs(peer, inputs, n_inputs, error), end);
    MBL_TRY_GOTO(settle_outputs(peer, outputs, n_outputs, error), end);
    describe_model(peer, inputs, n_inputs, outputs, n_outputs);
    status = MBL_OK;
end:
    mbl_free(inputs);
    mbl_free(outputs);
    return status;
}

mbl_status_t mbl_oip_learn(mbl_proto_peer_t *peer, size_t q, const mbl_proto_response_t *response,
                           mbl_proto_error_t *error) {
    if (q == 1)
        return learn_ready(response, error);
    json_t *json = NULL;
    MBL_TRY(mbl_proto_json_object(response->body, response->body_bytes,
                                  q ? "the model's metadata" : "the server's metadata (/v2)", &json, error));
    mbl_status_t status = q ? learn_model(peer, json, error) : learn_server(peer->self, json, error);
    json_decref(json);
    return status;
}
