/* Our own scorers behind the Open Inference Protocol, in a thread of the test: what a run gets from it is
 * what it gets in its own process, rounded to FP32. Faults are switched on while it runs. */
#ifndef MBL_TESTS_OIP_SERVER_H
#define MBL_TESTS_OIP_SERVER_H

#include "fake_server.h"

#include "reward/reward.h"

#include <jansson.h>
#include <math.h>

typedef enum {
    OIP_FINE,
    OIP_HANG,    /* no answer */
    OIP_SLOW,    /* after `delay` */
    OIP_GARBAGE, /* HTTP 200 and nonsense */
    OIP_CUT,     /* half an answer */
    OIP_ERROR,   /* HTTP 500 */
    OIP_BUSY,    /* HTTP 429, once a second */
    OIP_HOURS,   /* HTTP 429, once in two hours */
    OIP_NAN,     /* scores that are no numbers */
    OIP_SHIFT    /* good scores, and 0.25 to each: another model */
} oip_fault_t;

typedef struct {
    fake_server_t http;
    const char *const *rewards; /* NULL-terminated: outputs of the model "signs" */
    atomic_int fault;
    double delay; /* seconds before each answer, whatever the fault */
    size_t good;  /* with `then`: calls until the fault */
    oip_fault_t then;
    bool json_only; /* it has no binary extension */
    char token[64];
    atomic_size_t scored, infers; /* images; calls */
} oip_server_t;

static inline bool oip_json(const fake_request_t *request, int status, json_t *json) {
    char *text = json_dumps(json, JSON_REAL_PRECISION(17));
    bool open = fake_answer(request, status, "Content-Type: application/json\r\n", text, strlen(text));
    free(text);
    json_decref(json);
    return open;
}

static inline json_t *oip_metadata(const oip_server_t *server) {
    json_t *outputs = json_array();
    for (size_t i = 0; server->rewards[i]; i++) {
        char name[80];
        snprintf(name, sizeof name, "%s_valid", server->rewards[i]);
        json_array_append_new(outputs, json_pack("{s:s,s:s,s:[i]}", "name", server->rewards[i], "datatype",
                                                 "FP32", "shape", -1));
        json_array_append_new(outputs,
                              json_pack("{s:s,s:s,s:[i]}", "name", name, "datatype", "BOOL", "shape", -1));
    }
    return json_pack("{s:s,s:[s],s:s,s:[{s:s,s:s,s:[i,i,i,i]},{s:s,s:s,s:[i]}],s:o}", "name", "signs",
                     "versions", "1", "platform", "test", "inputs", "name", "images", "datatype", "UINT8",
                     "shape", -1, -1, -1, 3, "name", "prompts", "datatype", "BYTES", "shape", -1, "outputs",
                     outputs);
}

/* One request's images and prompts. */
typedef struct {
    size_t n;
    mbl_image_t *images;
    mbl_prompt_t *prompts;
} oip_batch_t;

static inline size_t oip_dim(const json_t *tensor, size_t i) {
    return (size_t)json_integer_value(json_array_get(json_object_get(tensor, "shape"), i));
}

static inline void oip_read_images(const json_t *tensor, const char *bytes, oip_batch_t *out) {
    out->n = oip_dim(tensor, 0);
    size_t height = oip_dim(tensor, 1), width = oip_dim(tensor, 2), size = height * width * 3, j;
    out->images = calloc(out->n, sizeof *out->images);
    out->prompts = calloc(out->n, sizeof *out->prompts);
    const json_t *data = json_object_get(tensor, "data");
    for (size_t i = 0; i < out->n; i++) {
        uint8_t *rgb = malloc(size);
        for (j = 0; j < size; j++)
            rgb[j] = bytes ? (uint8_t)bytes[i * size + j]
                           : (uint8_t)json_integer_value(json_array_get(data, i * size + j));
        out->images[i] = (mbl_image_t){width, height, rgb};
    }
}

static inline void oip_read_prompts(const json_t *tensor, const char *bytes, oip_batch_t *out) {
    for (size_t i = 0; i < out->n; i++) {
        uint32_t length;
        if (!bytes) {
            out->prompts[i].text =
                strdup(json_string_value(json_array_get(json_object_get(tensor, "data"), i)));
            continue;
        }
        memcpy(&length, bytes, 4);
        out->prompts[i].text = strndup(bytes + 4, length);
        bytes += 4 + length;
    }
}

static inline bool oip_read(const fake_request_t *request, oip_batch_t *out, json_t **head) {
    char *length = fake_header(request, "\nInference-Header-Content-Length");
    size_t json_length = length ? strtoull(length, NULL, 10) : request->body_bytes, i;
    const char *bytes = request->body + json_length;
    json_t *tensor;
    free(length);
    *head = json_loadb(request->body, json_length, 0, NULL);
    json_array_foreach(json_object_get(*head, "inputs"), i, tensor) {
        const char *name = json_string_value(json_object_get(tensor, "name"));
        json_t *size = json_object_get(json_object_get(tensor, "parameters"), "binary_data_size");
        if (strcmp(name, "images") == 0)
            oip_read_images(tensor, size ? bytes : NULL, out);
        else if (strcmp(name, "prompts") == 0)
            oip_read_prompts(tensor, size ? bytes : NULL, out);
        bytes += json_integer_value(size);
    }
    return out->n > 0;
}

