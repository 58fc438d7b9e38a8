"""Builds the C++ extension where it can be built; without a compiler the package installs and runs on the reference.

What went wrong is written to ``dcrnn_fast/_build_failure.txt``, which ``python -m dcrnn_fast info`` shows: pip hides a build's output.
``DCRNN_FAST_CPP=0`` skips the extension, ``DCRNN_FAST_CPP=1`` makes its failure fatal.
"""

import os
import shlex
import shutil
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext as plain_build_ext

ROOT = Path(__file__).parent
WANTED = os.environ.get("DCRNN_FAST_CPP", "auto")
if WANTED not in ("auto", "0", "1"):
    raise SystemExit(f"DCRNN_FAST_CPP={WANTED!r}: expected 0 (skip the extension), 1 (require it) or auto")
MINIMUM_TORCH = "0x020a000000000000"  # 2.10 in TORCH_TARGET_VERSION's encoding: the oldest PyTorch the binary loads in

SOURCES = sorted(str(path.relative_to(ROOT)) for path in [*ROOT.glob("csrc/*.cpp"), *ROOT.glob("csrc/cpu/*.cpp")])

try:
    import pybind11
    from torch.utils.cpp_extension import BuildExtension, include_paths, library_paths
except ImportError as error:
    BuildExtension, module_missing = plain_build_ext, f"{error.name} could not be imported while the extension was built ({error})"
else:
    module_missing = None


def c_extension() -> Extension:
    flags = [
        "-O3",
        "-std=c++20",
        "-fvisibility=hidden",
        "-fno-math-errno",
        "-fno-trapping-math",
        "-Wall",
        "-Wextra",
        f"-DTORCH_TARGET_VERSION={MINIMUM_TORCH}",
    ]
    extension = Extension("dcrnn_fast._C", SOURCES, language="c++", optional=WANTED != "1")
    extension.extra_compile_args = flags
    if module_missing is None:
        # pybind11's own headers first: PyTorch 2.10 ships a copy that refuses to be included beside the stable ABI. As system headers,
        # since warnings of theirs are not ours to mend.
        extension.extra_compile_args += [flag for path in (pybind11.get_include(), *include_paths()) for flag in ("-isystem", path)]
        extension.library_dirs = library_paths()
        extension.libraries = ["c10", "torch", "torch_cpu"]
    return extension


def missing() -> str | None:
    """What the extension lacks on this machine, in words, or None."""
    compiler = shlex.split(os.environ.get("CXX", "c++"))[0]
    if os.name == "posix" and shutil.which(compiler) is None:
        return f"no C++ compiler: {compiler!r} was not found; install g++ or clang++, or name one in CXX"
    return module_missing


REPORT = Path("dcrnn_fast") / "_build_failure.txt"
if WANTED == "0":
    (ROOT / REPORT).unlink(missing_ok=True)


class build_ext(BuildExtension):  # noqa: N801 (setuptools' own name)
    """Records a failed build of an optional extension instead of failing the installation."""

    def run(self) -> None:
        package = ROOT if self.inplace or self.editable_mode else Path(self.build_lib)
        self.report = package / REPORT
        self.report.unlink(missing_ok=True)
        super().run()

    def build_extensions(self) -> None:
        try:
            if reason := missing():
                raise RuntimeError(reason)
            super().build_extensions()
        except Exception as error:
            if WANTED == "1":
                raise
            self.report.parent.mkdir(parents=True, exist_ok=True)
            advice = "" if missing() else "; for the compiler's messages: DCRNN_FAST_CPP=1 pip install -v -e ."
            self.report.write_text(f"{error}{advice}\n", encoding="utf-8")
            print(f"dcrnn_fast: the C++ extension was not built ({error}); the package will run on the reference backend")


setup(
    packages=[*find_packages(include=["dcrnn_fast", "dcrnn_fast.*"]), "dcrnn_fast.kernels"],
    package_dir={"dcrnn_fast.kernels": "kernels"},
    package_data={"dcrnn_fast": ["py.typed", REPORT.name, "data/embedded/*"], "dcrnn_fast.kernels": ["tuned/*.json"]},
    ext_modules=[] if WANTED == "0" else [c_extension()],
    cmdclass={"build_ext": build_ext},
)
