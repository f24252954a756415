# GPU architectures by what this nvcc knows: 12.4 ends with Hopper, 12.8 and newer have Blackwell. Code for 8.0 runs on 8.6 and 8.9 too,
# and the PTX of the last one on what comes later, 12.0 for instance: code of its own would spill (attention_forward<128>, 4 bytes,
# nvcc 13.0). 9.0a is left out, as no kernel has instructions that 9.0 lacks. Sets CMAKE_CUDA_ARCHITECTURES where the user has not;
# takes NVCC.
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
  execute_process(COMMAND ${NVCC} --version OUTPUT_VARIABLE nvcc_version ERROR_QUIET)
  string(REGEX MATCH "release ([0-9.]+)" nvcc_version "${nvcc_version}")
  set(nvcc_version "${CMAKE_MATCH_1}")
  if(nvcc_version VERSION_LESS 12.4)
    message(FATAL_ERROR "${NVCC}: version \"${nvcc_version}\"; expected 12.4 or newer")
  elseif(nvcc_version VERSION_LESS 12.8)
    set(architectures 80-real 90)
  else()
    set(architectures 80-real 90-real 100)
  endif()
  set(CMAKE_CUDA_ARCHITECTURES ${architectures} CACHE STRING "GPU architectures; the last also as PTX")
endif()
