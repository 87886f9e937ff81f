"""Compiles the native operators into the package; everything else is in pyproject.toml.

The operators are a plain shared library without Python's headers, so that C++ programs load the same file and one wheel
serves every Python version. Without a C++ compiler the package is installed without them (and says so when they are
asked for); ``SPARSEPACK_REQUIRE_NATIVE=1`` makes that an error.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py
from setuptools.errors import CCompilerError, ExecError, PlatformError

SOURCES = Path("runtimes/native/csrc")
HEADERS = Path("runtimes/native/include")
REQUIRED = os.environ.get("SPARSEPACK_REQUIRE_NATIVE") == "1"


class BuildOperators(build_ext):
    """A plain shared library: fixed file name, no Python symbol, allowed to be missing."""

    missing = False

    def get_ext_filename(self, fullname: str) -> str:
        """Return the file's place without Python's version in its name."""
        return str(Path(*fullname.split("."))) + ".so"

    def get_export_symbols(self, ext: Extension) -> list[str]:
        """Return no symbols: the library has no initialisation function."""
        return []

    def build_extension(self, ext: Extension) -> None:
        """Compile, or go on without the library where that is allowed."""
        try:
            super().build_extension(ext)
        except (CCompilerError, ExecError, PlatformError) as error:
            if REQUIRED:
                raise
            self.missing = True
            print(
                f"sparsepack: WARNING: the native operators were not built ({error}); install a C++17 compiler (g++ or "
                "clang++) and install sparsepack again to have them",
                file=sys.stderr,
            )

    def get_output_mapping(self) -> dict[str, str]:
        """Return what an editable installation copies back."""
        return {} if self.missing else super().get_output_mapping()

    def get_outputs(self) -> list[str]:
        """Return what was built."""
        return [] if self.missing else super().get_outputs()

    def copy_extensions_to_source(self) -> None:
        """Copy the library beside its sources, for an editable installation."""
        if not self.missing:
            super().copy_extensions_to_source()


class BuildPackage(build_py):
    """The repository root is the package: the build script is not part of it."""

    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        """Return the modules of a package without those that only build or test it."""
        found = super().find_package_modules(package, package_dir)
        return [module for module in found if module[:2] not in {("sparsepack", "setup"), ("sparsepack", "conftest")}]


class PlatformWheel(bdist_wheel):
    """The library uses no Python ABI: py3-none-<platform>, or py3-none-any where it is missing."""

    def get_tag(self) -> tuple[str, str, str]:
        """Return the wheel's tag; called after everything is built."""
        platform = super().get_tag()[2]
        build: BuildOperators = self.get_finalized_command("build_ext")
        return ("py3", "none", "any" if build.missing else platform)


def operators() -> Extension:
    """Return the library; each source chooses its own instruction set, so one set of options compiles them all."""
    options = ["-std=c++17", "-O3", "-g0", "-DNDEBUG", "-fvisibility=hidden", "-ffp-contract=fast", "-Wno-psabi"]
    exports = SOURCES / "exports.map"
    return Extension(
        "sparsepack.runtimes.native.libsparsepack_ops",
        sources=sorted(str(path) for path in SOURCES.rglob("*.cpp")),
        depends=[*sorted(str(path) for path in SOURCES.rglob("*.h")), str(exports)],
        include_dirs=[str(SOURCES), str(HEADERS)],
        language="c++",
        extra_compile_args=options,
        # Standard templates would otherwise be exported beside our two functions.
        extra_link_args=[f"-Wl,--version-script={exports}"] if sys.platform == "linux" else [],
    )


setup(
    ext_modules=[operators()],
    cmdclass={"build_ext": BuildOperators, "build_py": BuildPackage, "bdist_wheel": PlatformWheel},
)
