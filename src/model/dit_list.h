/* The families of transformers, one line each: NAME stands for the table mbl_dit_NAME (dit_family.h) and the
 * folder src/model/NAME. The first is taken for a config.json that names no class. */
#ifndef MBL_MODEL_DIT_LIST_H
#define MBL_MODEL_DIT_LIST_H

#define MBL_DIT_LIST(X) X(mmdit)

#endif
