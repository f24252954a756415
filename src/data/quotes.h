/* Text that a prompt quotes, which rewards that read images look for. */
#ifndef MBL_DATA_QUOTES_H
#define MBL_DATA_QUOTES_H

typedef enum {
    MBL_QUOTES_NONE,
    MBL_QUOTES_STRAIGHT, /* "K7": what counts */
    MBL_QUOTES_OTHER     /* text in other quotes alone: 'K7', curly or low ones, guillemets, `K7`, ''K7'' */
} mbl_quotes_t;

/* What kind of quoted text UTF-8 `prompt` has; an apostrophe (don't, dogs') is no quote. */
mbl_quotes_t mbl_quotes_in(const char *prompt);

#endif
