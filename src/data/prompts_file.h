/* Prompts from a file; use mbl_prompts_load. */
#ifndef MBL_DATA_PROMPTS_FILE_H
#define MBL_DATA_PROMPTS_FILE_H

#include "data/prompts.h"

/* All distinct prompts of a .txt or .jsonl file, at least one. Errors as of mbl_prompts_load. */
mbl_status_t mbl_prompts_read_file(const char *path, mbl_prompts_t *out);

#endif
