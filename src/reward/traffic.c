/* Counts of requests. The kinds of failures are the transport's, then those of the responses. */
#include "reward/traffic.h"

#include "proto/http.h"

#include <math.h>

static const double SHORTEST = 1e-4;
enum { PER_OCTAVE = 4 };
_Static_assert((int)MBL_HTTP_ENDS + (int)MBL_PROTO_ERROR_COUNT <= MBL_TRAFFIC_KINDS, "more kinds than room");

void mbl_traffic_add(mbl_traffic_t *traffic, double seconds) {
    double at = seconds > SHORTEST ? PER_OCTAVE * log2(seconds / SHORTEST) : 0;
    size_t bucket = at < MBL_TRAFFIC_BUCKETS - 1 ? (size_t)at : MBL_TRAFFIC_BUCKETS - 1;
    traffic->latency[bucket]++;
    traffic->requests++;
}

double mbl_traffic_percentile(const mbl_traffic_t *traffic, double share) {
    double seen = 0, total = 0;
    for (size_t i = 0; i < MBL_TRAFFIC_BUCKETS; i++)
        total += traffic->latency[i];
    for (size_t i = 0; i < MBL_TRAFFIC_BUCKETS && total > 0; i++) {
        seen += traffic->latency[i];
        if (seen >= share * total)
            return SHORTEST * exp2(((double)i + 0.5) / PER_OCTAVE);
    }
    return 0;
}

size_t mbl_traffic_of_end(int end) {
    return (size_t)end;
}

size_t mbl_traffic_of_error(int error) {
    return MBL_HTTP_ENDS + (size_t)error;
}

const char *mbl_traffic_kind(size_t i) {
    if (i < MBL_HTTP_ENDS)
        return mbl_http_end_name((mbl_http_end_t)i);
    i -= MBL_HTTP_ENDS;
    return i < MBL_PROTO_ERROR_COUNT ? mbl_proto_error_name((mbl_proto_error_kind_t)i) : NULL;
}
