/* Where something listens: the words of service.listen. */
#ifndef MBL_BASE_ADDRESS_H
#define MBL_BASE_ADDRESS_H

#include <stdbool.h>

typedef enum { MBL_ADDRESS_AUTO, MBL_ADDRESS_OFF, MBL_ADDRESS_TCP, MBL_ADDRESS_UNIX } mbl_address_kind_t;

typedef struct {
    mbl_address_kind_t kind;
    char host[256]; /* without brackets */
    unsigned short port;
    char path[108]; /* of a unix socket */
} mbl_address_t;

/* auto, off, HOST:PORT ([V6]:PORT) or unix:PATH; false for anything else. */
bool mbl_address_read(const char *text, mbl_address_t *out);

#endif
