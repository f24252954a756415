/* Open Inference Protocol: the tensors of a response, in JSON or after it, and the scores in them. */
#include "base/mem.h"
#include "proto/oip.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A tensor of the response. `data` (JSON) or `bytes` [size] (binary); [N] or [N, 1] is checked when it is
 * read. */
typedef struct {
    const char *name, *datatype;
    const json_t *shape, *data;
    const uint8_t *bytes;
    size_t size;
} tensor_t;
typedef struct {
    tensor_t *list; /* [n], freed by mbl_oip_response */
    size_t n;
} tensors_t;

/* ---- the frame ---- */

/* Bytes of the JSON at the beginning of the body: all of it without the header. */
static mbl_status_t json_length(const mbl_proto_response_t *response, size_t *out, mbl_proto_error_t *error) {
    const char *value = mbl_proto_header(response, "inference-header-content-length");
    *out = response->body_bytes;
    if (!value)
        return MBL_OK;
    size_t digits = strspn(value, "0123456789");
    unsigned long long length = digits && digits < 20 && !value[digits] ? strtoull(value, NULL, 10) : 0;
    if (length == 0 || length > response->body_bytes) {
        char shown[40];
        mbl_proto_printable(value, strlen(value), shown, sizeof shown);
        return mbl_proto_fault(error, MBL_PROTO_ERROR_MALFORMED,
                               "Inference-Header-Content-Length is \"%s\" and the body has %zu bytes; "
                               "expected the length of the JSON in it",
                               shown, response->body_bytes);
    }
    *out = (size_t)length;
    return MBL_OK;
}

static mbl_status_t read_tensor(const json_t *json, tensor_t *out, size_t *left, mbl_proto_error_t *error) {
    char what[100], shown[60];
    MBL_TRY(mbl_proto_json_string(json, "an output of the response", "name", &out->name, error));
    snprintf(what, sizeof what, "output %.60s", out->name);
    MBL_TRY(mbl_proto_json_string(json, what, "datatype", &out->datatype, error));
    MBL_TRY(mbl_proto_json_array(json, what, "shape", 8, &out->shape, error));
    const json_t *size = json_object_get(json_object_get(json, "parameters"), "binary_data_size");
    out->data = json_object_get(json, "data");
    out->bytes = NULL;
    out->size = 0;
    if (!size) {
        if (!json_is_array(out->data))
            return mbl_proto_fault(error, MBL_PROTO_ERROR_MALFORMED,
                                   "%s: \"data\" is %s; expected an array, or a binary_data_size", what,
                                   mbl_proto_json_show(out->data, shown, sizeof shown));
        return MBL_OK;
    }
    json_int_t bytes = json_is_integer(size) ? json_integer_value(size) : -1;
    if (bytes < 0 || (unsigned long long)bytes > *left || out->data)
        return mbl_proto_fault(
            error, MBL_PROTO_ERROR_MALFORMED, "%s: binary_data_size is %s%s; %zu bytes are left of the body",
            what, mbl_proto_json_show(size, shown, sizeof shown), out->data ? " beside \"data\"" : "", *left);
    out->size = (size_t)bytes;
    *left -= out->size;
    return MBL_OK;
}

/* All tensors, and for the binary ones where they lie: after the JSON, in their order, to the last byte. */
static mbl_status_t read_tensors(const json_t *json, const uint8_t *binary, size_t size, tensors_t *out,
                                 mbl_proto_error_t *error) {
    const json_t *list;
    const char *message = json_string_value(json_object_get(json, "error"));
    if (message)
        return mbl_proto_fault(error, MBL_PROTO_ERROR_SERVER, "%.300s", message);
    MBL_TRY(mbl_proto_json_array(json, "the response", "outputs", MBL_PROTO_TENSORS_MAX, &list, error));
    size_t left = size;
    out->list = mbl_calloc(json_array_size(list) + 1, sizeof *out->list);
    if (!out->list)
        return MBL_FAIL(MBL_ERR_MEM, "no memory for the response of a reward server");
    out->n = json_array_size(list);
    for (size_t i = 0; i < out->n; i++) {
        size_t before = left;
        tensor_t *tensor = &out->list[i];
        MBL_TRY(read_tensor(json_array_get(list, i), tensor, &left, error));
        if (!tensor->data)
            tensor->bytes = binary + (size - before);
        for (size_t j = 0; j < i; j++)
            if (strcmp(out->list[j].name, tensor->name) == 0)
                return mbl_proto_fault(error, MBL_PROTO_ERROR_MALFORMED,
                                       "the response has output %.60s twice", tensor->name);
    }
    if (left)
        return mbl_proto_fault(error, MBL_PROTO_ERROR_MALFORMED,
                               "%zu bytes of the body belong to no output; expected none", left);
    return MBL_OK;
}

