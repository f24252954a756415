/* marble inspect --diff A.h5 B.h5: what two checkpoints differ in. */
#include "base/mem.h"
#include "cli/inspect/inspect.h"
#include "io/checkpoint.h"
#include "io/jsonl.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    bool equal;              /* to the bit */
    double relative, widest; /* |a - b| / |b|, and the largest |a_i - b_i| */
} change_t;

static double value_at(const void *data, mbl_dtype_t dtype, size_t i) {
    return dtype == MBL_F32   ? (double)((const float *)data)[i]
           : dtype == MBL_F64 ? ((const double *)data)[i]
           : dtype == MBL_I64 ? (double)((const int64_t *)data)[i]
                              : (double)((const uint8_t *)data)[i];
}

static change_t compare_data(const void *a, const void *b, mbl_dtype_t dtype, size_t count) {
    change_t out = {.equal = memcmp(a, b, count * mbl_dtype_size(dtype)) == 0};
    double square = 0, norm = 0;
    for (size_t i = 0; i < count && !out.equal; i++) {
        double x = value_at(a, dtype, i), y = value_at(b, dtype, i);
        square += (x - y) * (x - y);
        norm += y * y;
        out.widest = fmax(out.widest, fabs(x - y));
    }
    out.relative = square > 0 ? sqrt(square / norm) : square; /* infinite where b is zero, NaN stays */
    return out;
}

static mbl_status_t compare_dataset(mbl_ckpt_t *const ckpt[2], const mbl_ckpt_item_t *item, change_t *out) {
    void *data[2] = {mbl_calloc(item->count + 1, 8), mbl_calloc(item->count + 1, 8)};
    mbl_status_t status = MBL_OK;
    if (!data[0] || !data[1])
        status = MBL_FAIL(MBL_ERR_MEM, "no memory for the %zu values of %s", item->count, item->name);
    for (int i = 0; i < 2 && status == MBL_OK; i++)
        status = mbl_ckpt_read(ckpt[i], item->name, item->dtype, item->count, data[i]);
    if (status == MBL_OK)
        *out = compare_data(data[0], data[1], item->dtype, item->count);
    mbl_free(data[0]);
    mbl_free(data[1]);
    return status;
}

static bool find_item(const mbl_ckpt_t *ckpt, const char *name, mbl_ckpt_item_t *out) {
    for (size_t i = 0; mbl_ckpt_item(ckpt, i, out); i++)
        if (strcmp(out->name, name) == 0)
            return true;
    return false;
}

static void add(json_t *list, json_t *entry) {
    json_array_append_new(list, entry); /* without memory the entry is missing and the dump fails too */
}

/* {"name", "only": "a"|"b"}, {"name", "shape": true} or {"name", "relative", "widest"} for what differs. */
static mbl_status_t diff_datasets(mbl_ckpt_t *const ckpt[2], json_t *list, size_t *same) {
    mbl_ckpt_item_t item, other;
    for (size_t i = 0; mbl_ckpt_item(ckpt[0], i, &item); i++) {
        change_t change;
        if (!find_item(ckpt[1], item.name, &other)) {
            add(list, json_pack("{s:s, s:s}", "name", item.name, "only", "a"));
        } else if (other.dtype != item.dtype || other.count != item.count) {
            add(list, json_pack("{s:s, s:[I, I]}", "name", item.name, "counts", (json_int_t)item.count,
                                (json_int_t)other.count));
        } else {
            MBL_TRY(compare_dataset(ckpt, &item, &change));
            *same += change.equal;
            if (!change.equal)
                add(list,
                    json_pack("{s:s, s:o, s:o}", "name", item.name, "relative",
                              mbl_jsonl_real(change.relative), "widest", mbl_jsonl_real(change.widest)));
        }
    }
    for (size_t i = 0; mbl_ckpt_item(ckpt[1], i, &item); i++)
        if (!find_item(ckpt[0], item.name, &other))
            add(list, json_pack("{s:s, s:s}", "name", item.name, "only", "b"));
    return MBL_OK;
}

/* Values that differ under `path`, as {"key", "a", "b"}; objects are walked, null stands for a missing one.
 */
