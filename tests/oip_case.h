/* Servers of the Open Inference Protocol for its tests: what they say of themselves and of a model. */
#ifndef MBL_TESTS_OIP_CASE_H
#define MBL_TESTS_OIP_CASE_H

#include "proto_case.h"

#define SERVER_BINARY "{\"name\": \"triton\", \"version\": \"2\", \"extensions\": [\"binary_tensor_data\"]}"
#define SERVER_JSON "{\"name\": \"mlserver\", \"version\": \"1\", \"extensions\": []}"
#define LISTS_NOTHING "{\"name\": \"m\", \"inputs\": [], \"outputs\": []}"
#define IMAGES(datatype, shape)                                                                              \
    "{\"name\": \"images\", \"datatype\": \"" datatype "\", \"shape\": [" shape "]}"
#define TENSOR(name, datatype, shape)                                                                        \
    "{\"name\": \"" name "\", \"datatype\": \"" datatype "\", \"shape\": [" shape "]}"
#define MODEL(inputs, outputs) "{\"name\": \"m\", \"inputs\": [" inputs "], \"outputs\": [" outputs "]}"
#define SCORES TENSOR("scores", "FP32", "-1")

static const mbl_proto_options_t oip_options = {.model = "m", .width = 2, .height = 1};

static inline mbl_proto_peer_t *oip_peer(const mbl_proto_options_t *options, const char *server,
                                         const char *model) {
    const char *bodies[] = {server, "", model};
    return peer_of(options, bodies);
}

#endif
