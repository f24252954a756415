/* Texts of a run for others' eyes: a configuration as JSON values, and without passwords. */
#ifndef MBL_SERVICE_VALUES_H
#define MBL_SERVICE_VALUES_H

#include <jansson.h>
#include <stddef.h>

/* The run.yaml that a run wrote, as an object: what is written plainly is a number, true, false or null where
 * it looks like one. NULL where the text cannot be read. */
json_t *mbl_values_of_yaml(const char *text, size_t size);
/* Replaces NAME:PASSWORD@ in every URL of the text by asterisks, in place and of the same length. */
void mbl_values_mask(char *text, size_t size);

#endif
