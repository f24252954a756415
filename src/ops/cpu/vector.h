/* The width of a vector register, and the blocks that fit into all of them, of the instruction set that a
 * file of loops is compiled for. */
#ifndef MBL_OPS_CPU_VECTOR_H
#define MBL_OPS_CPU_VECTOR_H

/* 32 registers with AVX-512, else 16; vectors wider than the registers are taken apart badly. */
#if defined(__AVX512F__)
#define MBL_VECTOR_BYTES 64
#elif defined(__AVX__)
#define MBL_VECTOR_BYTES 32
#else
#define MBL_VECTOR_BYTES 16
#endif

#endif
