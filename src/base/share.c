/* The one cut of work among ranks. */
#include "base/share.h"

/* Where the range of a rank begins: n * rank / ranks, rounded up. */
static size_t begin_of(size_t n, size_t ranks, size_t rank) {
    return (n * rank + ranks - 1) / ranks;
}

mbl_share_t mbl_share(size_t n, size_t ranks, size_t rank) {
    size_t first = begin_of(n, ranks, rank);
    return (mbl_share_t){first, begin_of(n, ranks, rank + 1) - first};
}

mbl_share_t mbl_share_groups(mbl_share_t images, size_t group_size) {
    size_t first = images.first / group_size;
    if (images.n == 0)
        return (mbl_share_t){first, 0};
    return (mbl_share_t){first, (images.first + images.n - 1) / group_size - first + 1};
}

size_t mbl_share_most_groups(size_t n, size_t ranks, size_t group_size) {
    size_t most = 0;
    for (size_t rank = 0; rank < ranks; rank++) {
        size_t groups = mbl_share_groups(mbl_share(n, ranks, rank), group_size).n;
        most = groups > most ? groups : most;
    }
    return most;
}
