/* CUDA graphs kept by key. */
#ifndef MBL_GPU_GRAPHS_H
#define MBL_GPU_GRAPHS_H

#include <cuda_runtime_api.h>

#include "ops/ops.h"

enum { MBL_CUDA_GRAPHS = 128 }; /* kept; the one not used for longest goes first */

typedef struct {
    char *key;
    size_t bytes;
    uint64_t hash, used;
    cudaGraphExec_t exec; /* NULL: met once so far */
} mbl_cuda_graph_t;

/* Zeros to begin with. */
typedef struct {
    bool broken;  /* no graph could be made: none will be */
    uint64_t now; /* times that graphs were asked for */
    uint64_t launched;
    mbl_cuda_graph_t graph[MBL_CUDA_GRAPHS];
} mbl_cuda_graphs_t;

/* Does what work(ops) asks of the device, by the key's graph where there is one. The same key (whole words of
 * 8 bytes) must mean the same calls with the same arguments. */
mbl_status_t mbl_cuda_graphs_run(mbl_cuda_graphs_t *graphs, mbl_ops_t *ops, const char *key, size_t bytes,
                                 mbl_status_t (*work)(mbl_ops_t *ops));
/* All of them; what is under way goes on. */
void mbl_cuda_graphs_drop(mbl_cuda_graphs_t *graphs);

#endif
