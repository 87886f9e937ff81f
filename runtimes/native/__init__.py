"""The native operators: C++ sources, and where their shared library is on this machine.

``csrc/`` holds the kernels, what lays the weights out, and the binding to ONNX Runtime's C functions; ``include/`` the
header and ``examples/`` a program for C++ users, who can also build the library alone with ``CMakeLists.txt``.
Importing this package loads nothing.
"""

from __future__ import annotations

from .library import ENVIRONMENT, instruction_set, library_path, unavailable

__all__ = ["ENVIRONMENT", "instruction_set", "library_path", "unavailable"]
