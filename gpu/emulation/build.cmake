# The emulated GPU backend: gpu_kernels compiled by the host's C++ compiler for target mbl, against include/ here.
# With checks, every kernel file is compiled twice. In the checked copy every load and store calls the emulator's
# checkers: the compiler's instrumentation for threads, alignment and bounds, without the sanitizers' libraries. The quick
# copy has none of that and gives the same bits (copies.c says which of the two a launch takes).
if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  message(FATAL_ERROR "MBL_CUDA=EMULATED: the C++ compiler is ${CMAKE_CXX_COMPILER_ID}, expected g++, whose instrumentation the "
    "checked kernels use; set CXX=g++ (C may be another's)")
endif()
option(MBL_EMULATION_CHECKS "Kernels of the emulated GPU backend have a checked copy" ON)
file(GLOB emulation CONFIGURE_DEPENDS gpu/emulation/*.c)
target_sources(mbl PRIVATE ${emulation})
target_include_directories(mbl_flags BEFORE INTERFACE ${CMAKE_SOURCE_DIR}/gpu/emulation/include)
target_compile_definitions(mbl PUBLIC MBL_CUDA_EMULATED=1 PRIVATE MBL_EMULATION_CHECKS=$<BOOL:${MBL_EMULATION_CHECKS}>)

# The source of the quick copy of a kernel file: in a namespace of its own, its C functions renamed, for it is the checked
# copy's that the program calls. Defines what stands for the file, by which the checked copy finds it.
function(mbl_quick_copy file mark out)
  file(STRINGS ${file} includes REGEX "^#include")
  list(JOIN includes "\n" includes)
  set(renamed "")
  file(STRINGS ${file} functions REGEX "^(extern \"C\" )?[a-z_]+ mbl_[a-z0-9_]+\\(")
  foreach(line IN LISTS functions)
    string(REGEX REPLACE ".* (mbl_[a-z0-9_]+)\\(.*" "\\1" name "${line}")
    string(APPEND renamed "#define ${name} ${name}_quick\n")
  endforeach()
  file(CONFIGURE OUTPUT ${out} @ONLY CONTENT "/* Made by gpu/emulation/build.cmake. */
${includes}
${renamed}namespace mbl_quick {
#include \"${file}\"
}
extern \"C\" {
extern const char ${mark};
const char ${mark} = 0;
}
")
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${file})
endfunction()

# mbl_emulated_kernels(TARGET FILE...): .cu files into a target that links mbl.
function(mbl_emulated_kernels target)
  set(flags -Wno-unknown-pragmas -Wno-conversion -Wno-float-conversion -Wno-maybe-uninitialized -fno-strict-aliasing)
  if(NOT MBL_EMULATION_CHECKS)
    set_source_files_properties(${ARGN} PROPERTIES LANGUAGE CXX COMPILE_OPTIONS "${flags}")
    target_sources(${target} PRIVATE ${ARGN})
    return()
  endif()
  # One access in the source is one access of the kernel: nothing merged into vectors or split into members.
  set(checked -fsanitize=thread --param=tsan-instrument-func-entry-exit=0 -fsanitize=alignment,bounds -fno-tree-vectorize)
  foreach(file IN LISTS ARGN)
    get_filename_component(name ${file} NAME_WE)
    get_filename_component(path ${file} ABSOLUTE)
    set(mark mbl_emu_file_${target}_${name})
    set(quick ${CMAKE_CURRENT_BINARY_DIR}/quick/${target}/${name}.cu)
    mbl_quick_copy(${path} ${mark} ${quick})
    set_source_files_properties(${file} PROPERTIES LANGUAGE CXX COMPILE_OPTIONS "${flags};${checked}"
      COMPILE_DEFINITIONS "MBL_EMU_FILE=${mark}")
    set_source_files_properties(${quick} PROPERTIES LANGUAGE CXX COMPILE_OPTIONS "${flags};-Wno-uninitialized"
      COMPILE_DEFINITIONS "MBL_EMU_FILE=${mark};MBL_EMU_QUICK=1")
    target_sources(${target} PRIVATE ${file} ${quick})
  endforeach()
endfunction()
mbl_emulated_kernels(mbl ${gpu_kernels})
