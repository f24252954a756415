/* What LoRA files and folders hold: a file of diffusers or of kohya's names, with or without diffusers'
 * lora_adapter_metadata, or PEFT's folder, as a list of linears with their matrices and factors. */
#include "model/lora_in.h"

#include "base/file.h"
#include "base/mem.h"
#include "base/names.h"

#include <stdlib.h>
#include <string.h>

static const char peft_prefix[] = "base_model.model.";

/* A and B as they are called: by PEFT and diffusers, by diffusers before that, by kohya. */
static const char *const styles[][2] = {{".lora_A.weight", ".lora_B.weight"},
                                        {".lora.down.weight", ".lora.up.weight"},
                                        {".lora_down.weight", ".lora_up.weight"}};
enum { STYLES = sizeof styles / sizeof *styles };

/* ---- opening ---- */

/* "transformer." keys of lora_adapter_metadata without that prefix; those of text encoders belong to tensors
 * that are refused anyway. */
static mbl_status_t take_metadata(mbl_lora_in_t *in, const char *text) {
    static const char prefix[] = "transformer.";
    const char *key;
    json_t *value, *all = json_loads(text, JSON_REJECT_DUPLICATES, NULL), *mine = json_object();
    if (!json_is_object(all) || !mine) {
        json_decref(all);
        json_decref(mine);
        return MBL_FAIL(MBL_ERR_FORMAT, "%s: __metadata__.lora_adapter_metadata: is no JSON object",
                        in->path);
    }
    mbl_status_t status = MBL_OK;
    json_object_foreach(all, key, value) {
        if (strncmp(key, prefix, strlen(prefix)) == 0 &&
            json_object_set(mine, key + strlen(prefix), value) != 0)
            status = MBL_FAIL(MBL_ERR_MEM, "%s: no memory for its metadata", in->path);
    }
    json_decref(all);
    in->where = mbl_format("%s: lora_adapter_metadata", in->path);
    if (status == MBL_OK && !in->where)
        status = MBL_FAIL(MBL_ERR_MEM, "%s: no memory for its metadata", in->path);
    if (status != MBL_OK) {
        json_decref(mine);
        return status;
    }
    return mbl_lora_rules_read(mine, in->where, &in->rules);
}

static mbl_status_t take_config(mbl_lora_in_t *in, char *words) {
    json_t *config;
    in->where = words;
    MBL_TRY(mbl_json_read(words, &config));
    return mbl_lora_rules_read(config, words, &in->rules);
}

/* Whether a file has PEFT's own names, for which the factor is in the configuration beside it. */
static bool has_peft_names(const mbl_st_t *st) {
    const mbl_st_entry_t *first = mbl_st_at(st, 0);
    return first && strncmp(first->name, peft_prefix, strlen(peft_prefix)) == 0;
}

static mbl_status_t open_file(mbl_lora_in_t *in, const char *path) {
    const char *slash = strrchr(path, '/'), *metadata;
    MBL_TRY(mbl_st_open(path, &in->st));
    metadata = mbl_st_metadata(in->st, "lora_adapter_metadata");
    if (metadata)
        return take_metadata(in, metadata);
    if (!has_peft_names(in->st))
        return MBL_OK;
    char *words = mbl_format("%.*sadapter_config.json", slash ? (int)(slash - path + 1) : 0, path);
    if (!words)
        return MBL_FAIL(MBL_ERR_MEM, "%s: no memory for a path", path);
    if (mbl_file_exists(words))
        return take_config(in, words);
    mbl_free(words);
    return MBL_FAIL(
        MBL_ERR_FORMAT,
        "%s: has PEFT's names, and there is no adapter_config.json beside it, which says how much it counts; "
        "expected PEFT's whole folder",
        path);
}

