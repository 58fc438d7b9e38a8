# Sets `result` to the sources of the named groups of csrc/sources.txt, as absolute paths.
function(dcrnn_fast_sources result)
  set(root "${CMAKE_CURRENT_FUNCTION_LIST_DIR}/..")
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${root}/csrc/sources.txt")
  list(JOIN ARGN "|" groups)
  file(STRINGS "${root}/csrc/sources.txt" sources REGEX "^(${groups}) ")
  list(TRANSFORM sources REPLACE "^[^ ]+ " "${root}/")
  set(${result} "${sources}" PARENT_SCOPE)
endfunction()
