/* Tables of keys, and reading them from JSON. Ranges and defaults stand in the tables alone. */
#include "reward/remote/options.h"

#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "reward/remote/schedule.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const protocol_words[] = {"oip", "unirl", NULL};
static const char *const tensor_words[] = {"auto", "binary", "json", NULL};
#define IMAGE_WORD(name, id, help) name,
static const char *const image_words[] = {MBL_PROTO_IMAGES_LIST(IMAGE_WORD) NULL};
#undef IMAGE_WORD

#define URL_KEYS                                                                                             \
    {"url", MBL_KEY_TEXT, 0, 0, NULL, "", "the server: http://HOST:PORT, https://... or unix:/PATH"},        \
        {"urls",                                                                                             \
         MBL_KEY_TEXTS,                                                                                      \
         1,                                                                                                  \
         MBL_SCHEDULE_REPLICAS_MAX,                                                                          \
         NULL,                                                                                               \
         "",                                                                                                 \
         "several that serve the same, [URL, URL]"},                                                         \
        {"ca", MBL_KEY_FILE, 0, 0, NULL, "", "PEM file of certificates to trust instead of the system's"},   \
        {"cert", MBL_KEY_FILE, 0, 0, NULL, "", "PEM file of a certificate to show to the server"},           \
        {"key", MBL_KEY_FILE, 0, 0, NULL, "", "PEM file of that certificate's key"},                         \
        {"token_file", MBL_KEY_FILE, 0, 0, NULL, "", "file with the token to send; it goes nowhere else"}, { \
        "token_env", MBL_KEY_TEXT, 0, 0, NULL, "", "environment variable with the token to send"             \
    }
#define CALL_KEYS(batch_, in_flight_, deadline_, start_)                                                     \
    {"batch",                                                                                                \
     MBL_KEY_COUNT,                                                                                          \
     1,                                                                                                      \
     MBL_PROTO_BATCH_MAX,                                                                                    \
     NULL,                                                                                                   \
     batch_,                                                                                                 \
     "images of a request; fewer where the server says so"},                                                 \
        {"in_flight",                                                                                        \
         MBL_KEY_COUNT,                                                                                      \
         1,                                                                                                  \
         MBL_SCHEDULE_IN_FLIGHT_MAX,                                                                         \
         NULL,                                                                                               \
         in_flight_,                                                                                         \
         "requests under way at each replica, from every rank"},                                             \
        {"deadline",                                                                                         \
         MBL_KEY_SECONDS,                                                                                    \
         0.01,                                                                                               \
         86400,                                                                                              \
         NULL,                                                                                               \
         deadline_,                                                                                          \
         "seconds after which a request has failed"},                                                        \
        {"retries",                                                                                          \
         MBL_KEY_COUNT,                                                                                      \
         0,                                                                                                  \
         100,                                                                                                \
         NULL,                                                                                               \
         "4",                                                                                                \
         "how many times a request is sent again after a failure"},                                          \
        {"hedge",                                                                                            \
         MBL_KEY_NUMBER,                                                                                     \
         0,                                                                                                  \
         1000,                                                                                               \
         NULL,                                                                                               \
         "4",                                                                                                \
         "a second replica is asked once a request takes so many times the median, at least 1; 0: never"},   \
    {                                                                                                        \
        "start", MBL_KEY_SECONDS, 0, 86400, NULL, start_,                                                    \
            "seconds in which a server has to be there when the run begins"                                  \
    }
#define END                                                                                                  \
    { NULL, MBL_KEY_TEXT, 0, 0, NULL, NULL, NULL }

