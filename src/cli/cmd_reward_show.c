/* marble reward check's page. */
#include "cli/cmd_reward_show.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

void mbl_reward_keep_replicas(mbl_scorer_pool_t *pool, size_t k, mbl_reward_found_t *found) {
    const char *url;
    bool ready;
    char text[MBL_REWARD_TEXT];
    for (size_t i = 0; i < MBL_REWARD_REPLICAS_SHOWN &&
                       mbl_scorer_pool_replica(pool, k, i, &url, &ready, text, sizeof text);
         i++) {
        snprintf(found->replica[i].url, sizeof found->replica[i].url, "%s", url);
        snprintf(found->replica[i].text, sizeof found->replica[i].text, "%s", text);
        found->replica[i].ready = ready;
        found->replicas++;
    }
}

static void show_scores(size_t images, const mbl_reward_found_t *found) {
    printf("  %zu images: %zu valid, %zu not applicable, %zu failed", images, found->valid, found->na,
           found->failed);
    if (found->valid > 0)
        printf("; scores from %.4g to %.4g", found->low, found->high);
    printf("\n  %.0f images a second (%.1f ms for %zu)\n", (double)images / found->seconds[1],
           1000 * found->seconds[1], images);
}

/* Whether it was well, and applied to nothing. */
static bool says_nothing(const mbl_reward_found_t *found) {
    return found->status == MBL_OK && found->valid == 0 && found->failed == 0;
}

/* Whether a judge looks at the image alone, whatever was asked for. */
static bool ignores_prompts(const mbl_reward_spec_t *spec) {
    json_t *options = spec->options ? json_loads(spec->options, 0, NULL) : NULL;
    const char *question = json_string_value(json_object_get(options, "question"));
    bool ignores = question && !strstr(question, "{prompt}") && !strstr(question, "{metadata}");
    json_decref(options);
    return ignores;
}

/* What is wrong without being an end. */
static void show_doubts(const char *where, const mbl_reward_spec_t *spec, size_t images,
                        const mbl_reward_found_t *found) {
    double low, high;
    mbl_reward_range(spec, &low, &high);
    if (found->outside > 0)
        printf("  %s: %zu scores lie outside its range %g to %g, up to %g and down to %g; expected another "
               "range, or another scorer\n",
               where, found->outside, low, high, found->high, found->low);
    if (found->changed > 0)
        printf("  %zu of the same images had a score one time and none (N/A) the other; expected the same\n",
               found->changed);
    if (found->drift > 0)
        printf("  the same images got scores that differ by up to %.3g the second time; expected the same\n",
               found->drift);
    if (says_nothing(found))
        printf("  %s: N/A for all %zu images, so nothing is known of it; expected a score for some, or more "
               "images where it applies to few prompts (--images)\n",
               where, images);
    else if (found->valid > 1 && found->low == found->high)
        printf("  all scores are the same; training needs differences\n");
}

bool mbl_reward_show(const mbl_config_t *config, size_t k, size_t with, size_t images,
                     const mbl_reward_found_t *found) {
    const mbl_reward_spec_t *spec = &config->rewards.items[k];
    char where[300];
    bool failed = found->status != MBL_OK || found->failed > 0, bad = failed || says_nothing(found);
    mbl_config_where_reward(config, k, where, sizeof where);
    printf("%s (%s): %s\n", spec->name, spec->type, bad ? "FAILED" : "ok");
    if (with != k)
        printf("  from the same calls as %s\n", config->rewards.items[with].name);
    for (size_t i = 0; with == k && i < found->replicas; i++)
        printf("  %s%s: %s\n", found->replica[i].url, found->replica[i].ready ? "" : " (not used)",
               found->replica[i].text);
    if (with == k && found->replicas > 0)
        printf("  ready after %.1f s\n", found->start);
    if (found->status == MBL_OK) {
        show_scores(images, found);
        show_doubts(where, spec, images, found);
    }
    if (ignores_prompts(spec))
        printf(
            "  %s: its question has neither {prompt} nor {metadata}, so an image's score does not depend on "
            "what was asked for; expected {prompt} where that matters\n",
            where);
    if (failed)
        printf("  %s: %s\n", where, found->why);
    return bad;
}
