/* Requests: memory that is kept, pieces of a body, the checks of a batch. */
#include "base/mem.h"
#include "proto/peer.h"

#include <stdio.h>
#include <string.h>

store_t *mbl_proto_store_of(store_t **slot) {
    if (!*slot)
        *slot = mbl_calloc(1, sizeof **slot);
    if (*slot) {
        store_t *store = *slot;
        mbl_proto_text_clear(&store->text);
        mbl_proto_text_clear(&store->path);
        store->n_pieces = store->n_headers = store->text_in_pieces = 0;
        store->failed = false;
    }
    return *slot;
}

void mbl_proto_store_free(store_t *store) {
    if (!store)
        return;
    mbl_proto_text_free(&store->text);
    mbl_proto_text_free(&store->path);
    mbl_proto_text_free(&store->scratch);
    mbl_free(store->pieces);
    mbl_free(store->scores);
    mbl_free(store->states);
    mbl_free((void *)store->reasons);
    mbl_free(store->reason_at);
    mbl_free(store);
}

void mbl_proto_request_free(mbl_proto_request_t *request) {
    mbl_proto_store_free(request->store);
    *request = (mbl_proto_request_t){0};
}

void mbl_proto_add_header(store_t *store, const char *name, const char *value) {
    if (store->n_headers == MBL_PROTO_REQUEST_HEADERS)
        store->failed = true;
    else
        store->headers[store->n_headers++] = (mbl_proto_header_t){name, value};
}

static void add_piece(store_t *store, const void *data, size_t bytes) {
    if (store->n_pieces == store->pieces_room) {
        size_t room = store->pieces_room ? 2 * store->pieces_room : 16;
        mbl_proto_piece_t *pieces = mbl_realloc(store->pieces, store->pieces_room, room, sizeof *pieces);
        if (!pieces) {
            store->failed = true;
            return;
        }
        store->pieces = pieces;
        store->pieces_room = room;
    }
    store->pieces[store->n_pieces++] = (mbl_proto_piece_t){data, bytes};
}

void mbl_proto_add_text(store_t *store) {
    if (store->text.size > store->text_in_pieces)
        add_piece(store, NULL, store->text.size - store->text_in_pieces);
    store->text_in_pieces = store->text.size;
}

void mbl_proto_add_bytes(store_t *store, const void *data, size_t bytes) {
    mbl_proto_piece_t *last = store->n_pieces ? &store->pieces[store->n_pieces - 1] : NULL;
    if (last && last->data && (const char *)last->data + last->bytes == data)
        last->bytes += bytes;
    else if (bytes)
        add_piece(store, data, bytes);
}

void mbl_proto_put_path(mbl_proto_text_t *path, const char *text) {
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || strchr("-._~", c))
            mbl_proto_put(path, text, 1);
        else
            mbl_proto_putf(path, "%%%02X", c);
    }
}

/* Gives the request what its store holds. */
static mbl_status_t finish_request(mbl_proto_request_t *request, const char *method) {
    store_t *store = request->store;
    mbl_proto_add_text(store);
    mbl_proto_put(&store->path, "", 1);
    if (store->failed || store->text.failed || store->path.failed)
        return MBL_FAIL(MBL_ERR_MEM, "no memory for a request to a reward server");
    size_t at = 0, total = 0;
    for (size_t i = 0; i < store->n_pieces; i++) {
        mbl_proto_piece_t *piece = &store->pieces[i];
        if (!piece->data) {
            piece->data = store->text.data + at;
            at += piece->bytes;
        }
        total += piece->bytes;
    }
    request->method = method;
    request->path = store->path.data;
    request->headers = store->headers;
    request->n_headers = store->n_headers;
    request->pieces = store->pieces;
    request->n_pieces = store->n_pieces;
    request->body_bytes = total;
    return MBL_OK;
}

