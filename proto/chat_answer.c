/* A judge's answers: the number in each, by pattern or from JSON, and their mean. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "base/mem.h"
#include "proto/chat.h"

#include <errno.h>
#include <math.h>
#include <pcre2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* An answer is read this far, with so many steps of matching and so much memory; what takes more counts as no
 * match. */
enum { ANSWER_MAX = 64 << 10, MATCH_STEPS = 200000, MATCH_KIB = 4096 };

struct mbl_chat_pattern {
    pcre2_code *code;
    pcre2_match_context *limits;
};

void mbl_chat_pattern_close(mbl_chat_pattern_t *pattern) {
    if (!pattern)
        return;
    pcre2_match_context_free(pattern->limits);
    pcre2_code_free(pattern->code);
    mbl_free(pattern);
}

mbl_status_t mbl_chat_pattern_open(const char *text, mbl_chat_pattern_t **out) {
    int code;
    PCRE2_SIZE at;
    mbl_chat_pattern_t *pattern;
    MBL_ALLOC(pattern, 1);
    pattern->code = pcre2_compile((PCRE2_SPTR)text, PCRE2_ZERO_TERMINATED,
                                  PCRE2_UTF | PCRE2_NEVER_BACKSLASH_C, &code, &at, NULL);
    if (!pattern->code) {
        char reason[120] = "";
        pcre2_get_error_message(code, (PCRE2_UCHAR *)reason, sizeof reason);
        mbl_chat_pattern_close(pattern);
        return MBL_FAIL(
            MBL_ERR_CONFIG,
            "pattern: %.100s: %s at byte %zu; expected a Perl-compatible pattern with the score in group 1",
            text, reason, (size_t)at);
    }
    uint32_t groups = 0;
    pcre2_pattern_info(pattern->code, PCRE2_INFO_CAPTURECOUNT, &groups);
    pattern->limits = pcre2_match_context_create(NULL);
    if (groups < 1 || !pattern->limits) {
        bool memory = !pattern->limits;
        mbl_chat_pattern_close(pattern);
        return memory ? MBL_FAIL(MBL_ERR_MEM, "no memory for a pattern")
                      : MBL_FAIL(MBL_ERR_CONFIG, "pattern: %.100s: has no group; expected the score in ( )",
                                 text);
    }
    pcre2_set_match_limit(pattern->limits, MATCH_STEPS);
    pcre2_set_heap_limit(pattern->limits, MATCH_KIB);
    *out = pattern;
    return MBL_OK;
}

/* What a vote comes to: a number, or why there is none. */
typedef struct {
    bool found, last; /* last: the number is the last of the answer */
    double value;
    const char *trouble;
    char room[96]; /* for a trouble with numbers in it */
} vote_t;

/* A decimal number and nothing else, blanks around it aside. */
static bool read_number(const char *text, size_t size, double *out) {
    char copy[64], *end;
    if (size == 0 || size >= sizeof copy)
        return false;
    memcpy(copy, text, size);
    copy[size] = 0;
    if (strspn(copy, "0123456789+-.eE \t") != size)
        return false;
    *out = strtod(copy, &end);
    return end != copy && strspn(end, " \t") == strlen(end) && isfinite(*out);
}

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

/* Whether [begin, end) is only a part of a number of the text: the 3 of 37, of 13, of 3.5 or of 1.3. */
static bool is_cut(const char *text, size_t size, size_t begin, size_t end) {
    bool before = begin > 0 && is_digit(text[begin - 1]);
    bool point = begin > 1 && text[begin - 1] == '.' && is_digit(text[begin - 2]);
    bool after = end < size && is_digit(text[end]);
    bool fraction = end + 1 < size && text[end] == '.' && is_digit(text[end + 1]);
    return before || point || after || fraction;
}

static mbl_status_t vote_by_pattern(const mbl_chat_pattern_t *pattern, const char *answer, size_t size,
                                    vote_t *out) {
    *out = (vote_t){.trouble = "the pattern is not in the answer"};
    pcre2_match_data *match = pcre2_match_data_create_from_pattern(pattern->code, NULL);
    if (!match)
        return MBL_FAIL(MBL_ERR_MEM, "no memory to read a judge's answer");
    int groups = pcre2_match(pattern->code, (PCRE2_SPTR)answer, size, 0, 0, match, pattern->limits);
    const PCRE2_SIZE *at = pcre2_get_ovector_pointer(match);
    if (groups >= 2 && at[2] != PCRE2_UNSET && at[3] >= at[2]) {
        bool cut = is_cut(answer, size, at[2], at[3]);
        out->found = !cut && read_number(answer + at[2], at[3] - at[2], &out->value);
        out->last = at[3] == size || (at[3] + 1 == size && answer[at[3]] == '.');
        out->trouble = cut ? "the pattern takes a part of a number" : "what the pattern found is no number";
    } else if (groups == PCRE2_ERROR_MATCHLIMIT || groups == PCRE2_ERROR_HEAPLIMIT ||
               groups == PCRE2_ERROR_DEPTHLIMIT)
        out->trouble = "the pattern takes too long on the answer";
    pcre2_match_data_free(match);
    return groups == PCRE2_ERROR_NOMEMORY ? MBL_FAIL(MBL_ERR_MEM, "no memory to read a judge's answer")
                                          : MBL_OK;
}