/* ---- elements ---- */

static double half(unsigned bits) {
    int exponent = (int)(bits >> 10 & 31), fraction = (int)(bits & 1023);
    double value = exponent == 31  ? (fraction ? NAN : INFINITY)
                   : exponent == 0 ? ldexp(fraction, -24)
                                   : ldexp(1024 + fraction, exponent - 25);
    return bits & 0x8000 ? -value : value;
}

/* Little-endian, whatever this processor is. */
static double binary_number(const oip_type_t *type, const uint8_t *bytes) {
    uint64_t bits = 0;
    for (size_t i = 0; i < type->size; i++)
        bits |= (uint64_t)bytes[i] << 8 * i;
    if (type->class == OIP_BOOL || type->class == OIP_UNSIGNED)
        return (double)bits;
    if (type->class == OIP_SIGNED) {
        uint64_t sign = UINT64_C(1) << (8 * type->size - 1);
        return bits & sign ? -(double)(sign - (bits & (sign - 1))) : (double)bits;
    }
    if (type->size == 2)
        return half((unsigned)bits);
    if (type->size == 4) {
        float value;
        uint32_t low = (uint32_t)bits;
        memcpy(&value, &low, sizeof value);
        return (double)value;
    }
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Element i of JSON data [n], whose elements may each be an array of one. */
static const json_t *json_element(const json_t *data, size_t i) {
    const json_t *value = json_array_get(data, i);
    return json_is_array(value) && json_array_size(value) == 1 ? json_array_get(value, 0) : value;
}

/* Checks that a tensor is [n] or [n, 1] of its type and holds that many elements. */
static mbl_status_t check_shape(const tensor_t *tensor, size_t n, const oip_type_t **type,
                                mbl_proto_error_t *error) {
    char shown[80];
    const json_t *shape = tensor->shape, *first = json_array_get(shape, 0),
                 *second = json_array_get(shape, 1);
    size_t rank = json_array_size(shape);
    bool fits = (rank == 1 || (rank == 2 && json_is_integer(second) && json_integer_value(second) == 1)) &&
                json_is_integer(first) && json_integer_value(first) == (json_int_t)n;
    if (!fits)
        return mbl_proto_fault(error, MBL_PROTO_ERROR_MISMATCH,
                               "output %.60s has shape %s for %zu images; expected [%zu] or [%zu, 1]",
                               tensor->name, mbl_proto_json_show(shape, shown, sizeof shown), n, n, n);
    *type = mbl_oip_type(tensor->datatype);
    if (!*type)
        return mbl_proto_fault(error, MBL_PROTO_ERROR_MISMATCH,
                               "output %.60s has datatype %.40s, which marble does not know", tensor->name,
                               tensor->datatype);
    if (tensor->data && json_array_size(tensor->data) != n)
        return mbl_proto_fault(
            error, MBL_PROTO_ERROR_MALFORMED, "output %.60s has shape %s and %zu elements; expected %zu",
            tensor->name, mbl_proto_json_show(shape, shown, sizeof shown), json_array_size(tensor->data), n);
    if (tensor->bytes && (*type)->size && tensor->size != n * (*type)->size)
        return mbl_proto_fault(error, MBL_PROTO_ERROR_MALFORMED,
                               "output %.60s is %s %s in %zu bytes; expected %zu", tensor->name,
                               tensor->datatype, mbl_proto_json_show(shape, shown, sizeof shown),
                               tensor->size, n * (*type)->size);
    return MBL_OK;
}

/* A number of a tensor; null is NaN, true and false are 1 and 0 in a BOOL. */
static mbl_status_t number_at(const tensor_t *tensor, const oip_type_t *type, size_t i, double *out,
                              mbl_proto_error_t *error) {
    if (tensor->bytes) {
        *out = binary_number(type, tensor->bytes + i * type->size);
        return MBL_OK;
    }
    const json_t *value = json_element(tensor->data, i);
    char shown[60];
    if (json_is_number(value))
        *out = json_number_value(value);
    else if (json_is_null(value))
        *out = NAN;
    else if (json_is_boolean(value) && type->class == OIP_BOOL)
        *out = json_is_true(value);
    else
        return mbl_proto_fault(error, MBL_PROTO_ERROR_MALFORMED,
                               "output %.60s: element %zu is %s; expected %s", tensor->name, i,
                               mbl_proto_json_show(value, shown, sizeof shown),
                               type->class == OIP_BOOL ? "true or false" : "a number");
    return MBL_OK;
}

/* ---- scores and their companions ---- */

static const tensor_t *find(const tensors_t *tensors, const char *name) {
    for (size_t i = 0; i < tensors->n; i++)
        if (strcmp(tensors->list[i].name, name) == 0)
            return &tensors->list[i];
    return NULL;
}

static const tensor_t *find_companion(const tensors_t *tensors, const char *output, const char *what) {
    char own[OIP_COMPANION];
    const tensor_t *tensor = find(tensors, mbl_oip_companion(output, what, own, sizeof own));
    return tensor ? tensor : find(tensors, what);
}

static mbl_status_t read_scores(const tensor_t *tensor, size_t k, store_t *result, mbl_proto_error_t *error) {
    const oip_type_t *type;
    MBL_TRY(check_shape(tensor, result->n, &type, error));
    if (type->class == OIP_BYTES)
        return mbl_proto_fault(error, MBL_PROTO_ERROR_MISMATCH,
                               "output %.60s has datatype BYTES; expected FP32", tensor->name);
    for (size_t i = 0; i < result->n; i++) {
        double value;
        MBL_TRY(number_at(tensor, type, i, &value, error));
        mbl_proto_set_score(result, k, i, value);
    }
    return MBL_OK;
}

/* Not valid: not applicable, whatever the score beside it. */
static mbl_status_t read_valid(const tensor_t *tensor, size_t k, store_t *result, mbl_proto_error_t *error) {
    const oip_type_t *type;
    MBL_TRY(check_shape(tensor, result->n, &type, error));
    if (type->class != OIP_BOOL && type->class != OIP_UNSIGNED)
        return mbl_proto_fault(error, MBL_PROTO_ERROR_MISMATCH,
                               "output %.60s has datatype %.40s; expected BOOL", tensor->name,
                               tensor->datatype);
    for (size_t i = 0; i < result->n; i++) {
        double value;
        MBL_TRY(number_at(tensor, type, i, &value, error));
        if (value != 0 && value != 1)
            return mbl_proto_fault(error, MBL_PROTO_ERROR_MALFORMED,
                                   "output %.60s: element %zu is %g; expected 0 or 1", tensor->name, i,
                                   value);
        if (value == 0)
            mbl_proto_set_na(result, k, i);
    }
    return MBL_OK;
}

/* One reason of binary BYTES: four bytes of length, then as many. */
static mbl_status_t next_bytes(const tensor_t *tensor, size_t *at, const char **text, size_t *size,
                               mbl_proto_error_t *error) {
    size_t left = tensor->size - *at;
    if (left >= 4) {
        const uint8_t *b = tensor->bytes + *at;
        *size = (size_t)b[0] | (size_t)b[1] << 8 | (size_t)b[2] << 16 | (size_t)b[3] << 24;
        *text = (const char *)b + 4;
        if (*size <= left - 4) {
            *at += 4 + *size;
            return MBL_OK;
        }
    }
    return mbl_proto_fault(error, MBL_PROTO_ERROR_MALFORMED,
                           "output %.60s ends in the middle of an element (%zu bytes left)", tensor->name,
                           left);
}

static mbl_status_t read_reasons(const tensor_t *tensor, size_t k, store_t *result,
                                 mbl_proto_error_t *error) {
    const oip_type_t *type;
    MBL_TRY(check_shape(tensor, result->n, &type, error));
    if (type->class != OIP_BYTES)
        return mbl_proto_fault(error, MBL_PROTO_ERROR_MISMATCH,
                               "output %.60s has datatype %.40s; expected BYTES", tensor->name,
                               tensor->datatype);
    size_t at = 0, size = 0;
    for (size_t i = 0; i < result->n; i++) {
        const char *text = NULL;
        if (tensor->bytes)
            MBL_TRY(next_bytes(tensor, &at, &text, &size, error));
        else {
            const json_t *value = json_element(tensor->data, i);
            text = json_string_value(value);
            size = json_string_length(value);
            if (!text && !json_is_null(value)) {
                char shown[60];
                return mbl_proto_fault(error, MBL_PROTO_ERROR_MALFORMED,
                                       "output %.60s: element %zu is %s; expected a string", tensor->name, i,
                                       mbl_proto_json_show(value, shown, sizeof shown));
            }
        }
        if (text)
            mbl_proto_set_reason(result, k, i, text, size);
    }
    if (at != tensor->size)
        return mbl_proto_fault(error, MBL_PROTO_ERROR_MALFORMED,
                               "output %.60s has %zu bytes after its last element; expected none",
                               tensor->name, tensor->size - at);
    return MBL_OK;
}

static mbl_status_t no_output(const tensors_t *tensors, const char *name, mbl_proto_error_t *error) {
    char line[300];
    size_t used = 0;
    line[0] = 0;
    for (size_t i = 0; i < tensors->n && used + 64 < sizeof line; i++)
        used += (size_t)snprintf(line + used, sizeof line - used, "%s%.50s", i ? ", " : "",
                                 tensors->list[i].name);
    return mbl_proto_fault(error, MBL_PROTO_ERROR_MISMATCH,
                           "the response has %s; expected an output called %.60s (key output)",
                           tensors->n ? line : "no outputs", name);
}

static mbl_status_t read_result(const mbl_proto_peer_t *peer, const tensors_t *tensors, store_t *result,
                                mbl_proto_error_t *error) {
    for (size_t k = 0; k < peer->n_outputs; k++) {
        const tensor_t *scores = find(tensors, peer->outputs[k]);
        if (!scores)
            return no_output(tensors, peer->outputs[k], error);
        MBL_TRY(read_scores(scores, k, result, error));
        const tensor_t *valid = find_companion(tensors, peer->outputs[k], "valid");
        if (valid)
            MBL_TRY(read_valid(valid, k, result, error));
        const tensor_t *reason = find_companion(tensors, peer->outputs[k], "reason");
        if (reason)
            MBL_TRY(read_reasons(reason, k, result, error));
    }
    return MBL_OK;
}

mbl_status_t mbl_oip_response(const mbl_proto_peer_t *peer, const mbl_proto_response_t *response,
                              store_t *result, mbl_proto_error_t *error) {
    size_t length;
    json_t *json = NULL;
    tensors_t tensors = {.n = 0};
    MBL_TRY(json_length(response, &length, error));
    MBL_TRY(mbl_proto_json_object(response->body, length, "the response", &json, error));
    mbl_status_t status = read_tensors(json, (const uint8_t *)response->body + length,
                                       response->body_bytes - length, &tensors, error);
    if (status == MBL_OK)
        status = read_result(peer, &tensors, result, error);
    mbl_free(tensors.list);
    json_decref(json);
    return status;
}