static void diff_json(const char *path, const json_t *a, const json_t *b, json_t *list) {
    const char *key;
    json_t *value;
    if (a && b && json_equal(a, b))
        return;
    if (!json_is_object(a) || !json_is_object(b)) {
        add(list, json_pack("{s:s, s:O?, s:O?}", "key", path, "a", a, "b", b));
        return;
    }
    for (int side = 0; side < 2; side++)
        json_object_foreach((json_t *)(uintptr_t)(side ? b : a), key, value) {
            char below[256];
            const json_t *other = json_object_get(side ? a : b, key);
            snprintf(below, sizeof below, "%.150s%s%.100s", path, *path ? "." : "", key);
            if (!side)
                diff_json(below, value, other, list);
            else if (!other)
                diff_json(below, NULL, value, list);
        }
}

/* A checkpoint's attributes, the configuration as an object. */
static json_t *attributes(const mbl_ckpt_t *ckpt) {
    mbl_ckpt_attr_t attr;
    json_t *out = json_object();
    for (size_t i = 0; mbl_ckpt_attr_at(ckpt, i, &attr); i++) {
        json_t *value = strcmp(attr.key, "config") == 0 ? json_loads(attr.value, 0, NULL) : NULL;
        json_object_set_new(out, attr.key, value ? value : json_string(attr.value));
    }
    return out;
}

static void print_text(const char *const path[2], const json_t *keys, const json_t *sets, size_t same) {
    size_t i;
    json_t *entry;
    printf("a %s\nb %s\nevery digest verified; %zu dataset%s equal to the bit\n", path[0], path[1], same,
           same == 1 ? "" : "s");
    json_array_foreach(keys, i, entry) {
        char *a =
            json_dumps(json_object_get(entry, "a"), JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(9));
        char *b =
            json_dumps(json_object_get(entry, "b"), JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(9));
        printf("%s  %-36s %s -> %s\n", i ? "" : "\nattributes\n",
               json_string_value(json_object_get(entry, "key")), a ? a : "?", b ? b : "?");
        free(a);
        free(b);
    }
    json_array_foreach(sets, i, entry) {
        const char *only = json_string_value(json_object_get(entry, "only"));
        const json_t *counts = json_object_get(entry, "counts");
        printf("%s  %-36s ", i ? "" : "\ndatasets\n", json_string_value(json_object_get(entry, "name")));
        if (only)
            printf("only in %s\n", only);
        else if (counts)
            printf("%lld numbers -> %lld\n", (long long)json_integer_value(json_array_get(counts, 0)),
                   (long long)json_integer_value(json_array_get(counts, 1)));
        else
            printf("|a - b| / |b| %.3g, largest difference %.3g\n",
                   json_number_value(json_object_get(entry, "relative")),
                   json_number_value(json_object_get(entry, "widest")));
    }
}

static mbl_status_t diff(mbl_ckpt_t *const ckpt[2], const char *const path[2], bool json) {
    json_t *one = attributes(ckpt[0]), *two = attributes(ckpt[1]), *keys = json_array(), *sets = json_array();
    size_t same = 0;
    diff_json("", one, two, keys);
    json_decref(one);
    json_decref(two);
    mbl_status_t status = diff_datasets(ckpt, sets, &same);
    if (status == MBL_OK && !json)
        print_text(path, keys, sets, same);
    json_t *root = json_pack("{s:s, s:s, s:s, s:I, s:o, s:o}", "kind", "diff", "a", path[0], "b", path[1],
                             "equal", (json_int_t)same, "attributes", keys, "datasets", sets);
    char *text = root && json ? json_dumps(root, JSON_REAL_PRECISION(9)) : NULL;
    json_decref(root);
    if (status == MBL_OK && json && !text)
        status = MBL_FAIL(MBL_ERR_MEM, "no memory for the differences of %s and %s", path[0], path[1]);
    if (status == MBL_OK && text)
        puts(text);
    free(text);
    return status;
}

mbl_status_t mbl_inspect_diff(const char *a, const char *b, bool json) {
    const char *const path[2] = {a, b};
    mbl_ckpt_t *ckpt[2] = {NULL, NULL};
    mbl_status_t status = mbl_ckpt_open(a, &ckpt[0]);
    if (status == MBL_OK)
        status = mbl_ckpt_open(b, &ckpt[1]);
    if (status == MBL_OK)
        status = diff(ckpt, path, json);
    mbl_ckpt_close(ckpt[0]);
    mbl_ckpt_close(ckpt[1]);
    return status;
}