static mbl_status_t vote_by_field(const char *field, const char *answer, size_t size, vote_t *out) {
    json_t *json = NULL;
    mbl_proto_error_t ignored;
    *out = (vote_t){.trouble = "the answer is no JSON object"};
    mbl_status_t status = mbl_proto_json_object(answer, size, "the answer", &json, &ignored);
    if (status == MBL_ERR_REWARD)
        return MBL_OK;
    MBL_TRY(status);
    const json_t *value = json_object_get(json, field);
    out->found = json_is_number(value);
    out->value = json_number_value(value);
    out->trouble = "the answer's JSON has no number of that name";
    json_decref(json);
    return MBL_OK;
}

static mbl_status_t read_vote(const chat_t *chat, const json_t *choice, vote_t *out) {
    const json_t *message = json_object_get(choice, "message"),
                 *content = json_object_get(message, "content");
    const char *answer = json_string_value(content);
    size_t size = json_string_length(content);
    *out = (vote_t){.trouble = "the model refuses"};
    if (json_is_string(json_object_get(message, "refusal")))
        return MBL_OK;
    out->trouble = "the answer is empty";
    if (!answer || size == 0)
        return MBL_OK;
    out->trouble = "the answer is too long";
    if (size > ANSWER_MAX)
        return MBL_OK;
    MBL_TRY(chat->pattern ? vote_by_pattern(chat->pattern, answer, size, out)
                          : vote_by_field(chat->field, answer, size, out));
    if (out->found && (chat->low != 0 || chat->high != 0) &&
        !(out->value >= chat->low && out->value <= chat->high)) {
        out->found = false;
        snprintf(out->room, sizeof out->room, "the number %g is out of range; expected %g to %g (key scale)",
                 out->value, chat->low, chat->high);
        out->trouble = out->room;
    }
    const char *end = json_string_value(json_object_get(choice, "finish_reason"));
    if (out->found && out->last && end && strcmp(end, "length") == 0) {
        out->found = false; /* the 4 may be the beginning of 4.5 */
        out->trouble = "the answer was cut at the number (key max_tokens)";
    }
    return MBL_OK;
}

/* The reason of a score: the first answer; of a failed one what is wrong, then the answer. */
static void keep_reason(store_t *result, const json_t *choice, const char *trouble) {
    const json_t *message = json_object_get(choice, "message"),
                 *refusal = json_object_get(message, "refusal");
    const json_t *content = json_is_string(refusal) ? refusal : json_object_get(message, "content");
    char line[MBL_PROTO_REASON_MAX + 8]; /* a character cut in two lies behind what is kept */
    const char *answer = json_is_string(content) ? json_string_value(content) : "";
    int n = trouble ? snprintf(line, sizeof line, "%s: %s", trouble, answer)
                    : snprintf(line, sizeof line, "%s", answer);
    if (n > 0)
        mbl_proto_set_reason(result, 0, 0, line, (size_t)n < sizeof line ? (size_t)n : sizeof line - 1);
}

/* The mean of the votes with a number, which must be more than half of them. */
static mbl_status_t read_votes(const mbl_proto_peer_t *peer, const json_t *json, store_t *result,
                               mbl_proto_error_t *error) {
    const chat_t *chat = peer->self;
    const json_t *choices;
    size_t found = 0, first_bad = 0;
    double sum = 0;
    char trouble[128] = "";
    MBL_TRY(
        mbl_proto_json_array(json, "the response", "choices", MBL_PROTO_OUTPUTS_MAX * 4, &choices, error));
    if (json_array_size(choices) != chat->votes)
        return mbl_proto_fault(error, MBL_PROTO_ERROR_MISMATCH,
                               "the response has %zu choices; expected %zu (key votes)",
                               json_array_size(choices), chat->votes);
    for (size_t i = 0; i < chat->votes; i++) {
        vote_t vote;
        if (!json_is_object(json_object_get(json_array_get(choices, i), "message")))
            return mbl_proto_fault(error, MBL_PROTO_ERROR_MALFORMED,
                                   "choice %zu of the response has no message", i);
        MBL_TRY(read_vote(chat, json_array_get(choices, i), &vote));
        if (vote.found) {
            sum += vote.value;
            found++;
        } else if (!trouble[0]) {
            snprintf(trouble, sizeof trouble, "%s", vote.trouble);
            first_bad = i;
        }
    }
    if (2 * found > chat->votes) {
        mbl_proto_set_score(result, 0, 0, sum / (double)found / chat->divide);
        keep_reason(result, json_array_get(choices, 0), NULL);
    } else
        keep_reason(result, json_array_get(choices, first_bad), trouble);
    return MBL_OK;
}

mbl_status_t mbl_chat_response(const mbl_proto_peer_t *peer, const mbl_proto_response_t *response,
                               store_t *result, mbl_proto_error_t *error) {
    json_t *json = NULL;
    MBL_TRY(mbl_proto_json_object(response->body, response->body_bytes, "the response", &json, error));
    const json_t *failure = json_object_get(json, "error");
    mbl_status_t status;
    if (failure && !json_is_null(failure)) { /* some servers answer so with status 200 */
        char shown[300];
        const json_t *message = json_is_object(failure) ? json_object_get(failure, "message") : failure;
        if (!json_is_string(message))
            mbl_proto_json_show(failure, shown, sizeof shown);
        status = mbl_proto_fault(error, MBL_PROTO_ERROR_SERVER, "%.300s",
                                 json_is_string(message) ? json_string_value(message) : shown);
    } else
        status = read_votes(peer, json, result, error);
    json_decref(json);
    return status;
}