static mbl_status_t open_folder(mbl_lora_in_t *in, const char *path) {
    char *words = mbl_format("%s/adapter_config.json", path);
    char *file = mbl_format("%s/adapter_model.safetensors", path);
    char *plain = mbl_format("%s/pytorch_lora_weights.safetensors", path);
    mbl_status_t status;
    if (!words || !file || !plain)
        status = MBL_FAIL(MBL_ERR_MEM, "%s: no memory for a path", path);
    else if (!mbl_file_exists(words) && mbl_file_exists(plain))
        status = open_file(in, plain);
    else {
        status = mbl_st_open(file, &in->st);
        if (status == MBL_OK) {
            status = take_config(in, words);
            words = NULL; /* belongs to `in` */
        }
    }
    mbl_free(words);
    mbl_free(file);
    mbl_free(plain);
    return status;
}

void mbl_lora_in_close(mbl_lora_in_t *in) {
    mbl_lora_rules_free(&in->rules);
    mbl_st_close(in->st);
    mbl_free(in->sites);
    mbl_free(in->where);
}

/* ---- names ---- */

static bool cut_end(char *name, const char *end) {
    size_t n = strlen(name), m = strlen(end);
    if (n <= m || strcmp(name + n - m, end) != 0)
        return false;
    name[n - m] = 0;
    return true;
}

/* The linear of a block that a tensor is for into site; what: 0 A, 1 B, 2 alpha. False for any other tensor.
 */
static bool parse_name(const mbl_lora_in_t *in, const char *name, char site[MBL_LORA_SITE], int *style,
                       int *what) {
    const char *const prefixes[] = {peft_prefix, "transformer."};
    for (size_t i = 0; i < 2; i++)
        if (strncmp(name, prefixes[i], strlen(prefixes[i])) == 0)
            name += strlen(prefixes[i]);
    if (strncmp(name, in->prefix, strlen(in->prefix)) != 0 || strlen(name) >= MBL_LORA_SITE)
        return false;
    strcpy(site, name);
    *style = -1;
    *what = 2;
    if (cut_end(site, ".alpha"))
        return true;
    for (*style = 0; *style < STYLES; ++*style)
        for (*what = 0; *what < 2; ++*what)
            if (cut_end(site, styles[*style][*what]))
                return true;
    return false;
}

static int by_site(const void *a, const void *b) {
    return strcmp(((const mbl_lora_site_in_t *)a)->site, ((const mbl_lora_site_in_t *)b)->site);
}

/* ---- sites ---- */

static mbl_status_t wrong_tensors(const mbl_lora_in_t *in, mbl_names_t *names) {
    return MBL_FAIL(MBL_ERR_UNSUPPORTED,
                    "%s: tensor %s: not a LoRA matrix (lora_A, lora_B) or alpha of a linear in "
                    "%.*s; expected "
                    "nothing else",
                    in->path, mbl_names_text(names), (int)strcspn(in->prefix, "."), in->prefix);
}

/* One tensor into the list, in which sites may stand several times yet. */
static mbl_status_t take_tensor(mbl_lora_in_t *in, const mbl_st_entry_t *entry, mbl_names_t *unknown) {
    mbl_lora_site_in_t site = {.scale = 1};
    int style, what;
    if (!parse_name(in, entry->name, site.site, &style, &what) || (what < 2 && entry->ndim != 2)) {
        mbl_names_add(unknown, entry->name);
        return MBL_OK;
    }
    if (what == 2)
        site.alpha = entry;
    else
        site.ab[what] = entry;
    if (what < 2 && in->style >= 0 && style != in->style)
        return MBL_FAIL(MBL_ERR_FORMAT,
                        "%s: tensor %.110s: others are called *%s; expected one way of naming", in->path,
                        entry->name, styles[in->style][0]);
    in->style = what < 2 ? style : in->style;
    in->sites[in->n++] = site;
    return MBL_OK;
}

