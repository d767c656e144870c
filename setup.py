"""Builds the native kernel where there is a C++ compiler; without one the install goes on and says so."""

from __future__ import annotations

import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, CCompilerError, ExecError, PlatformError

SOURCE = Path("simulation/engine/native/src")
FLAGS = ["-O3", "-g0", "-std=c++17", "-fvisibility=hidden", "-fno-math-errno", "-fno-trapping-math", "-pthread"]
QUIET = ["-Wno-psabi", "-Wno-maybe-uninitialized"]  # vectors never cross the library's door; GCC 12's own headers


class OptionalKernel(build_ext):
    """An extension that may fail to build: the engine without it gives the same numbers, more slowly."""

    def build_extension(self, ext: Extension) -> None:
        """Compile it, or say what follows from that it could not be."""
        try:
            super().build_extension(ext)
        except (BaseError, CCompilerError, ExecError, PlatformError, OSError):
            print(
                "PocketScore: no C++ compiler built the native kernel; the batched engine takes its place",
                file=sys.stderr,
            )
            raise
        print("PocketScore: the native kernel is built", file=sys.stderr)


KERNEL = Extension(
    "simulation.engine.native._kernels",
    sources=sorted(str(path) for path in SOURCE.glob("*.cpp")),
    depends=sorted(str(path) for path in SOURCE.glob("*.hpp")),
    language="c++",
    extra_compile_args=[*FLAGS, *QUIET],
    extra_link_args=["-pthread"],
    optional=True,
)

setup(cmdclass={"build_ext": OptionalKernel}, ext_modules=[KERNEL])
