/* The page that shows a run: one file of HTML, joined from src/service/page and the chart library at build
 * time (join.cmake). It asks for nothing from elsewhere and reads the API beside it. */
#ifndef MBL_SERVICE_PAGE_H
#define MBL_SERVICE_PAGE_H

#include <stddef.h>

extern const unsigned char mbl_page[];
extern const size_t mbl_page_size;

#endif