const mbl_scorer_key_t mbl_remote_keys[] = {
    URL_KEYS,
    {"protocol", MBL_KEY_CHOICE, 0, 0, protocol_words, "oip",
     "oip: Open Inference Protocol (Triton, KServe, MLServer, marble_reward.py); unirl: UniRL's reward "
     "servers"},
    {"model", MBL_KEY_TEXT, 0, 0, NULL, "", "the model's name at the server (oip)"},
    {"version", MBL_KEY_TEXT, 0, 0, NULL, "", "the model's version at the server (oip)"},
    {"output", MBL_KEY_TEXT, 0, 0, NULL, "scores",
     "the output that is this reward; rewards that differ in nothing else come from one call"},
    {"tensors", MBL_KEY_CHOICE, 0, 0, tensor_words, "auto",
     "how tensors travel (oip): binary or json; auto: as the server can"},
    {"images", MBL_KEY_CHOICE, 0, 0, image_words, "auto",
     "how images travel: raw, jpeg or png; auto: as the server asks"},
    {"image_input", MBL_KEY_TEXT, 0, 0, NULL, "images", "name of the model's input for the images (oip)"},
    {"prompt_input", MBL_KEY_TEXT, 0, 0, NULL, "prompts", "the same for the prompts"},
    {"metadata_input", MBL_KEY_TEXT, 0, 0, NULL, "metadata", "the same for their metadata"},
    CALL_KEYS("64", "2", "60", "30"),
    END};

const mbl_scorer_key_t mbl_judge_keys[] = {
    URL_KEYS,
    {"model", MBL_KEY_TEXT, 0, 0, NULL, "", "the model's name at the server; needed where it has several"},
    {"question", MBL_KEY_TEXT, 0, 0, NULL, "",
     "what is asked about an image; {prompt} and {metadata} are replaced"},
    {"system", MBL_KEY_TEXT, 0, 0, NULL, "", "system message before the question"},
    {"pattern", MBL_KEY_TEXT, 0, 0, NULL, "",
     "regular expression whose first group is the score in the answer; where it matches several times, the "
     "first counts"},
    {"schema", MBL_KEY_TREE, 0, 0, NULL, "", "JSON schema for the answer, instead of a pattern"},
    {"field", MBL_KEY_TEXT, 0, 0, NULL, "score", "the property of that JSON that is the score"},
    {"scale", MBL_KEY_PAIR, 0, 0, NULL, "", "[low, high] of the number in an answer; others fail"},
    {"divide", MBL_KEY_NUMBER, 1e-9, 1e9, NULL, "1", "the score is that number divided by this"},
    {"votes", MBL_KEY_COUNT, 1, MBL_PROTO_VOTES_MAX, NULL, "1",
     "answers whose mean counts; several need a temperature"},
    {"temperature", MBL_KEY_NUMBER, 0, 2, NULL, "0",
     "randomness of the answers; 0: always the likeliest one"},
    {"max_tokens", MBL_KEY_COUNT, 1, 1 << 20, NULL, "512", "most tokens of an answer"},
    {"images", MBL_KEY_CHOICE, 0, 0, image_words, "auto", "png or jpeg; auto: png"},
    CALL_KEYS("1", "8", "120", "30"),
    END};

const mbl_scorer_key_t mbl_python_keys[] = {
    {"file", MBL_KEY_FILE, 0, 0, NULL, "", "Python file with functions under @reward"},
    {"python", MBL_KEY_PROGRAM, 0, 0, NULL, "python3", "the interpreter, such as .venv/bin/python"},
    {"output", MBL_KEY_TEXT, 0, 0, NULL, "", "the reward in that file [default: this reward's name]"},
    {"workers", MBL_KEY_COUNT, 1, 256, NULL, "1", "processes, each of which loads the file"},
    {"device", MBL_KEY_TEXT, 0, 0, NULL, "cpu",
     "what device() returns in them, one after the other: cuda:0,cuda:1"},
    CALL_KEYS("64", "2", "300", "300"),
    END};

bool mbl_remote_same_calls(const mbl_reward_spec_t *a, const mbl_reward_spec_t *b) {
    json_t *first = a->options ? json_loads(a->options, 0, NULL) : NULL;
    json_t *second = b->options ? json_loads(b->options, 0, NULL) : NULL;
    json_object_del(first, "output");
    json_object_del(second, "output");
    bool same = first && second && strcmp(a->type ? a->type : a->name, b->type ? b->type : b->name) == 0 &&
                json_equal(first, second);
    json_decref(first);
    json_decref(second);
    return same;
}

