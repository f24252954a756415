/* What marble reward check found out about one reward, and how it is shown. */
#ifndef MBL_CLI_CMD_REWARD_SHOW_H
#define MBL_CLI_CMD_REWARD_SHOW_H

#include "config/config.h"

enum { MBL_REWARD_REPLICAS_SHOWN = 32, MBL_REWARD_TEXT = 600 };
typedef struct {
    mbl_status_t status;
    char why[1000]; /* the first failure */
    double start;   /* seconds until it was ready, */
    double seconds[2];
    size_t valid, na, failed, outside; /* of the first round; failed: in either */
    size_t changed;                    /* had a score in one of them and were not applicable in the other */
    double low, high, drift;
    size_t replicas;
    struct {
        char url[300], text[MBL_REWARD_TEXT];
        bool ready;
    } replica[MBL_REWARD_REPLICAS_SHOWN];
} mbl_reward_found_t;

/* Of reward k of the pool. */
void mbl_reward_keep_replicas(mbl_scorer_pool_t *pool, size_t k, mbl_reward_found_t *found);
/* On standard output; whether the reward is of no use. with: the first reward of the run from the same calls.
 */
bool mbl_reward_show(const mbl_config_t *config, size_t k, size_t with, size_t images,
                     const mbl_reward_found_t *found);

#endif
