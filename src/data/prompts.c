/* Prompt sets: sentences of the signs world, split into train and test, or a file's. */
#include "data/prompts.h"
#include "data/prompts_file.h"
#include "data/signs/signs.h"
#include "base/mem.h"

#include <string.h>

enum { KINDS = 3 };

/* The scenes of one split and kind, in the order they are given out. */
typedef struct {
    size_t *scene; /* [count], index of mbl_signs_scene_at */
    size_t count, given;
} pile_t;

void mbl_prompts_free(mbl_prompts_t *prompts) {
    for (size_t i = 0; i < prompts->count; i++) {
        mbl_free(prompts->items[i].text);
        mbl_free(prompts->items[i].metadata);
    }
    for (size_t s = 0; s < prompts->n_sources; s++)
        mbl_free(prompts->sources[s].name);
    mbl_free(prompts->sources);
    mbl_free(prompts->source);
    mbl_free(prompts->items);
    *prompts = (mbl_prompts_t){.items = NULL};
}

/* Streams apart from those of the training images, which use small steps. */
static mbl_rng_t pile_rng(uint64_t seed, int split, int kind) {
    return mbl_rng(seed, MBL_RNG_WORLD, 0xFFFF0000u + (uint32_t)split, (uint64_t)kind);
}

static mbl_status_t fill_pile(int kind, uint64_t seed, int split, pile_t *pile) {
    mbl_signs_scene_t scene;
    size_t all = 0;
    while (mbl_signs_scene_at(all, &scene))
        all++;
    MBL_ALLOC(pile->scene, all);
    for (size_t i = 0; i < all; i++) {
        mbl_signs_scene_at(i, &scene);
        if ((int)scene.kind == kind && mbl_signs_held_out(&scene) == (split == 1))
            pile->scene[pile->count++] = i;
    }
    mbl_rng_t rng = pile_rng(seed, split, kind);
    for (size_t i = pile->count; i > 1; i--) { /* Fisher-Yates */
        size_t j = mbl_rng_below(&rng, (uint32_t)i), swap = pile->scene[i - 1];
        pile->scene[i - 1] = pile->scene[j];
        pile->scene[j] = swap;
    }
    return MBL_OK;
}

/* The next scene: two texts, a count and a horizon in turn; when a pile has run out, from the largest left.
 */
static size_t next_scene(pile_t piles[KINDS], size_t turn) {
    static const int order[4] = {MBL_SIGNS_TEXT, MBL_SIGNS_COUNT, MBL_SIGNS_TEXT, MBL_SIGNS_HORIZON};
    pile_t *pile = &piles[order[turn % 4]];
    for (int k = 0; k < KINDS && pile->given == pile->count; k++)
        if (piles[k].given < piles[k].count)
            pile = &piles[k];
    return pile->scene[pile->given++];
}

static mbl_status_t take_signs(pile_t piles[KINDS], size_t count, mbl_prompts_t *list) {
    MBL_ALLOC(list->items, count);
    while (list->count < count) {
        mbl_signs_scene_t scene;
        char sentence[64];
        mbl_signs_scene_at(next_scene(piles, list->count), &scene);
        mbl_signs_sentence(&scene, sentence);
        list->items[list->count].text = mbl_strdup(sentence);
        if (!list->items[list->count].text)
            return MBL_FAIL(MBL_ERR_MEM, "no memory for prompt %zu", list->count);
        list->count++;
    }
    return MBL_OK;
}

static mbl_status_t load_signs(uint64_t seed, int split, size_t count, mbl_prompts_t *out) {
    pile_t piles[KINDS] = {{0}};
    mbl_prompts_t list = {.items = NULL};
    mbl_status_t status = MBL_OK;
    size_t exist = 0;
    for (int kind = 0; kind < KINDS && status == MBL_OK; kind++) {
        status = fill_pile(kind, seed, split, &piles[kind]);
        exist += piles[kind].count;
    }
    if (status == MBL_OK && count > exist)
        status = MBL_FAIL(MBL_ERR_CONFIG, "prompts: %zu %s sentences of the signs example; there are %zu",
                          count, split ? "test" : "train", exist);
    if (status == MBL_OK)
        status = take_signs(piles, count ? count : exist, &list);
    for (int kind = 0; kind < KINDS; kind++)
        mbl_free(piles[kind].scene);
    if (status == MBL_OK)
        *out = list;
    else
        mbl_prompts_free(&list);
    return status;
}

static mbl_status_t load_file(const char *path, size_t limit, mbl_prompts_t *out) {
    mbl_prompts_t list;
    MBL_TRY(mbl_prompts_read_file(path, &list));
    if (limit)
        mbl_prompts_cut(&list, limit);
    *out = list;
    return MBL_OK;
}

void mbl_prompts_cut(mbl_prompts_t *prompts, size_t most) {
    while (prompts->count > most) {
        prompts->count--;
        if (prompts->source)
            prompts->sources[prompts->source[prompts->count]].count--;
        mbl_free(prompts->items[prompts->count].text);
        mbl_free(prompts->items[prompts->count].metadata);
    }
}

/* Text and metadata, each with its final zero, and what says whether there is metadata. */
void mbl_prompts_digest(const mbl_prompts_t *prompts, char out[MBL_SHA256_HEX]) {
    mbl_sha256_t sha;
    mbl_sha256_init(&sha);
    for (size_t i = 0; i < prompts->count; i++) {
        const char *text = prompts->items[i].text, *metadata = prompts->items[i].metadata;
        mbl_sha256_update(&sha, text, strlen(text) + 1);
        mbl_sha256_update(&sha, metadata ? "m" : "-", 1);
        if (metadata)
            mbl_sha256_update(&sha, metadata, strlen(metadata) + 1);
    }
    for (size_t s = 0; s < prompts->n_sources; s++) {
        const mbl_prompt_source_t *source = &prompts->sources[s];
        mbl_sha256_update(&sha, source->name, strlen(source->name) + 1);
        mbl_sha256_update(&sha, &source->weight, sizeof source->weight);
    }
    if (prompts->source)
        mbl_sha256_update(&sha, prompts->source, prompts->count * sizeof *prompts->source);
    mbl_sha256_hex(&sha, out);
}

mbl_status_t mbl_prompts_load(const char *source, const char *path, uint64_t seed, int split, size_t count,
                              mbl_prompts_t *out) {
    MBL_REQUIRE(split == 0 || split == 1, "prompts: split %d; expected 0 (train) or 1 (test)", split);
    if (strcmp(source, "signs") == 0)
        return load_signs(seed, split, count, out);
    if (strcmp(source, "file") == 0)
        return load_file(path, count, out);
    return MBL_FAIL(MBL_ERR_CONFIG, "prompts: source \"%s\"; expected signs or file", source);
}