static inline void oip_free(oip_batch_t *batch) {
    for (size_t i = 0; i < batch->n; i++) {
        free(batch->images[i].rgb);
        free(batch->prompts[i].text);
    }
    free(batch->images);
    free(batch->prompts);
}

/* The outputs that were asked for, as JSON tensors. */
static inline bool oip_infer(const fake_request_t *request, oip_server_t *server) {
    oip_batch_t batch = {.n = 0};
    json_t *head, *asked, *outputs = json_array();
    bool shifted = atomic_load(&server->fault) == OIP_SHIFT;
    bool broken = atomic_load(&server->fault) == OIP_NAN, read = oip_read(request, &batch, &head);
    size_t i;
    if (!read)
        return fake_answer(request, 400, "", "{\"error\":\"no images\"}", 21);
    json_array_foreach(json_object_get(head, "outputs"), i, asked) {
        const char *name = json_string_value(json_object_get(asked, "name"));
        const char *valid = strstr(name, "_valid");
        char reward[64];
        json_t *data = json_array();
        snprintf(reward, sizeof reward, "%.*s", (int)(valid ? valid - name : (long)strlen(name)), name);
        const mbl_scorer_t *scorer = mbl_scorer_find(reward);
        for (size_t j = 0; j < batch.n; j++) {
            mbl_score_t score = {0, MBL_SCORE_FAILED};
            const mbl_prompt_t *prompt = &batch.prompts[j];
            (void)scorer->score(NULL, &batch.images[j], &prompt, 1, &score);
            bool good = score.state == MBL_SCORE_VALID && !broken;
            json_array_append_new(data, valid  ? json_boolean(score.state == MBL_SCORE_VALID)
                                        : good ? json_real((double)(float)score.value + (shifted ? 0.25 : 0))
                                               : json_null());
        }
        json_array_append_new(outputs,
                              json_pack("{s:s,s:s,s:[I],s:o}", "name", name, "datatype",
                                        valid ? "BOOL" : "FP32", "shape", (json_int_t)batch.n, "data", data));
    }
    json_t *answer =
        json_pack("{s:s,s:s,s:o}", "model_name", "signs", "model_version", "1", "outputs", outputs);
    if (json_object_get(head, "id"))
        json_object_set(answer, "id", json_object_get(head, "id"));
    atomic_fetch_add(&server->scored, batch.n);
    json_decref(head);
    oip_free(&batch);
    return oip_json(request, 200, answer);
}

static inline bool oip_fault(const fake_request_t *request, oip_server_t *server) {
    switch ((oip_fault_t)atomic_load(&server->fault)) {
    case OIP_HANG:
        fake_hang(request, 60);
        return false;
    case OIP_GARBAGE:
        return fake_answer(request, 200, "", "\x01\x02{[[[[", 6);
    case OIP_CUT:
        fake_say(request, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"outputs\"");
        return false;
    case OIP_ERROR:
        return fake_answer(request, 500, "", "{\"error\":\"out of memory on the device\"}", 40);
    case OIP_BUSY:
        return fake_answer(request, 429, "Retry-After: 1\r\n", "{\"error\":\"full\"}", 16);
    case OIP_HOURS:
        return fake_answer(request, 429, "Retry-After: 7200\r\n", "{\"error\":\"quota\"}", 17);
    default:
        return oip_infer(request, server);
    }
}

static inline bool oip_handle(fake_request_t *request, void *user) {
    oip_server_t *server = user;
    char *token = fake_header(request, "\nAuthorization"), expected[100];
    snprintf(expected, sizeof expected, "Bearer %s", server->token);
    bool allowed = !server->token[0] || (token && strcmp(token, expected) == 0);
    free(token);
    if (!allowed)
        return fake_answer(request, 401, "", "{\"error\":\"expected a token\"}", 28);
    if (strcmp(request->path, "/v2") == 0)
        return oip_json(request, 200,
                        server->json_only
                            ? json_pack("{s:s,s:s,s:[]}", "name", "t", "version", "1", "extensions")
                            : json_pack("{s:s,s:s,s:[s]}", "name", "t", "version", "1", "extensions",
                                        "binary_tensor_data"));
    if (strcmp(request->path, "/v2/models/signs/ready") == 0)
        return fake_answer(request, 200, "", "{}", 2);
    if (strcmp(request->path, "/v2/models/signs") == 0)
        return oip_json(request, 200, oip_metadata(server));
    if (strcmp(request->path, "/v2/models/signs/infer") != 0)
        return fake_answer(request, 404, "", "{\"error\":\"no such model\"}", 25);
    if (atomic_fetch_add(&server->infers, 1) == server->good && server->then != OIP_FINE)
        atomic_store(&server->fault, (int)server->then);
    if (server->delay > 0)
        fake_hang(request, server->delay);
    return oip_fault(request, server);
}

static inline void oip_open(oip_server_t *server, const char *const *rewards) {
    memset(server, 0, sizeof *server);
    server->rewards = rewards;
    fake_open(&server->http, oip_handle, server);
}

#endif
