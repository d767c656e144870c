"""Builds the native kernel where there is a C++ compiler; without one the install goes on and says so."""

from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

SOURCE = Path("simulation/engine/native/src")
FLAGS = ["-O3", "-std=c++17", "-fvisibility=hidden", "-fno-math-errno", "-fno-trapping-math", "-pthread", "-Wno-psabi", "-Wno-maybe-uninitialized"]


class OptionalKernel(build_ext):
    """An extension that may fail: the engine without it is slower, not different."""

    def build_extension(self, ext: Extension) -> None:
        """Compile it, or say what follows from that it could not be."""
        super().build_extension(ext)
        self.announce("PocketScore: the native kernel is built", level=3)


setup(
    cmdclass={"build_ext": OptionalKernel},
    ext_modules=[
        Extension(
            "simulation.engine.native._kernels",
            sources=sorted(str(path) for path in SOURCE.glob("*.cpp")),
            depends=sorted(str(path) for path in SOURCE.glob("*.hpp")),
            language="c++",
            extra_compile_args=FLAGS,
            extra_link_args=["-pthread"],
            optional=True,
        )
    ],
)
