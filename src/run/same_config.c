/* Comparing the ranks' configurations. */
#include "run/same_config.h"

#include "base/json.h"
#include "base/mem.h"
#include "config/table.h"

#include <stdlib.h>
#include <string.h>

static bool is_free(const mbl_field_t *field) {
    static const char *const keys[] = {"device", "threads", "cuda.", "limits.", "log.", "service."};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (strncmp(field->key, keys[i], strlen(keys[i])) == 0)
            return true;
    return field->kind >= MBL_FIELD_FOLDER && field->kind <= MBL_FIELD_PLACE;
}

/* Rewards without the texts in their options, which may be addresses and paths. */
static void drop_texts(json_t *rewards) {
    for (size_t i = 0; i < json_array_size(rewards); i++) {
        json_t *options = json_object_get(json_array_get(rewards, i), "options"), *value;
        const char *key;
        void *next;
        json_object_foreach_safe(options, next, key, value) {
            if (json_is_string(value))
                json_object_del(options, key);
        }
    }
}

/* The values that have to agree, by key. Release with json_decref. */
static mbl_status_t collect(const mbl_config_t *config, json_t **out) {
    char *text;
    size_t n;
    const mbl_field_t *fields = mbl_config_fields(&n);
    MBL_TRY(mbl_config_json(config, &text));
    json_t *all = json_loads(text, 0, NULL), *found = json_object();
    bool good = all && found;
    mbl_free(text);
    for (size_t i = 0; i < n && good; i++) {
        json_t *value = is_free(&fields[i]) ? NULL : json_deep_copy(mbl_json_at(all, fields[i].key));
        if (fields[i].kind == MBL_FIELD_REWARDS)
            drop_texts(value);
        good = !value || json_object_set_new(found, fields[i].key, value) == 0;
    }
    json_decref(all);
    *out = found;
    if (good)
        return MBL_OK;
    json_decref(found);
    *out = NULL;
    return MBL_FAIL(MBL_ERR_MEM, "no memory to compare configurations");
}

/* The text of rank 0's values on every rank. Free with mbl_free. Collective. */
static mbl_status_t share(mbl_comm_t *comm, const json_t *mine, char **out) {
    char *own = json_dumps(mine, JSON_COMPACT), *text = NULL;
    uint64_t size = own ? strlen(own) + 1 : 0;
    mbl_status_t status = own ? MBL_OK : MBL_FAIL(MBL_ERR_MEM, "no memory to compare configurations");
    status = mbl_comm_agree(comm, status);
    if (status == MBL_OK)
        status = mbl_comm_bcast(comm, &size, sizeof size, 0);
    if (status == MBL_OK) {
        text = mbl_calloc((size_t)size, 1);
        status = text ? MBL_OK : MBL_FAIL(MBL_ERR_MEM, "no memory to compare configurations");
        status = mbl_comm_agree(comm, status);
    }
    if (status == MBL_OK && comm->rank == 0)
        memcpy(text, own, (size_t)size);
    if (status == MBL_OK)
        status = mbl_comm_bcast(comm, text, (size_t)size, 0);
    free(own);
    *out = text;
    return status;
}

static mbl_status_t compare(const json_t *mine, const char *text, const char *name, int rank) {
    char here[200], there[200];
    const char *key;
    json_t *value, *first = json_loads(text, 0, NULL);
    mbl_status_t status = first ? MBL_OK : MBL_FAIL(MBL_ERR_MEM, "no memory to compare configurations");
    json_object_foreach((json_t *)(uintptr_t)mine, key, value) {
        const json_t *other = json_object_get(first, key);
        if (status == MBL_OK && !json_equal(value, other))
            status = MBL_FAIL(MBL_ERR_CONFIG,
                              "%s: %s is %s on rank %d and %s on rank 0; expected one configuration on every "
                              "rank",
                              name, key, mbl_json_shown(value, here), rank, mbl_json_shown(other, there));
    }
    json_decref(first);
    return status;
}

mbl_status_t mbl_same_config(mbl_comm_t *comm, const mbl_config_t *config, const char *name) {
    json_t *mine = NULL;
    char *text = NULL;
    if (comm->size == 1)
        return MBL_OK;
    mbl_status_t status = mbl_comm_agree(comm, collect(config, &mine));
    if (status == MBL_OK)
        status = share(comm, mine, &text);
    if (status == MBL_OK)
        status = mbl_comm_agree(comm, compare(mine, text, name, comm->rank));
    mbl_free(text);
    json_decref(mine);
    return status;
}
