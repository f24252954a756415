/* The first few of many names. */
#include "base/names.h"

#include <stdio.h>
#include <string.h>

void mbl_names_add(mbl_names_t *names, const char *name) {
    size_t used = strlen(names->text);
    if (names->n++ < MBL_NAMES_SHOWN)
        snprintf(names->text + used, sizeof names->text - used, "%s%.110s", used ? ", " : "", name);
}

const char *mbl_names_text(mbl_names_t *names) {
    size_t used = strlen(names->text);
    if (names->n > MBL_NAMES_SHOWN)
        snprintf(names->text + used, sizeof names->text - used, " and %zu more", names->n - MBL_NAMES_SHOWN);
    return names->text;
}
