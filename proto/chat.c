/* Chat completions, as OpenAI's API and vLLM, SGLang and llama.cpp serve them: one image as a data URL and a
 * question, one score. */
#include "proto/chat.h"
#include "base/mem.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { TOKENS_MAX = 1 << 20, QUESTION_MAX = 64 << 10 };

static void chat_close(void *self) {
    chat_t *chat = self;
    mbl_free(chat->model);
    mbl_free(chat->question);
    mbl_free(chat->system);
    mbl_free(chat->field);
    mbl_chat_pattern_close(chat->pattern);
    mbl_proto_text_free(&chat->begin);
    mbl_proto_text_free(&chat->end);
    mbl_free(chat);
}

/* ---- options ---- */

static mbl_status_t check_text(const char *key, const char *text) {
    if (text && (!*text || strlen(text) > QUESTION_MAX || !mbl_proto_is_utf8(text, strlen(text))))
        return MBL_FAIL(MBL_ERR_CONFIG, "%s: empty, over %d bytes, or not UTF-8; expected a text", key,
                        QUESTION_MAX);
    return MBL_OK;
}

static mbl_status_t check_numbers(const mbl_proto_judge_t *judge) {
    if (judge->votes > MBL_PROTO_VOTES_MAX)
        return MBL_FAIL(MBL_ERR_CONFIG, "votes: %zu; expected 1 to %d", judge->votes, MBL_PROTO_VOTES_MAX);
    if (!(judge->temperature >= 0 && judge->temperature <= 2))
        return MBL_FAIL(MBL_ERR_CONFIG, "temperature: %g; expected 0 to 2", judge->temperature);
    if (judge->votes > 1 && judge->temperature == 0)
        return MBL_FAIL(
            MBL_ERR_CONFIG,
            "votes: %zu at temperature 0, where all would be the same; expected votes: 1, or a temperature "
            "above 0",
            judge->votes);
    if (judge->max_tokens > TOKENS_MAX)
        return MBL_FAIL(MBL_ERR_CONFIG, "max_tokens: %zu; expected 1 to %d", judge->max_tokens, TOKENS_MAX);
    if (!isfinite(judge->low) || !isfinite(judge->high) || judge->low > judge->high)
        return MBL_FAIL(MBL_ERR_CONFIG,
                        "low, high: %g, %g; expected the range of the number that the model writes",
                        judge->low, judge->high);
    if (!isfinite(judge->divide) || judge->divide < 0)
        return MBL_FAIL(MBL_ERR_CONFIG, "divide: %g; expected a number above 0", judge->divide);
    return MBL_OK;
}

static mbl_status_t check_judge(const mbl_proto_options_t *options) {
    const mbl_proto_judge_t *judge = &options->judge;
    if (options->n_outputs > 1)
        return MBL_FAIL(MBL_ERR_CONFIG, "outputs: %zu names; expected none: a judge has one score",
                        options->n_outputs);
    if (options->images == MBL_PROTO_IMAGES_RAW)
        return MBL_FAIL(MBL_ERR_CONFIG,
                        "images: raw; expected png or jpeg, which are all that chat completions take");
    if (!judge->question)
        return MBL_FAIL(
            MBL_ERR_CONFIG,
            "question: missing; expected what the model is asked, with {prompt} where the prompt goes");
    if (!judge->pattern == !judge->schema)
        return MBL_FAIL(MBL_ERR_CONFIG, "pattern, schema: %s; expected one of them, to read the answer with",
                        judge->pattern ? "both" : "neither");
    MBL_TRY(check_text("model", options->model));
    MBL_TRY(check_text("question", judge->question));
    MBL_TRY(check_text("system", judge->system));
    MBL_TRY(check_text("pattern", judge->pattern));
    MBL_TRY(check_text("schema", judge->schema));
    MBL_TRY(check_text("field", judge->field));
    return check_numbers(judge);
}

/* A JSON schema whose property `field` is a number. */
static mbl_status_t read_schema(const char *text, const char *field, json_t **out) {
    mbl_proto_error_t error;
    mbl_status_t status = mbl_proto_json_object(text, strlen(text), "it", out, &error);
    if (status == MBL_ERR_REWARD)
        return MBL_FAIL(MBL_ERR_CONFIG, "schema: %s; expected a JSON schema", error.text);
    MBL_TRY(status);
    const char *type = json_string_value(
        json_object_get(json_object_get(json_object_get(*out, "properties"), field), "type"));
    if (type && (strcmp(type, "number") == 0 || strcmp(type, "integer") == 0))
        return MBL_OK;
    status = MBL_FAIL(MBL_ERR_CONFIG,
                      "schema: property \"%.60s\" is of type %.20s; expected number or integer (key field)",
                      field, type ? type : "nothing");
    json_decref(*out);
    *out = NULL;
    return status;
}