mbl_status_t mbl_proto_ask(const mbl_proto_peer_t *peer, size_t q, mbl_proto_request_t *request) {
    MBL_REQUIRE(peer && request && q < peer->codec->questions,
                "mbl_proto_ask: question %zu of a peer that has %zu", q, peer ? peer->codec->questions : 0);
    if (!mbl_proto_store_of(&request->store))
        return MBL_FAIL(MBL_ERR_MEM, "no memory for a request to a reward server");
    peer->codec->ask(peer, q, &request->store->path);
    mbl_proto_add_header(request->store, "Accept", "application/json");
    return finish_request(request, "GET");
}

/* The images of a batch, in the form the peer wants, and their size together. */
static mbl_status_t check_images(const mbl_proto_peer_t *peer, const mbl_proto_batch_t *batch) {
    size_t bytes = 0, one;
    bool raw = peer->images == MBL_PROTO_IMAGES_RAW;
    MBL_REQUIRE(raw ? batch->rgb != NULL : batch->encoded != NULL,
                "mbl_proto_request: no images; this server takes %s", raw ? "pixels" : "files");
    MBL_REQUIRE(!raw || (batch->width && batch->height && mbl_mul(batch->width, batch->height, &one) &&
                         mbl_mul(one, 3, &one)),
                "mbl_proto_request: images of %zu x %zu pixels", batch->width, batch->height);
    for (size_t i = 0; i < batch->n; i++) {
        MBL_REQUIRE(raw ? batch->rgb[i] != NULL : batch->encoded[i].data && batch->encoded[i].bytes,
                    "mbl_proto_request: image %zu of %zu is missing", i, batch->n);
        MBL_REQUIRE(mbl_add(bytes, raw ? one : batch->encoded[i].bytes, &bytes) &&
                        bytes <= MBL_PROTO_IMAGES_BYTES_MAX,
                    "mbl_proto_request: %zu images have more than %d bytes; expected a smaller batch",
                    batch->n, MBL_PROTO_IMAGES_BYTES_MAX);
    }
    return MBL_OK;
}

static mbl_status_t check_batch(const mbl_proto_peer_t *peer, const mbl_proto_batch_t *batch) {
    MBL_REQUIRE(peer->learned == peer->codec->questions,
                "mbl_proto_request: the server has answered %zu of %zu questions", peer->learned,
                peer->codec->questions);
    MBL_REQUIRE(batch->n >= 1 && batch->n <= peer->max_batch,
                "mbl_proto_request: %zu images; this server takes 1 to %zu", batch->n, peer->max_batch);
    MBL_REQUIRE(batch->prompts, "mbl_proto_request: no prompts");
    for (size_t i = 0; i < batch->n; i++) {
        const char *prompt = batch->prompts[i], *metadata = batch->metadata ? batch->metadata[i] : NULL;
        size_t n = prompt ? strlen(prompt) : 0, m = metadata ? strlen(metadata) : 0;
        MBL_REQUIRE(prompt && n <= MBL_PROTO_TEXT_MAX && mbl_proto_is_utf8(prompt, n),
                    "mbl_proto_request: prompt %zu of %zu is missing, over %d bytes, or not UTF-8", i,
                    batch->n, MBL_PROTO_TEXT_MAX);
        MBL_REQUIRE(m <= MBL_PROTO_TEXT_MAX && (!metadata || mbl_proto_is_utf8(metadata, m)),
                    "mbl_proto_request: metadata %zu of %zu is over %d bytes or not UTF-8", i, batch->n,
                    MBL_PROTO_TEXT_MAX);
    }
    return check_images(peer, batch);
}

mbl_status_t mbl_proto_request(const mbl_proto_peer_t *peer, const mbl_proto_batch_t *batch,
                               mbl_proto_request_t *request) {
    MBL_REQUIRE(peer && batch && request, "mbl_proto_request: no peer, batch or request");
    MBL_TRY(check_batch(peer, batch));
    if (!mbl_proto_store_of(&request->store))
        return MBL_FAIL(MBL_ERR_MEM, "no memory for a request to a reward server");
    MBL_TRY(peer->codec->request(peer, batch, request->store));
    return finish_request(request, "POST");
}
