// The Python module of the extension: facts about the build. Tensors never pass through it: they reach the operators through PyTorch's
// dispatcher.
#include <pybind11/pybind11.h>

#include <atomic>
#include <utility>

#include "build_info.h"
#include "cpu/isa.h"
#include "interrupt.h"

namespace py = pybind11;

namespace {

std::atomic<unsigned long> main_thread{0};

void remember_main_thread() { main_thread = py::module_::import("threading").attr("main_thread")().attr("ident").cast<unsigned long>(); }

// Runs the handlers of signals that came, on Python's main thread; no other can, and none else takes the interpreter's lock here. If a
// handler raises, the call ends with a C++ exception, which PyTorch makes a RuntimeError; the interpreter raises the handler's own
// exception when Python code runs next.
bool asks_to_end() {
  static PyObject *type = nullptr, *value = nullptr, *traceback = nullptr;
  if (!Py_IsInitialized() || PyThread_get_thread_ident() != main_thread) return false;
  const PyGILState_STATE state = PyGILState_Ensure();
  bool raised = type != nullptr;  // one that is still to be raised ends this call too
  if (!raised && PyErr_CheckSignals() != 0) {
    raised = true;
    PyErr_Fetch(&type, &value, &traceback);
    const auto raise = [](void*) {
      if (!type) return 0;
      PyErr_Restore(std::exchange(type, nullptr), std::exchange(value, nullptr), std::exchange(traceback, nullptr));
      return -1;
    };
    if (Py_AddPendingCall(raise, nullptr) != 0) raise(nullptr);
  }
  PyGILState_Release(state);
  return raised;
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  remember_main_thread();
  const py::module_ os = py::module_::import("os");
  if (py::hasattr(os, "register_at_fork")) os.attr("register_at_fork")(py::arg("after_in_child") = py::cpp_function(&remember_main_thread));
  dcrnn_fast::asks_to_end = &asks_to_end;
  m.doc() = "Facts about the compiled extension; importing it registers the dcrnn_fast operators with PyTorch.";
  m.def("build_info", &dcrnn_fast::build_info,
        "Compiler, C++ standard, the PyTorch built against, the oldest PyTorch the binary loads in.");
  m.def(
      "isa", [] { return dcrnn_fast::cpu::isa_name(dcrnn_fast::cpu::isa()); },
      "The CPU kernels' instruction set; ValueError where DCRNN_FAST_ISA names one that is unknown or that this CPU lacks.");
}
