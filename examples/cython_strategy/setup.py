"""Builds a strategy that subclasses ``TengriNeuralStrategy`` in Cython."""

from pathlib import Path

import nautilus_trader
from Cython.Build import cythonize
from setuptools import Extension, setup

import tengri_fast

TENGRI = Path(tengri_fast.__file__).resolve().parent
NAUTILUS = Path(nautilus_trader.__file__).resolve().parent

setup(
    ext_modules=cythonize(
        Extension(
            "confident_strategy.strategy",
            ["confident_strategy/strategy.pyx"],
            # Only declarations are used; nothing is linked.
            include_dirs=[str(TENGRI / "include"), str(NAUTILUS / "core" / "includes")],
        ),
        # Where `tengri_fast/**/*.pxd` lie; needed when tengri_fast is installed in editable mode.
        include_path=[str(TENGRI.parent)],
        compiler_directives={"language_level": 3},
    ),
)
