// The Python module of the extension: facts about the build. Tensors never pass through it: they reach the operators through PyTorch's
// dispatcher.
#include <pybind11/pybind11.h>

#include "build_info.h"
#include "cpu/isa.h"
#include "interrupt.h"

namespace {

// Runs the handlers of signals that came. If one raises, the call ends with a C++ exception, which PyTorch makes a RuntimeError; the
// interpreter raises the handler's own exception when Python code runs next.
bool asks_to_end() {
  const PyGILState_STATE state = PyGILState_Ensure();
  const bool raised = PyErr_CheckSignals() != 0;
  if (raised) {
    static PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    const auto raise = [](void*) {
      PyErr_Restore(type, value, traceback);
      type = value = traceback = nullptr;
      return -1;
    };
    if (Py_AddPendingCall(raise, nullptr) != 0) raise(nullptr);
  }
  PyGILState_Release(state);
  return raised;
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  dcrnn_fast::asks_to_end = &asks_to_end;
  m.doc() = "Facts about the compiled extension; importing it registers the dcrnn_fast operators with PyTorch.";
  m.def("build_info", &dcrnn_fast::build_info,
        "Compiler, C++ standard, the PyTorch built against, the oldest PyTorch the binary loads in.");
  m.def(
      "isa", [] { return dcrnn_fast::cpu::isa_name(dcrnn_fast::cpu::isa()); },
      "The CPU kernels' instruction set; ValueError where DCRNN_FAST_ISA names one that is unknown or that this CPU lacks.");
}
