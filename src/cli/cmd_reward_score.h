/* Built-in scorers for other programs, through a pipe. */
#ifndef MBL_CLI_CMD_REWARD_SCORE_H
#define MBL_CLI_CMD_REWARD_SCORE_H

#include "base/status.h"

#include <stddef.h>

/* Answers requests on standard input until it ends. A request is a line {"reward": NAME, "width": W,
 * "height": H, "prompts": [N texts], "metadata": [N objects] (may be left out)} and N images of H * W * 3
 * bytes after it; its answer a line {"scores": [N]} of numbers, null where the reward does not apply, or
 * texts that say why it failed. */
mbl_status_t mbl_reward_score(const char *const *names, size_t n);

#endif