/* ---- values ---- */

typedef struct {
    const mbl_scorer_key_t *keys;
    const json_t *json;
    char where[64]; /* "reward NAME" */
} source_t;

static const mbl_scorer_key_t *key_of(const source_t *source, const char *name) {
    for (const mbl_scorer_key_t *key = source->keys; key->name; key++)
        if (strcmp(key->name, name) == 0)
            return key;
    return NULL;
}

/* Keys that a type does not have leave *out as it is. */
static mbl_status_t read_count(const source_t *source, const char *name, size_t *out) {
    const mbl_scorer_key_t *key = key_of(source, name);
    if (!key)
        return MBL_OK;
    *out = strtoull(key->fallback, NULL, 10);
    return mbl_json_size(source->json, source->where, name, false, (size_t)key->low, (size_t)key->high, out);
}

static mbl_status_t read_number(const source_t *source, const char *name, double *out) {
    const mbl_scorer_key_t *key = key_of(source, name);
    if (!key)
        return MBL_OK;
    *out = strtod(key->fallback, NULL);
    return mbl_json_real(source->json, source->where, name, false, key->low, key->high, out);
}

static mbl_status_t read_text(const source_t *source, const char *name, const char **out) {
    return key_of(source, name) ? mbl_json_string(source->json, source->where, name, false, out) : MBL_OK;
}

static mbl_status_t read_choice(const source_t *source, const char *name, int *out) {
    const mbl_scorer_key_t *key = key_of(source, name);
    const char *word = key ? key->fallback : NULL;
    MBL_TRY(read_text(source, name, &word));
    for (int i = 0; word && key->words[i]; i++)
        if (strcmp(key->words[i], word) == 0) {
            *out = i;
            return MBL_OK;
        }
    return word ? MBL_FAIL(MBL_ERR_CONFIG,
                           "%s: %s is \"%.60s\"; expected one of those in --help-config rewards",
                           source->where, name, word)
                : MBL_OK;
}

/* ---- parts ---- */

static mbl_status_t read_urls(const source_t *source, mbl_remote_parsed_t *out) {
    const json_t *list = json_object_get(source->json, "urls"), *one = json_object_get(source->json, "url");
    if (!key_of(source, "url"))
        return MBL_OK;
    if (!one == !list)
        return MBL_FAIL(MBL_ERR_CONFIG,
                        "%s: %s; expected one of url and urls, as in url: http://localhost:8000",
                        source->where, one ? "has both url and urls" : "has neither url nor urls");
    size_t n = list ? json_array_size(list) : 1;
    if (list && (!json_is_array(list) || n == 0 || n > MBL_SCHEDULE_REPLICAS_MAX))
        return MBL_FAIL(MBL_ERR_CONFIG, "%s: urls: expected a list of 1 to %d", source->where,
                        MBL_SCHEDULE_REPLICAS_MAX);
    MBL_ALLOC(out->urls, n);
    for (size_t i = 0; i < n; i++) {
        out->urls[i] = json_string_value(list ? json_array_get(list, i) : one);
        if (!out->urls[i])
            return MBL_FAIL(MBL_ERR_CONFIG, "%s: %s: expected texts such as http://localhost:8000",
                            source->where, list ? "urls" : "url");
        for (size_t j = 0; j < i; j++)
            if (strcmp(out->urls[i], out->urls[j]) == 0)
                return MBL_FAIL(MBL_ERR_CONFIG, "%s: urls: %.200s is there twice; expected each server once",
                                source->where, out->urls[i]);
    }
    out->client.urls = out->urls;
    out->client.n_urls = n;
    return MBL_OK;
}

