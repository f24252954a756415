# The GPU part of target mbl. MBL_CUDA: OFF (a stub that says how to get it), ON (nvcc and NVIDIA's libraries) or
# EMULATED (the host compiler against gpu/emulation). Included from the top CMakeLists.txt after the target exists.
file(GLOB gpu_host CONFIGURE_DEPENDS gpu/*.c)
file(GLOB gpu_kernels CONFIGURE_DEPENDS gpu/*.cu)
list(FILTER gpu_host EXCLUDE REGEX "/stub\\.c$")
if(NOT MBL_CUDA)
  target_sources(mbl PRIVATE gpu/stub.c)
elseif(MBL_CUDA STREQUAL "EMULATED")
  target_sources(mbl PRIVATE ${gpu_host})
  target_compile_definitions(mbl PRIVATE MBL_CUDA_EMULATED=1)
  include(gpu/emulation/build.cmake) # takes gpu_kernels
else()
  target_sources(mbl PRIVATE ${gpu_host} ${gpu_kernels})
  target_compile_definitions(mbl PRIVATE MBL_CUDA_EMULATED=0)
  target_link_libraries(mbl PUBLIC CUDA::cudart CUDA::cublasLt CUDA::cublas)
  set_target_properties(mbl PROPERTIES CUDA_STANDARD 17 CUDA_STANDARD_REQUIRED ON)
  # -Wpedantic dislikes what nvcc generates. Without contraction a b + c means the same here as in the cpu backend.
  # A kernel whose registers spill on one of the architectures is a warning too, so an error with MBL_WERROR.
  target_compile_options(mbl PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:-fmad=false -Xptxas=--warn-on-spills -Xcompiler=-Wall,-Wextra>)
  if(MBL_WERROR)
    target_compile_options(mbl PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:-Werror=all-warnings -Xcompiler=-Werror>)
  endif()
endif()
