/* Requests to a run. */
#include "service/request.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* In the order of mbl_control_verb_t. */
static const char *const verbs[] = {"checkpoint", "evaluate", "pause", "resume", "stop", NULL};

const char *const *mbl_request_verbs(void) {
    return verbs;
}

/* The beginning of a text, for a message: printable ASCII alone. */
static const char *shown(const char *text, char out[61]) {
    size_t n = 0;
    for (; text[n] && n < 60; n++)
        out[n] = text[n] >= ' ' && text[n] < 127 ? text[n] : '?';
    out[n] = 0;
    return out;
}

/* "rewards.NAME.min" as "rewards.2.min", any other key as it is; false where there is no such reward or the
 * key is too long. */
static bool resolve(const char *key, const json_t *config, char *out, size_t size) {
    static const char prefix[] = "rewards.";
    const char *name = key + sizeof prefix - 1, *dot = strrchr(key, '.');
    int n;
    if (strncmp(key, prefix, sizeof prefix - 1) != 0 || !dot || dot < name ||
        strspn(name, "0123456789") == (size_t)(dot - name)) {
        n = snprintf(out, size, "%s", key);
        return n >= 0 && (size_t)n < size;
    }
    json_t *item;
    size_t i, length = (size_t)(dot - name);
    json_array_foreach(json_object_get(config, "rewards"), i, item) {
        const char *other = json_string_value(json_object_get(item, "name"));
        if (other && strlen(other) == length && memcmp(other, name, length) == 0) {
            n = snprintf(out, size, "%s%zu%s", prefix, i, dot);
            return n >= 0 && (size_t)n < size;
        }
    }
    return false;
}

/* With the fewest digits that are read as that number again: it stands in logs and answers. */
static void write_real(char *to, const char *key, double value) {
    size_t n = (size_t)snprintf(to, MBL_REQUEST_SET, "%s=", key);
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(to + n, MBL_REQUEST_SET - n, "%.*g", digits, value);
        if (strtod(to + n, NULL) == value)
            return;
    }
}

static bool read_set(json_t *set, const json_t *config, mbl_request_t *out, char *fault) {
    const char *key;
    char name[61], resolved[64];
    json_t *value;
    if (!json_is_object(set) || json_object_size(set) == 0 || json_object_size(set) > MBL_CONTROL_SETS) {
        snprintf(fault, MBL_REQUEST_FAULT, "set: expected an object of 1 to %d settings", MBL_CONTROL_SETS);
        return false;
    }
    json_object_foreach(set, key, value) {
        if (!json_is_number(value) || !isfinite(json_number_value(value))) {
            snprintf(fault, MBL_REQUEST_FAULT, "set: %s: expected a number", shown(key, name));
            return false;
        }
        if (!resolve(key, config, resolved, sizeof resolved)) {
            snprintf(fault, MBL_REQUEST_FAULT, "set: %s: there is no such reward", shown(key, name));
            return false;
        }
        char *to = out->sets[out->n_sets++];
        if (json_is_integer(value))
            snprintf(to, MBL_REQUEST_SET, "%s=%lld", resolved, (long long)json_integer_value(value));
        else
            write_real(to, resolved, json_real_value(value));
    }
    return true;
}

static bool read_verb(const char *key, const json_t *value, mbl_request_t *out, char *fault) {
    char name[61];
    for (size_t i = 0; verbs[i]; i++) {
        if (strcmp(verbs[i], key) != 0)
            continue;
        if (!json_is_boolean(value)) {
            snprintf(fault, MBL_REQUEST_FAULT, "%s: expected true or false", key);
            return false;
        }
        if (json_is_true(value))
            out->verbs[out->n_verbs++] = (mbl_control_verb_t)i;
        return true;
    }
    snprintf(fault, MBL_REQUEST_FAULT,
             "%s: unknown; expected checkpoint, evaluate, pause, resume, stop or set", shown(key, name));
    return false;
}

static bool wants(const mbl_request_t *request, mbl_control_verb_t verb) {
    for (size_t i = 0; i < request->n_verbs; i++)
        if (request->verbs[i] == verb)
            return true;
    return false;
}

static bool read_all(json_t *body, const json_t *config, mbl_request_t *out, char *fault) {
    const char *key;
    json_t *value;
    json_object_foreach(body, key, value) if (strcmp(key, "set") == 0
                                                  ? !read_set(value, config, out, fault)
                                                  : !read_verb(key, value, out, fault)) return false;
    if (out->n_verbs == 0 && out->n_sets == 0)
        snprintf(fault, MBL_REQUEST_FAULT, "nothing is asked; expected {\"checkpoint\": true} or the like");
    else if (wants(out, MBL_CONTROL_PAUSE) && wants(out, MBL_CONTROL_RESUME))
        snprintf(fault, MBL_REQUEST_FAULT, "pause and resume: expected one of them");
    else
        return true;
    return false;
}

bool mbl_request_read(const char *body, size_t size, const json_t *config, mbl_request_t *out,
                      char fault[MBL_REQUEST_FAULT]) {
    json_error_t error;
    char text[61];
    memset(out, 0, sizeof *out);
    json_t *json = json_loadb(body, size, JSON_REJECT_DUPLICATES, &error);
    if (!json_is_object(json)) {
        snprintf(fault, MBL_REQUEST_FAULT, "the body: %s; expected a JSON object",
                 json ? "of another kind" : shown(error.text, text));
        json_decref(json);
        return false;
    }
    bool good = read_all(json, config, out, fault);
    json_decref(json);
    return good;
}

json_t *mbl_request_asked(const mbl_request_t *request) {
    json_t *list = json_array();
    for (size_t i = 0; i < request->n_verbs; i++)
        json_array_append_new(list, json_string(verbs[request->verbs[i]]));
    for (size_t i = 0; i < request->n_sets; i++)
        json_array_append_new(list, json_string(request->sets[i]));
    return json_pack("{s:o}", "asked", list);
}
