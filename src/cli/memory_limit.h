/* What a process whose memory is limited (ulimit -v, ulimit -d) says when a library it calls does not survive
 * that. */
#ifndef MBL_CLI_MEMORY_LIMIT_H
#define MBL_CLI_MEMORY_LIMIT_H

/* Our own allocations fail with a message, but some of oneDNN's, HDF5's and MPI's end in a null pointer or an
 * exception. Where the process has a limit, a crash with next to nothing left below it ends with a message
 * and exit code 1; any other crash stays the signal that it is. Once, by the first thread. */
void mbl_memory_limit_watch(void);

/* After a failure: says that memory came near its limit, where it did, since what a library fails at then may
 * be called anything. */
void mbl_memory_limit_explain(void);

#endif