static mbl_status_t read_calls(const source_t *source, mbl_remote_options_t *client) {
    MBL_TRY(read_text(source, "ca", &client->ca));
    MBL_TRY(read_text(source, "cert", &client->cert));
    MBL_TRY(read_text(source, "key", &client->key));
    MBL_TRY(read_text(source, "token_file", &client->token_file));
    MBL_TRY(read_text(source, "token_env", &client->token_env));
    MBL_TRY(read_count(source, "batch", &client->batch));
    MBL_TRY(read_count(source, "in_flight", &client->in_flight));
    MBL_TRY(read_count(source, "retries", &client->retries));
    MBL_TRY(read_number(source, "deadline", &client->deadline));
    MBL_TRY(read_number(source, "hedge", &client->hedge));
    MBL_TRY(read_number(source, "start", &client->start));
    if (client->hedge > 0 && client->hedge < 1)
        return MBL_FAIL(MBL_ERR_CONFIG, "%s.hedge: %g; expected 0 (never) or at least 1", source->where,
                        client->hedge);
    if (client->token_file && client->token_env)
        return MBL_FAIL(MBL_ERR_CONFIG, "%s: has token_file and token_env; expected one of them",
                        source->where);
    return MBL_OK;
}

static mbl_status_t read_server(const source_t *source, mbl_proto_options_t *server) {
    int protocol = -1, wire = 0, images = 0;
    MBL_TRY(read_choice(source, "protocol", &protocol));
    MBL_TRY(read_choice(source, "tensors", &wire));
    MBL_TRY(read_choice(source, "images", &images));
    server->codec = protocol >= 0 ? protocol_words[protocol] : "oip";
    server->wire = (mbl_proto_wire_t)wire;
    server->images = (mbl_proto_images_t)images;
    MBL_TRY(read_text(source, "model", &server->model));
    MBL_TRY(read_text(source, "version", &server->version));
    MBL_TRY(read_text(source, "image_input", &server->image_input));
    MBL_TRY(read_text(source, "prompt_input", &server->prompt_input));
    return read_text(source, "metadata_input", &server->metadata_input);
}

static mbl_status_t read_judge(const source_t *source, mbl_remote_parsed_t *out) {
    mbl_proto_judge_t *judge = &out->client.server.judge;
    const json_t *scale = json_object_get(source->json, "scale");
    const json_t *schema = json_object_get(source->json, "schema");
    if (!key_of(source, "question"))
        return MBL_OK;
    out->client.server.codec = "chat";
    MBL_TRY(read_text(source, "question", &judge->question));
    MBL_TRY(read_text(source, "system", &judge->system));
    MBL_TRY(read_text(source, "pattern", &judge->pattern));
    MBL_TRY(read_text(source, "field", &judge->field));
    MBL_TRY(read_number(source, "divide", &judge->divide));
    MBL_TRY(read_number(source, "temperature", &judge->temperature));
    MBL_TRY(read_count(source, "votes", &judge->votes));
    MBL_TRY(read_count(source, "max_tokens", &judge->max_tokens));
    if (scale) {
        judge->low = json_number_value(json_array_get(scale, 0));
        judge->high = json_number_value(json_array_get(scale, 1));
        if (json_array_size(scale) != 2 || !(judge->low < judge->high))
            return MBL_FAIL(MBL_ERR_CONFIG, "%s: scale: expected [low, high], such as [1, 5]", source->where);
    }
    if (schema) {
        char *text = json_dumps(schema, JSON_COMPACT);
        out->schema = text ? mbl_strdup(text) : NULL;
        free(text);
        if (!out->schema)
            return MBL_FAIL(MBL_ERR_MEM, "no memory for a schema");
        judge->schema = out->schema;
    }
    return MBL_OK;
}

/* Two rewards that are the same output would be one reward with twice the say. */
static mbl_status_t check_twice(const mbl_remote_parsed_t *out, const mbl_reward_spec_t *const *specs,
                                size_t i, bool python) {
    for (size_t j = 0; j < i; j++)
        if (strcmp(out->outputs[i], out->outputs[j]) == 0)
            return MBL_FAIL(MBL_ERR_CONFIG,
                            "rewards %s and %s: both are %s \"%.60s\" of one %s; expected a key output that "
                            "differs, or one of the two with a weight of 2",
                            specs[j]->name, specs[i]->name, python ? "the function" : "the output",
                            out->outputs[i], python ? "file" : "server");
    return MBL_OK;
}