static int put_some(const char *bytes, size_t size, void *text) {
    mbl_proto_put(text, bytes, size);
    return 0;
}

/* What follows the messages: how the answer is to be made. */
static mbl_status_t make_end(const mbl_proto_judge_t *judge, chat_t *chat) {
    json_t *schema = NULL, *end = json_pack("{s:f, s:I}", "temperature", judge->temperature, "max_tokens",
                                            (json_int_t)(judge->max_tokens ? judge->max_tokens : 512));
    bool failed = !end || (chat->votes > 1 &&
                           json_object_set_new(end, "n", json_integer((json_int_t)chat->votes)) != 0);
    if (judge->schema) {
        mbl_status_t status = read_schema(judge->schema, chat->field, &schema);
        if (status != MBL_OK) {
            json_decref(end);
            return status;
        }
        json_t *format = json_pack("{s:s, s:{s:s, s:b, s:o}}", "type", "json_schema", "json_schema", "name",
                                   "judgement", "strict", 1, "schema", schema);
        failed = json_object_set_new(end, "response_format", format) != 0 || failed;
    }
    mbl_proto_puts(&chat->end, "}]}]"); /* the text, the content, the message, the messages */
    size_t at = chat->end.size;
    failed = failed || json_dump_callback(end, put_some, &chat->end, JSON_COMPACT) != 0;
    json_decref(end);
    if (failed || chat->end.failed)
        return MBL_FAIL(MBL_ERR_MEM, "no memory for the options of a judge");
    chat->end.data[at] = ','; /* for its { */
    return MBL_OK;
}

static mbl_status_t chat_open(const mbl_proto_options_t *options, mbl_proto_peer_t *peer) {
    const mbl_proto_judge_t *judge = &options->judge;
    MBL_TRY(check_judge(options));
    chat_t *chat;
    MBL_ALLOC(chat, 1);
    peer->self = chat;
    chat->named = options->model != NULL;
    chat->low = judge->low;
    chat->high = judge->high;
    chat->divide = judge->divide > 0 ? judge->divide : 1;
    chat->votes = judge->votes ? judge->votes : 1;
    chat->question = mbl_strdup(judge->question);
    chat->field = mbl_strdup(judge->field ? judge->field : "score");
    chat->system = judge->system ? mbl_strdup(judge->system) : NULL;
    chat->model = options->model ? mbl_strdup(options->model) : NULL;
    if (!chat->question || !chat->field || (judge->system && !chat->system) ||
        (options->model && !chat->model))
        return MBL_FAIL(MBL_ERR_MEM, "no memory for the options of a judge");
    if (judge->pattern)
        MBL_TRY(mbl_chat_pattern_open(judge->pattern, &chat->pattern));
    return make_end(judge, chat);
}

/* ---- what the server says ---- */

static void chat_ask(const mbl_proto_peer_t *peer, size_t q, mbl_proto_text_t *path) {
    (void)peer, (void)q;
    mbl_proto_puts(path, "/models");
}

/* The model that was named, or the only one. */
static mbl_status_t choose_model(chat_t *chat, const json_t *list, mbl_proto_error_t *error) {
    char line[300];
    size_t used = 0, n = json_array_size(list);
    line[0] = 0;
    for (size_t i = 0; i < n; i++) {
        const char *id;
        MBL_TRY(mbl_proto_json_string(json_array_get(list, i), "a model of the list", "id", &id, error));
        if (chat->named && strcmp(id, chat->model) == 0)
            return MBL_OK;
        if (!chat->named && n == 1) {
            mbl_free(chat->model);
            chat->model = mbl_strdup(id);
            return chat->model ? MBL_OK : MBL_FAIL(MBL_ERR_MEM, "no memory for the name of a model");
        }
        if (used + 90 < sizeof line)
            used += (size_t)snprintf(line + used, sizeof line - used, "%s%.80s", i ? ", " : "", id);
    }
    return mbl_proto_fault(error, MBL_PROTO_ERROR_MISMATCH,
                           "the server has the models %s; expected %.80s (key model)", n ? line : "(none)",
                           chat->named ? chat->model : "one of them to be named");
}

