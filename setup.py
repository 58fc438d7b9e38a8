"""Builds the extensions where they can be built; without a compiler the package installs and runs on the reference.

``dcrnn_fast._C`` has the operators' schemas and CPU kernels, ``dcrnn_fast._C_cuda`` the CUDA kernels. The latter takes minutes and is
built where ``DCRNN_FAST_CUDA`` or ``FORCE_CUDA`` asks for it, a GPU or not, for ``TORCH_CUDA_ARCH_LIST`` (default: 8.0 to 12.0, as far as
the nvcc knows them). What went wrong is written to ``_build_failure*.txt`` in the package, which ``python -m dcrnn_fast info`` shows: pip
hides a build's output. ``auto`` builds an extension where it can, ``1`` makes a failure fatal, ``DCRNN_FAST_CPP=0`` skips both.
``DCRNN_FAST_O`` is the level of optimisation of the CPU's code (default: 3).
"""

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext as plain_build_ext

sys.path.insert(0, str(Path(__file__).parent / "scripts"))
from sources import sources

ROOT = Path(__file__).parent
MINIMUM_TORCH = "0x020a000000000000"  # 2.10 in TORCH_TARGET_VERSION's encoding: the oldest PyTorch the binaries load in
ARCHITECTURES = ("8.0", "9.0", "10.0", "12.0")


def wanted(name: str, default: str) -> str:
    """ "0", "1" or "auto" from the environment."""
    value = os.environ.get(name, default)
    if value not in ("auto", "0", "1"):
        raise SystemExit(f"{name}={value!r}: expected 0 (skip the extension), 1 (require it) or auto")
    return value


LEVEL = os.environ.get("DCRNN_FAST_O", "3")
if LEVEL not in ("0", "1", "2", "3"):
    raise SystemExit(f"DCRNN_FAST_O={LEVEL!r}: expected a level of optimisation, 0 to 3")
FORCED = "1" if os.environ.get("FORCE_CUDA") == "1" else "0"
WANTED = {"_C": wanted("DCRNN_FAST_CPP", "auto"), "_C_cuda": wanted("DCRNN_FAST_CUDA", FORCED)}
if WANTED["_C"] == "0":
    WANTED["_C_cuda"] = "0"  # it needs the schemas


def name_toolkit() -> None:
    """Set CUDA_HOME where it is not: PyTorch takes the folder above the nvcc on the path, which may be a wrapper far from the toolkit."""
    if "CUDA_HOME" in os.environ or "CUDA_PATH" in os.environ or shutil.which("nvcc") is None:
        return
    said = subprocess.run(["nvcc", "--dryrun", "-c", "any.cu"], capture_output=True, text=True, check=False).stderr
    top = [line.rpartition("TOP=")[2] for line in said.splitlines() if "TOP=" in line]
    if top and (Path(top[0]) / "include" / "cuda_runtime_api.h").is_file():
        os.environ["CUDA_HOME"] = str(Path(top[0]).resolve())


name_toolkit()

try:
    import pybind11
    import torch
    from torch.utils.cpp_extension import CUDA_HOME, BuildExtension, include_paths, library_paths
except ImportError as error:
    BuildExtension, module_missing = plain_build_ext, f"{error.name} could not be imported while the extension was built ({error})"
else:
    module_missing = None


def extension(name: str, groups: tuple[str, ...], device: str, libraries: list[str]) -> Extension:
    """An extension of the package."""
    made = Extension(f"dcrnn_fast.{name}", sources(*groups), language="c++", optional=WANTED[name] != "1")
    cxx = [
        f"-O{LEVEL}",
        "-std=c++20",
        "-fvisibility=hidden",
        "-fno-math-errno",
        "-fno-trapping-math",
        "-Wall",
        "-Wextra",
        f"-DTORCH_TARGET_VERSION={MINIMUM_TORCH}",
    ]
    if module_missing is None:
        # pybind11's own headers first: PyTorch 2.10 ships a copy that refuses to be included beside the stable ABI. As system headers,
        # since their warnings are not ours to fix.
        cxx += [flag for path in (pybind11.get_include(), *include_paths(device)) for flag in ("-isystem", path)]
        made.library_dirs = library_paths(device)
        made.libraries = ["c10", "torch", "torch_cpu", *libraries]
    made.extra_compile_args = cxx
    return made


def architectures() -> str:
    """TORCH_CUDA_ARCH_LIST, or those of ARCHITECTURES that the nvcc knows, the last also for GPUs to come."""
    given = os.environ.get("TORCH_CUDA_ARCH_LIST")
    if given:
        return given
    known = subprocess.run([nvcc(), "--list-gpu-arch"], capture_output=True, text=True, check=True).stdout.split()
    return ";".join(arch for arch in ARCHITECTURES if f"compute_{arch.replace('.', '')}" in known) + "+PTX"


