/* Which prompts a reward applies to. */
#include "reward/applies.h"

#include "base/mem.h"
#include "data/quotes.h"

#include <jansson.h>
#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <uv.h>

enum { MATCH_STEPS = 200000, MATCH_KIB = 4096, MOST_KEY = 64 };

typedef enum { ALL, QUOTED, METADATA, PATTERN } kind_t;

struct mbl_applies {
    kind_t kind;
    char *key;
    pcre2_code *code;
    pcre2_match_context *limits;
    pcre2_match_data *data; /* of one match at a time: */
    uv_mutex_t lock;
    bool locked;
};

static mbl_status_t compile(const char *pattern, mbl_applies_t *a) {
    char why[160] = "";
    int error;
    PCRE2_SIZE at;
    a->code = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED,
                            PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &at, NULL);
    if (!a->code) {
        pcre2_get_error_message(error, (PCRE2_UCHAR *)why, sizeof why);
        return MBL_FAIL(MBL_ERR_CONFIG,
                        "the pattern does not compile, at letter %zu: %s; expected a regular "
                        "expression of PCRE2, such as regex:\\b(two|three)\\b",
                        (size_t)at + 1, why);
    }
    a->limits = pcre2_match_context_create(NULL);
    a->data = pcre2_match_data_create(1, NULL);
    a->locked = uv_mutex_init(&a->lock) == 0;
    if (!a->limits || !a->data || !a->locked)
        return MBL_FAIL(MBL_ERR_MEM, "no memory for a pattern");
    pcre2_set_match_limit(a->limits, MATCH_STEPS);
    pcre2_set_heap_limit(a->limits, MATCH_KIB);
    return MBL_OK;
}

static mbl_status_t read_text(const char *text, mbl_applies_t *a) {
    static const char metadata[] = "metadata.", pattern[] = "regex:";
    if (strcmp(text, "all") == 0 || strcmp(text, "quoted") == 0) {
        a->kind = text[0] == 'a' ? ALL : QUOTED;
        return MBL_OK;
    }
    if (strncmp(text, metadata, strlen(metadata)) == 0 && text[strlen(metadata)] &&
        strlen(text) <= strlen(metadata) + MOST_KEY) {
        a->kind = METADATA;
        a->key = mbl_strdup(text + strlen(metadata));
        return a->key ? MBL_OK : MBL_FAIL(MBL_ERR_MEM, "no memory for a key");
    }
    if (strncmp(text, pattern, strlen(pattern)) == 0 && text[strlen(pattern)]) {
        a->kind = PATTERN;
        return compile(text + strlen(pattern), a);
    }
    return MBL_FAIL(MBL_ERR_CONFIG, "expected all, quoted, metadata.KEY or regex:PATTERN");
}

mbl_status_t mbl_applies_open(const char *text, mbl_applies_t **out) {
    mbl_applies_t *a;
    MBL_ALLOC(a, 1);
    mbl_fail_quiet(1);
    mbl_status_t status = read_text(text, a);
    mbl_fail_quiet(0);
    if (status != MBL_OK) {
        mbl_applies_close(a);
        return status;
    }
    *out = a;
    return MBL_OK;
}

void mbl_applies_close(mbl_applies_t *a) {
    if (!a)
        return;
    pcre2_match_data_free(a->data);
    pcre2_match_context_free(a->limits);
    pcre2_code_free(a->code);
    if (a->locked)
        uv_mutex_destroy(&a->lock);
    mbl_free(a->key);
    mbl_free(a);
}

const char *mbl_applies_key(const mbl_applies_t *a) {
    return a ? a->key : NULL;
}

/* Whether the metadata has a key with anything but null and false. */
static bool has_key(const mbl_prompt_t *prompt, const char *key) {
    json_t *metadata = prompt->metadata ? json_loads(prompt->metadata, 0, NULL) : NULL;
    const json_t *value = json_object_get(metadata, key);
    bool has = value && !json_is_null(value) && !json_is_false(value);
    json_decref(metadata);
    return has;
}

static bool matches(const mbl_applies_t *a, const char *text) {
    uv_mutex_t *lock = (uv_mutex_t *)(uintptr_t)&a->lock;
    uv_mutex_lock(lock);
    int found = pcre2_match(a->code, (PCRE2_SPTR)text, PCRE2_ZERO_TERMINATED, 0, 0, a->data, a->limits);
    uv_mutex_unlock(lock);
    return found >= 0;
}

bool mbl_applies_to(const mbl_applies_t *a, const mbl_prompt_t *prompt) {
    if (!a || a->kind == ALL)
        return true;
    if (a->kind == QUOTED)
        return mbl_quotes_in(prompt->text) == MBL_QUOTES_STRAIGHT;
    return a->kind == METADATA ? has_key(prompt, a->key) : matches(a, prompt->text);
}