/* Brings the tensors of a site together. */
static mbl_status_t join_sites(mbl_lora_in_t *in) {
    size_t n = 0;
    qsort(in->sites, in->n, sizeof *in->sites, by_site);
    for (size_t i = 0; i < in->n; i++) {
        mbl_lora_site_in_t *last = n ? &in->sites[n - 1] : NULL, *next = &in->sites[i];
        if (!last || strcmp(last->site, next->site) != 0) {
            in->sites[n++] = *next;
            continue;
        }
        if ((last->ab[0] && next->ab[0]) || (last->ab[1] && next->ab[1]) || (last->alpha && next->alpha))
            return MBL_FAIL(MBL_ERR_FORMAT, "%s: %s: two tensors of one kind; expected one A, one B",
                            in->path, last->site);
        last->ab[0] = last->ab[0] ? last->ab[0] : next->ab[0];
        last->ab[1] = last->ab[1] ? last->ab[1] : next->ab[1];
        last->alpha = last->alpha ? last->alpha : next->alpha;
    }
    in->n = n;
    return MBL_OK;
}

static mbl_status_t check_partners(const mbl_lora_in_t *in) {
    mbl_names_t lonely = {{0}, 0};
    for (size_t i = 0; i < in->n; i++) {
        const mbl_lora_site_in_t *site = &in->sites[i];
        const mbl_st_entry_t *found = site->ab[0] ? site->ab[0] : site->ab[1] ? site->ab[1] : site->alpha;
        if (!site->ab[0] || !site->ab[1])
            mbl_names_add(&lonely, found->name);
    }
    if (lonely.n > 0)
        return MBL_FAIL(MBL_ERR_FORMAT, "%s: tensor %s: without a partner; expected A and B of every linear",
                        in->path, mbl_names_text(&lonely));
    for (size_t i = 0; i < in->n; i++) {
        const mbl_lora_site_in_t *site = &in->sites[i];
        if (site->ab[0]->dim[0] != site->ab[1]->dim[1] || site->ab[0]->dim[0] == 0)
            return MBL_FAIL(
                MBL_ERR_FORMAT,
                "%s: %s: A is %zu x %zu, B %zu x %zu; expected one rank, A's rows and B's columns", in->path,
                site->site, site->ab[0]->dim[0], site->ab[0]->dim[1], site->ab[1]->dim[0],
                site->ab[1]->dim[1]);
    }
    return MBL_OK;
}

/* The factor of a site: from the rules, or kohya's alpha over the rank. */
static mbl_status_t find_scale(const mbl_lora_in_t *in, mbl_lora_site_in_t *site) {
    double alpha;
    site->rank = site->ab[0]->dim[0];
    if (!site->alpha)
        return mbl_lora_rules_scale(&in->rules, site->site, site->rank, &site->scale);
    if (in->rules.config)
        return MBL_FAIL(MBL_ERR_FORMAT, "%s: tensor %.110s: an alpha beside that of %s; expected one of them",
                        in->path, site->alpha->name, in->rules.where);
    MBL_TRY(mbl_st_read_f64(in->st, site->alpha->name, &alpha, 1));
    site->scale = alpha / (double)site->rank;
    return MBL_OK;
}

static mbl_status_t find_sites(mbl_lora_in_t *in) {
    mbl_names_t unknown = {{0}, 0};
    size_t n = mbl_st_count(in->st);
    if (n == 0)
        return MBL_FAIL(MBL_ERR_FORMAT, "%s: holds no tensors; expected a LoRA adapter", in->path);
    MBL_ALLOC(in->sites, n);
    for (size_t i = 0; i < n; i++)
        MBL_TRY(take_tensor(in, mbl_st_at(in->st, i), &unknown));
    if (unknown.n > 0)
        return wrong_tensors(in, &unknown);
    MBL_TRY(join_sites(in));
    MBL_TRY(check_partners(in));
    for (size_t i = 0; i < in->n; i++)
        MBL_TRY(find_scale(in, &in->sites[i]));
    return MBL_OK;
}

mbl_status_t mbl_lora_in_open(const char *path, const char *prefix, mbl_lora_in_t *in) {
    *in = (mbl_lora_in_t){.path = path, .prefix = prefix, .style = -1};
    MBL_TRY(mbl_folder_exists(path) ? open_folder(in, path) : open_file(in, path));
    return find_sites(in);
}
