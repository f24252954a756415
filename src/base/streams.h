/* The three descriptors a program starts with. */
#ifndef MBL_BASE_STREAMS_H
#define MBL_BASE_STREAMS_H

/* To be called before anything opens a file: descriptors 0, 1 and 2 that are closed are taken by /dev/null,
 * the wrong way round, so that no file of ours becomes one of them and reading or writing them still fails;
 * SIGPIPE is ignored, so that a reader that goes away (`| head`, a closed terminal) is a failed write and no
 * death. */
void mbl_streams_open(void);

#endif
