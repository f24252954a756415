/* CUDA graphs by key: the first time a key is met its work runs as usual (scratch memory grows, cublasLt
 * chooses), the second time it is captured, from then on the graph is launched. Where capturing fails,
 * everything runs without from there on. */
#include "gpu/graphs.h"
#include "base/log.h"
#include "base/mem.h"
#include "gpu/cuda.h"

#include <string.h>

typedef mbl_cuda_graph_t graph_t;
enum { GRAPHS = MBL_CUDA_GRAPHS };

static void drop(graph_t *graph) {
    if (graph->exec)
        cudaGraphExecDestroy(graph->exec);
    mbl_free(graph->key);
    memset(graph, 0, sizeof *graph);
}

void mbl_cuda_graphs_drop(mbl_cuda_graphs_t *graphs) {
    for (int i = 0; i < GRAPHS; i++)
        drop(&graphs->graph[i]);
}

static uint64_t hash_of(const char *data, size_t bytes) {
    uint64_t hash = 14695981039346656037u, word;
    for (size_t i = 0; i + sizeof word <= bytes;
         i += sizeof word) { /* all of it: every part is whole words */
        memcpy(&word, data + i, sizeof word);
        hash = (hash ^ word) * 1099511628211u;
        hash ^= hash >> 29;
    }
    return hash;
}

/* NULL: never met, or forgotten since. */
static graph_t *find(mbl_cuda_graphs_t *graphs, const char *key, size_t bytes, uint64_t hash) {
    for (int i = 0; i < GRAPHS; i++) {
        graph_t *g = &graphs->graph[i];
        if (g->key && g->hash == hash && g->bytes == bytes && memcmp(g->key, key, bytes) == 0)
            return g;
    }
    return NULL;
}

/* Without memory for it, does not. */
static void remember(mbl_cuda_graphs_t *graphs, const char *key, size_t bytes, uint64_t hash) {
    graph_t *oldest = &graphs->graph[0];
    for (int i = 1; i < GRAPHS && oldest->key; i++)
        if (!graphs->graph[i].key || graphs->graph[i].used < oldest->used)
            oldest = &graphs->graph[i];
    char *copy = mbl_calloc(bytes, 1);
    if (!copy)
        return;
    drop(oldest);
    memcpy(copy, key, bytes);
    *oldest = (graph_t){.key = copy, .bytes = bytes, .hash = hash, .used = graphs->now};
}

/* The first failure, and what was captured is gone. */
static cudaError_t capture(mbl_ops_t *ops, mbl_status_t (*work)(mbl_ops_t *ops), cudaGraphExec_t *out) {
    cudaStream_t stream = mbl_cuda_stream(ops);
    cudaGraph_t graph = NULL;
    cudaError_t error = cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal);
    if (error != cudaSuccess)
        return error;
    mbl_fail_quiet(1);
    mbl_status_t status = work(ops);
    mbl_fail_quiet(0);
    error = cudaStreamEndCapture(stream, &graph);
    if (error == cudaSuccess && status != MBL_OK)
        error = cudaErrorStreamCaptureInvalidated;
    if (error == cudaSuccess)
        error = cudaGraphInstantiate(out, graph, 0);
    if (graph)
        cudaGraphDestroy(graph);
    return error;
}

static void give_up(mbl_cuda_graphs_t *graphs, cudaError_t error) {
    cudaGetLastError(); /* nothing was run */
    MBL_WARN("device cuda: no graph could be made (%s: %s); going on without, as with cuda.graphs=off",
             cudaGetErrorName(error), cudaGetErrorString(error));
    graphs->broken = true;
}

mbl_status_t mbl_cuda_graphs_run(mbl_cuda_graphs_t *graphs, mbl_ops_t *ops, const char *key, size_t bytes,
                                 mbl_status_t (*work)(mbl_ops_t *ops)) {
    if (graphs->broken)
        return work(ops);
    uint64_t hash = hash_of(key, bytes);
    graph_t *graph = find(graphs, key, bytes, hash);
    graphs->now++;
    if (!graph) {
        MBL_TRY(work(ops));
        remember(graphs, key, bytes, hash);
        return MBL_OK;
    }
    graph->used = graphs->now;
    if (!graph->exec) {
        cudaError_t error = capture(ops, work, &graph->exec);
        if (error != cudaSuccess) {
            give_up(graphs, error);
            return work(ops);
        }
    }
    graphs->launched++;
    MBL_CUDA_TRY(cudaGraphLaunch(graph->exec, mbl_cuda_stream(ops)), "launching a graph");
    return MBL_OK;
}
