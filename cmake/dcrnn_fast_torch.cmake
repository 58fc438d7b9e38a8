# Finds PyTorch and makes the target dcrnn_fast::torch. PyTorch's own CMake package is not used: in a CUDA build it fails without a whole
# CUDA toolkit, which a program without CUDA code does not need.
#
# It looks, in this order, at: what Torch_DIR or CMAKE_PREFIX_PATH name, as find_package(Torch) does; the PyTorch of Python3_EXECUTABLE, after
# which no other Python is tried; the folder DCRNN_FAST_TORCH_HINT; the first python3 on PATH that has PyTorch; .venv/bin/python in the source
# folder.
# It sets Torch_DIR, dcrnn_fast_torch_root and dcrnn_fast_torch_cuda (the CUDA library, or empty), or dcrnn_fast_torch_missing to a message.

function(dcrnn_fast_torch_of python)
  if(EXISTS "${python}")
    execute_process(
      COMMAND "${python}" -c "import torch; print(torch.utils.cmake_prefix_path)"
      OUTPUT_VARIABLE prefix RESULT_VARIABLE failed ERROR_QUIET OUTPUT_STRIP_TRAILING_WHITESPACE)
    if(NOT failed AND EXISTS "${prefix}/Torch/TorchConfig.cmake")
      set(Torch_DIR "${prefix}/Torch" CACHE PATH "Folder of PyTorch's TorchConfig.cmake" FORCE)
      set(DCRNN_FAST_TORCH_PYTHON "${python}" CACHE INTERNAL "The Python that told Torch_DIR")
    endif()
  endif()
endfunction()

function(dcrnn_fast_find_torch)
  # The build folder is configured again, with another Python.
  if(Python3_EXECUTABLE AND DCRNN_FAST_TORCH_PYTHON AND NOT DCRNN_FAST_TORCH_PYTHON STREQUAL Python3_EXECUTABLE)
    unset(Torch_DIR CACHE)
    unset(DCRNN_FAST_TORCH_PYTHON CACHE)
  endif()
  find_path(Torch_DIR TorchConfig.cmake
    HINTS ENV Torch_DIR ${CMAKE_PREFIX_PATH} ENV CMAKE_PREFIX_PATH
    PATH_SUFFIXES Torch share/cmake/Torch torch/share/cmake/Torch
    DOC "Folder of PyTorch's TorchConfig.cmake")
  if(NOT Torch_DIR AND Python3_EXECUTABLE)
    dcrnn_fast_torch_of("${Python3_EXECUTABLE}")
    if(NOT Torch_DIR)
      set(dcrnn_fast_torch_missing "${Python3_EXECUTABLE} (Python3_EXECUTABLE) cannot import torch" PARENT_SCOPE)
      return()
    endif()
  endif()
  if(NOT Torch_DIR AND EXISTS "${DCRNN_FAST_TORCH_HINT}/TorchConfig.cmake")
    set(Torch_DIR "${DCRNN_FAST_TORCH_HINT}" CACHE PATH "Folder of PyTorch's TorchConfig.cmake" FORCE)
  endif()
  string(REPLACE ":" ";" folders "$ENV{PATH}")
  list(TRANSFORM folders APPEND "/python3" OUTPUT_VARIABLE pythons)
  foreach(python IN LISTS pythons ITEMS "${CMAKE_SOURCE_DIR}/.venv/bin/python")
    if(NOT Torch_DIR)
      dcrnn_fast_torch_of("${python}")
    endif()
  endforeach()
  if(NOT Torch_DIR)
    set(dcrnn_fast_torch_missing "no Python here can import torch" PARENT_SCOPE)
    return()
  endif()

  get_filename_component(root "${Torch_DIR}/../../.." ABSOLUTE)
  set(version_file "${root}/include/torch/headeronly/version.h")
  set(version "")
  if(EXISTS "${version_file}")
    file(STRINGS "${version_file}" lines REGEX "define TORCH_VERSION_(MAJOR|MINOR|PATCH) ")
    list(TRANSFORM lines REPLACE ".* " "")
    list(JOIN lines "." version)
  endif()
  if(version VERSION_LESS 2.10)
    set(dcrnn_fast_torch_missing "the PyTorch in ${root} is older than 2.10" PARENT_SCOPE)
    return()
  endif()
  set(libraries "")
  foreach(name IN ITEMS torch torch_cpu c10)
    list(APPEND libraries "${root}/lib/${CMAKE_SHARED_LIBRARY_PREFIX}${name}${CMAKE_SHARED_LIBRARY_SUFFIX}")
  endforeach()
  set(cuda_library "${root}/lib/${CMAKE_SHARED_LIBRARY_PREFIX}torch_cuda${CMAKE_SHARED_LIBRARY_SUFFIX}")
  if(NOT TARGET dcrnn_fast::torch)
    add_library(dcrnn_fast::torch INTERFACE IMPORTED)
    target_include_directories(dcrnn_fast::torch INTERFACE "${root}/include" "${root}/include/torch/csrc/api/include")
    target_link_libraries(dcrnn_fast::torch INTERFACE ${libraries})
  endif()
  set(dcrnn_fast_torch_root "${root}" PARENT_SCOPE)
  set(dcrnn_fast_torch_cuda "" PARENT_SCOPE)
  set(build "CPU build")
  if(EXISTS "${cuda_library}")
    set(dcrnn_fast_torch_cuda "${cuda_library}" PARENT_SCOPE)
    set(build "CUDA build")
  endif()
  if(NOT dcrnn_fast_FIND_QUIETLY)
    message(STATUS "dcrnn_fast: PyTorch ${version}, ${build}, in ${root}")
  endif()
endfunction()

dcrnn_fast_find_torch()
if(dcrnn_fast_torch_missing)
  string(APPEND dcrnn_fast_torch_missing
    ". Install PyTorch 2.10 or later, and name its Python by -DPython3_EXECUTABLE=..., or its CMake folder "
    "(torch.utils.cmake_prefix_path) by -DCMAKE_PREFIX_PATH=...")
endif()
