/* marble inspect FILE.h5: attributes, datasets with type, count, norm and range, alpha. */
#include "base/mem.h"
#include "cli/inspect/inspect.h"
#include "io/jsonl.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    double norm, least, most; /* of the finite values */
    size_t nonfinite;
} numbers_t;

static const char *type_name(mbl_dtype_t dtype) {
    return dtype == MBL_F32 ? "f32" : dtype == MBL_F64 ? "f64" : dtype == MBL_I64 ? "i64" : "u8";
}

static double value_at(const void *data, mbl_dtype_t dtype, size_t i) {
    switch (dtype) {
    case MBL_F32:
        return ((const float *)data)[i];
    case MBL_F64:
        return ((const double *)data)[i];
    case MBL_I64:
        return (double)((const int64_t *)data)[i];
    default:
        return ((const uint8_t *)data)[i];
    }
}

static numbers_t look_at(const void *data, mbl_dtype_t dtype, size_t count) {
    numbers_t out = {0, INFINITY, -INFINITY, 0};
    for (size_t i = 0; i < count; i++) {
        double value = value_at(data, dtype, i);
        if (!isfinite(value)) {
            out.nonfinite++;
            continue;
        }
        out.norm += value * value;
        out.least = fmin(out.least, value);
        out.most = fmax(out.most, value);
    }
    out.norm = sqrt(out.norm);
    return out;
}

static mbl_status_t measure(mbl_ckpt_t *ckpt, const mbl_ckpt_item_t *item, numbers_t *out) {
    void *data = mbl_calloc(item->count, 8); /* the largest type */
    if (!data)
        return MBL_FAIL(MBL_ERR_MEM, "no memory for the %zu values of %s", item->count, item->name);
    mbl_status_t status = mbl_ckpt_read(ckpt, item->name, item->dtype, item->count, data);
    if (status == MBL_OK)
        *out = look_at(data, item->dtype, item->count);
    mbl_free(data);
    return status;
}

/* Short values as they are; of long ones how long. */
static void print_attributes(const mbl_ckpt_t *ckpt) {
    mbl_ckpt_attr_t attr;
    for (size_t i = 0; mbl_ckpt_attr_at(ckpt, i, &attr); i++) {
        size_t lines = 1;
        for (const char *c = attr.value; *c; c++)
            lines += *c == '\n' && c[1];
        if (lines > 1)
            printf("  %-24s %zu lines; --attribute %s prints them\n", attr.key, lines, attr.key);
        else if (strlen(attr.value) > 200)
            printf("  %-24s %zu characters; --attribute %s prints them\n", attr.key, strlen(attr.value),
                   attr.key);
        else
            printf("  %-24s %s\n", attr.key, attr.value);
    }
}

static mbl_status_t print_text(mbl_ckpt_t *ckpt, const char *path) {
    mbl_ckpt_item_t item;
    printf("%s: checkpoint, format version %d, every digest verified%s\n\nattributes\n", path,
           MBL_CHECKPOINT_VERSION,
           mbl_ckpt_has_trailer(ckpt) ? "" : "; without its trailer: --repair writes it again");
    print_attributes(ckpt);
    printf("\n%-36s %4s %12s %13s %13s %13s\n", "dataset", "type", "count", "norm", "least", "most");
    for (size_t i = 0; mbl_ckpt_item(ckpt, i, &item); i++) {
        numbers_t numbers;
        MBL_TRY(measure(ckpt, &item, &numbers));
        printf("%-36s %4s %12zu", item.name, type_name(item.dtype), item.count);
        if (item.count > numbers.nonfinite)
            printf(" %13.6g %13.6g %13.6g", numbers.norm, numbers.least, numbers.most);
        if (numbers.nonfinite)
            printf("  %zu not finite", numbers.nonfinite);
        printf("\n");
    }
    return mbl_inspect_alpha(ckpt, path);
}

static json_t *attributes_json(const mbl_ckpt_t *ckpt) {
    mbl_ckpt_attr_t attr;
    json_t *out = json_object();
    for (size_t i = 0; out && mbl_ckpt_attr_at(ckpt, i, &attr); i++)
        if (json_object_set_new(out, attr.key, json_string(attr.value)) != 0) {
            json_decref(out);
            return NULL;
        }
    return out;
}

static mbl_status_t datasets_json(mbl_ckpt_t *ckpt, json_t *list) {
    mbl_ckpt_item_t item;
    for (size_t i = 0; mbl_ckpt_item(ckpt, i, &item); i++) {
        numbers_t numbers;
        MBL_TRY(measure(ckpt, &item, &numbers));
        json_t *entry = json_pack("{s:s, s:s, s:I, s:o, s:o, s:o, s:I}", "name", item.name, "dtype",
                                  type_name(item.dtype), "count", (json_int_t)item.count, "norm",
                                  mbl_jsonl_real(numbers.norm), "min", mbl_jsonl_real(numbers.least), "max",
                                  mbl_jsonl_real(numbers.most), "nonfinite", (json_int_t)numbers.nonfinite);
        if (json_array_append_new(list, entry) != 0)
            return MBL_FAIL(MBL_ERR_MEM, "no memory to describe %s", item.name);
    }
    return MBL_OK;
}

static mbl_status_t print_json(mbl_ckpt_t *ckpt, const char *path) {
    json_t *attributes = attributes_json(ckpt), *list = json_array();
    json_t *root = json_pack("{s:s, s:s, s:i, s:b, s:b, s:o, s:o}", "kind", "checkpoint", "path", path,
                             "version", MBL_CHECKPOINT_VERSION, "verified", 1, "trailer",
                             mbl_ckpt_has_trailer(ckpt), "attributes", attributes, "datasets", list);
    if (!root)
        return MBL_FAIL(MBL_ERR_MEM, "%s: no memory to describe it, or an attribute is not UTF-8", path);
    mbl_status_t status = datasets_json(ckpt, list);
    if (status == MBL_OK)
        status = mbl_inspect_alpha_json(ckpt, path, root);
    char *text = status == MBL_OK ? json_dumps(root, JSON_REAL_PRECISION(9)) : NULL;
    json_decref(root);
    if (status == MBL_OK && !text)
        status = MBL_FAIL(MBL_ERR_MEM, "%s: no memory to describe it", path);
    if (text)
        puts(text);
    free(text);
    return status;
}

static mbl_status_t print_attribute(const mbl_ckpt_t *ckpt, const char *path, const char *key) {
    const char *value = mbl_ckpt_attr(ckpt, key);
    size_t length = value ? strlen(value) : 0;
    if (!value)
        return MBL_FAIL(MBL_ERR_USAGE, "%s: has no attribute %s; marble inspect FILE.h5 lists them", path,
                        key);
    printf("%s%s", value, length && value[length - 1] == '\n' ? "" : "\n");
    return MBL_OK;
}

mbl_status_t mbl_inspect_checkpoint(const char *path, const char *attribute, bool json) {
    mbl_ckpt_t *ckpt;
    MBL_TRY(mbl_ckpt_open(path, &ckpt));
    mbl_status_t status = attribute ? print_attribute(ckpt, path, attribute)
                          : json    ? print_json(ckpt, path)
                                    : print_text(ckpt, path);
    mbl_ckpt_close(ckpt);
    if (status == MBL_OK && (fflush(stdout) != 0 || ferror(stdout)))
        status = MBL_FAIL(MBL_ERR_IO, "inspect: the answer cannot be written: %s", strerror(errno));
    return status;
}