/* What each of the rewards is among the outputs. */
static mbl_status_t read_outputs(const source_t *source, const mbl_reward_spec_t *const *specs, size_t n,
                                 mbl_remote_parsed_t *out) {
    bool python = key_of(source, "python");
    if (!key_of(source, "output"))
        return n == 1 ? MBL_OK
                      : MBL_FAIL(MBL_ERR_CONFIG,
                                 "%s: is the same judge as another reward; expected another question",
                                 source->where);
    MBL_ALLOC(out->outputs, n);
    out->client.server.outputs = out->outputs;
    for (size_t i = 0; i < n; i++) {
        json_t *own = specs[i]->options ? json_loads(specs[i]->options, 0, NULL) : NULL;
        const char *name = json_string_value(json_object_get(own, "output"));
        name = name ? name : python ? specs[i]->name : "scores";
        /* kept by the JSON that all strings live in */
        char key[32];
        snprintf(key, sizeof key, "output %zu", i);
        int failed = json_object_set_new(out->json, key, json_string(name));
        json_decref(own);
        if (failed)
            return MBL_FAIL(MBL_ERR_MEM, "no memory for the outputs");
        out->outputs[i] = json_string_value(json_object_get(out->json, key));
        out->client.server.n_outputs = i + 1;
        MBL_TRY(check_twice(out, specs, i, python));
    }
    return MBL_OK;
}

static mbl_status_t read_python(const source_t *source, mbl_remote_parsed_t *out) {
    if (!key_of(source, "python"))
        return MBL_OK;
    out->python = "python3";
    out->device = "cpu";
    MBL_TRY(read_text(source, "file", &out->file));
    MBL_TRY(read_text(source, "python", &out->python));
    MBL_TRY(read_text(source, "device", &out->device));
    if (!out->file)
        return MBL_FAIL(MBL_ERR_CONFIG, "%s: has no file; expected file: my_rewards.py", source->where);
    return read_count(source, "workers", &out->workers);
}

mbl_status_t mbl_remote_parse(const mbl_scorer_key_t *keys, const mbl_reward_spec_t *const *specs, size_t n,
                              mbl_remote_parsed_t *out) {
    source_t source = {.keys = keys};
    const char *name;
    json_t *unused;
    snprintf(source.where, sizeof source.where, "reward %s", specs[0]->name);
    out->json = json_loads(specs[0]->options ? specs[0]->options : "{}", 0, NULL);
    if (!json_is_object(out->json))
        return MBL_FAIL(MBL_ERR_CONFIG, "%s: its options are no JSON object", source.where);
    json_object_foreach(out->json, name, unused) if (!key_of(&source, name)) return MBL_FAIL(
        MBL_ERR_CONFIG, "%s: \"%.60s\" is no key of this type", source.where, name);
    source.json = out->json;
    out->client.name = specs[0]->name;
    out->client.optional = true;
    for (size_t i = 0; i < n; i++)
        out->client.optional &= specs[i]->use == MBL_REWARD_MONITOR;
    out->client.seed = (uint64_t)mbl_log_rank(); /* replicas and jitter differ from rank to rank */
    MBL_TRY(read_urls(&source, out));
    MBL_TRY(read_calls(&source, &out->client));
    MBL_TRY(read_server(&source, &out->client.server));
    MBL_TRY(read_judge(&source, out));
    MBL_TRY(read_python(&source, out));
    return read_outputs(&source, specs, n, out);
}

void mbl_remote_parsed_free(mbl_remote_parsed_t *parsed) {
    mbl_free(parsed->urls);
    mbl_free(parsed->outputs);
    mbl_free(parsed->schema);
    json_decref(parsed->json);
    memset(parsed, 0, sizeof *parsed);
}