static mbl_status_t learn_models(mbl_proto_peer_t *peer, const json_t *json, mbl_proto_error_t *error) {
    chat_t *chat = peer->self;
    const json_t *list;
    MBL_TRY(mbl_proto_json_array(json, "the list of models", "data", 1000, &list, error));
    MBL_TRY(choose_model(chat, list, error));
    mbl_proto_text_clear(&chat->begin);
    mbl_proto_puts(&chat->begin, "{\"model\":");
    mbl_proto_put_quoted(&chat->begin, chat->model, strlen(chat->model));
    mbl_proto_puts(&chat->begin, ",\"messages\":[");
    if (chat->system) {
        mbl_proto_puts(&chat->begin, "{\"role\":\"system\",\"content\":");
        mbl_proto_put_quoted(&chat->begin, chat->system, strlen(chat->system));
        mbl_proto_puts(&chat->begin, "},");
    }
    peer->max_batch = 1;
    peer->images = peer->wanted == MBL_PROTO_IMAGES_AUTO ? MBL_PROTO_IMAGES_PNG : peer->wanted;
    const char *kind = peer->images == MBL_PROTO_IMAGES_PNG ? "png" : "jpeg";
    mbl_proto_puts(
        &chat->begin,
        "{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:image/");
    mbl_proto_putf(&chat->begin, "%s;base64,", kind);
    if (chat->begin.failed)
        return MBL_FAIL(MBL_ERR_MEM, "no memory for the request of a judge");
    char line[MBL_PROTO_DESCRIPTION];
    snprintf(line, sizeof line,
             "chat completions, model %.200s: images %s, one a request, %zu vote%s, read by %s", chat->model,
             kind, chat->votes, chat->votes > 1 ? "s" : "", chat->pattern ? "pattern" : "JSON schema");
    mbl_proto_printable(line, strlen(line), peer->description, sizeof peer->description);
    return MBL_OK;
}

static mbl_status_t chat_learn(mbl_proto_peer_t *peer, size_t q, const mbl_proto_response_t *response,
                               mbl_proto_error_t *error) {
    (void)q;
    json_t *json = NULL;
    MBL_TRY(mbl_proto_json_object(response->body, response->body_bytes, "the list of models", &json, error));
    mbl_status_t status = learn_models(peer, json, error);
    json_decref(json);
    return status;
}

/* ---- the request ---- */

/* The question with {prompt} and {metadata} replaced, once: what they bring is not looked at again. */
static void put_question(const char *question, const char *prompt, const char *metadata,
                         mbl_proto_text_t *out) {
    for (const char *at = question; *at;) {
        size_t plain = strcspn(at, "{");
        mbl_proto_put(out, at, plain);
        at += plain;
        if (strncmp(at, "{prompt}", 8) == 0) {
            mbl_proto_puts(out, prompt);
            at += 8;
        } else if (strncmp(at, "{metadata}", 10) == 0) {
            mbl_proto_puts(out, metadata);
            at += 10;
        } else if (*at) {
            mbl_proto_put(out, at, 1);
            at++;
        }
    }
}

static mbl_status_t chat_request(const mbl_proto_peer_t *peer, const mbl_proto_batch_t *batch,
                                 store_t *store) {
    const chat_t *chat = peer->self;
    const char *metadata = batch->metadata && batch->metadata[0] ? batch->metadata[0] : "{}";
    mbl_proto_text_t *text = &store->text;
    mbl_proto_puts(&store->path, "/chat/completions");
    mbl_proto_add_header(store, "Content-Type", "application/json");
    mbl_proto_text_clear(&store->scratch);
    put_question(chat->question, batch->prompts[0], metadata, &store->scratch);
    mbl_proto_put(text, chat->begin.data, chat->begin.size);
    mbl_proto_put_base64(text, batch->encoded[0].data, batch->encoded[0].bytes);
    mbl_proto_puts(text, "\"}},{\"type\":\"text\",\"text\":");
    if (store->scratch.failed)
        text->failed = true;
    else
        mbl_proto_put_quoted(text, store->scratch.data, store->scratch.size);
    mbl_proto_put(text, chat->end.data, chat->end.size);
    return MBL_OK;
}

const mbl_codec_t mbl_codec_chat = {
    .name = "chat",
    .help = "chat completions as vLLM, SGLang and OpenAI serve them: a vision-language model as a judge",
    .questions = 1,
    .ready_question = SIZE_MAX,
    .absent = "expected a server of chat completions, which answers GET /models: its URL ends in /v1",
    .open = chat_open,
    .close = chat_close,
    .ask = chat_ask,
    .learn = chat_learn,
    .request = chat_request,
    .response = mbl_chat_response,
};
