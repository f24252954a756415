# The emulated GPU backend: gpu_kernels compiled by the host's C++ compiler for target mbl, against include/ here.
# With checks, every load and store of a kernel calls the emulator's checkers: the compiler's instrumentation for
# threads, alignment and bounds, without the sanitizers' libraries.
option(MBL_EMULATION_CHECKS "Kernels of the emulated GPU backend are checked (several times slower)" ON)
file(GLOB emulation CONFIGURE_DEPENDS gpu/emulation/*.c)
target_sources(mbl PRIVATE ${emulation})
target_include_directories(mbl_flags BEFORE INTERFACE ${CMAKE_SOURCE_DIR}/gpu/emulation/include)
target_compile_definitions(mbl PUBLIC MBL_CUDA_EMULATED=1 PRIVATE MBL_EMULATION_CHECKS=$<BOOL:${MBL_EMULATION_CHECKS}>)

# mbl_emulated_kernels(TARGET FILE...): .cu files into a target that links mbl.
function(mbl_emulated_kernels target)
  set(flags -Wno-unknown-pragmas -Wno-conversion -Wno-float-conversion -Wno-maybe-uninitialized -fno-strict-aliasing)
  if(MBL_EMULATION_CHECKS)
    # One access in the source is one access of the kernel: nothing merged into vectors or split into members.
    list(APPEND flags -fsanitize=thread --param=tsan-instrument-func-entry-exit=0 -fsanitize=alignment,bounds
      -fno-tree-vectorize)
  endif()
  set_source_files_properties(${ARGN} PROPERTIES LANGUAGE CXX COMPILE_OPTIONS "${flags}")
  target_sources(${target} PRIVATE ${ARGN})
endfunction()
mbl_emulated_kernels(mbl ${gpu_kernels})