def nvcc() -> str:
    return str(Path(CUDA_HOME or "") / "bin" / "nvcc")


def cuda_extension() -> Extension:
    """The CUDA kernels; their sources include no header of PyTorch's, so that one set of flags serves everywhere."""
    made = extension("_C_cuda", ("shared", "cuda", "cuda_python"), "cuda", ["torch_cuda", "cudart"])
    os.environ["TORCH_CUDA_ARCH_LIST"] = chosen = architectures()
    cxx = [*made.extra_compile_args, "-DUSE_CUDA", f'-DDCRNN_FAST_CUDA_ARCHITECTURES="{chosen}"']
    made.extra_compile_args = {"cxx": cxx, "nvcc": ["-O3", "-std=c++20", "--expt-relaxed-constexpr"]}
    return made


def missing() -> str | None:
    """What the C++ extension lacks on this machine, in words, or None."""
    compiler = shlex.split(os.environ.get("CXX", "c++"))[0]
    if os.name == "posix" and shutil.which(compiler) is None:
        return f"no C++ compiler: {compiler!r} was not found; install g++ or clang++, or name one in CXX"
    return module_missing


def cuda_missing() -> str | None:
    """What the CUDA extension lacks, in words, or None."""
    if reason := missing():
        return reason
    if torch.version.cuda is None:
        return f"PyTorch {torch.__version__} was built without CUDA; install a CUDA build"
    if CUDA_HOME is None or not Path(nvcc()).is_file():
        return f"nvcc was not found; install the CUDA {torch.version.cuda} toolkit, or name its folder in CUDA_HOME"
    return None


MISSING = {"_C": missing(), "_C_cuda": cuda_missing()}
REPORTS = {"_C": "_build_failure.txt", "_C_cuda": "_build_failure_cuda.txt"}
for name, report in REPORTS.items():
    if WANTED[name] == "0":
        (ROOT / "dcrnn_fast" / report).unlink(missing_ok=True)


class build_ext(BuildExtension):  # noqa: N801 (setuptools' own name)
    """Builds one extension after the other, and records a failed build of an optional one instead of failing the installation."""

    def run(self) -> None:
        if (self.inplace or self.editable_mode) and WANTED["_C_cuda"] == "0":  # one of older sources would be loaded
            for old in (ROOT / "dcrnn_fast").glob("_C_cuda.*"):
                old.unlink()
        self.reports = (ROOT if self.inplace or self.editable_mode else Path(self.build_lib)) / "dcrnn_fast"
        super().run()

    def build_extensions(self) -> None:
        every = self.extensions
        for each in every:
            self.extensions = [each]
            self.build_one(each.name.rpartition(".")[2])
        self.extensions = every

    def build_one(self, name: str) -> None:
        report = self.reports / REPORTS[name]
        report.unlink(missing_ok=True)
        try:
            if reason := MISSING[name]:
                raise RuntimeError(reason)
            super().build_extensions()
        except Exception as error:
            if WANTED[name] == "1":
                raise
            self.reports.mkdir(parents=True, exist_ok=True)
            variable = "DCRNN_FAST_CPP" if name == "_C" else "DCRNN_FAST_CUDA"
            advice = "" if MISSING[name] else f"; for the compiler's messages: {variable}=1 pip install -v -e ."
            report.write_text(f"{error}{advice}\n", encoding="utf-8")
            print(f"dcrnn_fast: {name} was not built ({error}); the package will run on its other backends")


def package_dir() -> dict[str, str]:
    """Where the packages lie.

    For an editable installation, a link stands where ``dcrnn_fast.kernels`` is imported from. Then setuptools writes the path of this
    folder, which editors and type checkers follow, and no import hook, which they do not.
    """
    link = ROOT / "dcrnn_fast" / "kernels"
    if "editable_wheel" in sys.argv:
        with contextlib.suppress(OSError):  # no links on this file system
            if not link.is_dir():
                link.symlink_to(Path("..") / "kernels", target_is_directory=True)
            return {"": "."}
    return {"dcrnn_fast.kernels": "kernels"}


extensions = []
if WANTED["_C"] != "0":
    extensions.append(extension("_C", ("shared", "cpu", "python"), "cpu", []))
if WANTED["_C_cuda"] != "0":
    without = Extension("dcrnn_fast._C_cuda", [], optional=WANTED["_C_cuda"] != "1")
    extensions.append(without if MISSING["_C_cuda"] else cuda_extension())

setup(
    packages=sorted({*find_packages(include=["dcrnn_fast", "dcrnn_fast.*"]), "dcrnn_fast.kernels"}),
    package_dir=package_dir(),
    package_data={"dcrnn_fast": ["py.typed", *REPORTS.values(), "data/embedded/*", "serving/http/openapi.yaml"]},
    ext_modules=extensions,
    cmdclass={"build_ext": build_ext},
)
