/* What a reward that is scored elsewhere costs: counts of an epoch, which ranks add up, and the percentiles
 * of its requests' times. */
#ifndef MBL_REWARD_TRAFFIC_H
#define MBL_REWARD_TRAFFIC_H

#include <stddef.h>

enum {
    MBL_TRAFFIC_BUCKETS = 96, /* four to a doubling, from 0.1 ms to 28 minutes */
    MBL_TRAFFIC_KINDS = 24    /* room for the kinds of failures */
};

/* All of it doubles, so that one sum over ranks adds it up. */
typedef struct {
    double images, requests; /* scored; answered */
    double retried, hedged;  /* requests sent again; second ones sent because the first took long */
    double set_aside;        /* replicas that get nothing now */
    double seconds;          /* in which requests were under way */
    double waited;           /* that the trainer had nothing else to do */
    double failed[MBL_TRAFFIC_KINDS];
    double latency[MBL_TRAFFIC_BUCKETS];
} mbl_traffic_t;
enum { MBL_TRAFFIC_SIZE = sizeof(mbl_traffic_t) / sizeof(double) };

void mbl_traffic_add(mbl_traffic_t *traffic, double seconds);
/* The time that a share of the requests stayed below, in seconds, to a tenth; 0 without any. */
double mbl_traffic_percentile(const mbl_traffic_t *traffic, double share);
/* Name of a kind of failure; NULL past the end. */
const char *mbl_traffic_kind(size_t i);
/* The kind of a transport's end (mbl_http_end_t), or of an error in a response (mbl_proto_error_kind_t). */
size_t mbl_traffic_of_end(int end);
size_t mbl_traffic_of_error(int error);

#endif
