"""Compile the limiter's accelerator into the wheel, or leave it out with a word where that cannot be done.

The limiter is written twice: in Python, and in C for speed (docs/decisions/0015-accelerator.md). Without a C compiler,
CPython's headers or its interpreter lock, the wheel has the one in Python alone, and can be installed anywhere. The
compiled module has a name outside the packages, so that it never lies beside the sources.
"""

from __future__ import annotations

import hashlib
import platform
import shutil
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from setuptools import Distribution, Extension  # type: ignore[import-untyped]
from setuptools.command.build_ext import build_ext  # type: ignore[import-untyped]
from setuptools.errors import BaseError, CCompilerError  # type: ignore[import-untyped]

MODULE = "_learnflow_limiter"
FOLDER = "learnflow_core/limiter"


class AcceleratorHook(BuildHookInterface[Any]):
    """Adds the compiled module to a wheel, editable or not."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, in a folder that lasts until the wheel is written."""
        self.scratch = tempfile.mkdtemp()
        try:
            built = compiled(Path(self.root), Path(self.scratch))
        except CannotCompileError as why:
            self.app.display_warning(f"The limiter's accelerator is left out, its twin in Python is there: {why}")
            return
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        included = "force_include_editable" if version == "editable" else "force_include"
        build_data[included][str(built)] = built.name

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was compiled; the wheel has its copy."""
        shutil.rmtree(self.scratch)


class CannotCompileError(Exception):
    """Says why there can be no accelerator here."""


def sources(root: Path) -> list[Path]:
    """The accelerator's source files; the one to compile includes the others."""
    return sorted((root / FOLDER).glob("*.[ch]"))


def digest(root: Path) -> str:
    """What tells one state of the sources from another; the compiled module has that of its own."""
    return hashlib.sha256(b"\0".join(source.read_bytes() for source in sources(root))).hexdigest()


def compiled(root: Path, folder: Path) -> Path:
    """The module, compiled into a folder. Raises CannotCompileError, with the reason."""
    if platform.python_implementation() != "CPython":
        raise CannotCompileError("it is made for CPython")
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        raise CannotCompileError("it relies on the interpreter's lock")
    extension = Extension(
        MODULE, [str(root / FOLDER / "memory.c")], define_macros=[("SOURCE_DIGEST", f'"{digest(root)}"')]
    )
    command = build_ext(Distribution({"name": MODULE, "ext_modules": [extension]}))
    command.build_lib = str(folder)
    command.build_temp = str(folder / "objects")
    command.ensure_finalized()
    try:
        command.run()
    except (BaseError, CCompilerError, OSError) as failure:
        raise CannotCompileError(str(failure)) from failure
    return Path(command.get_ext_fullpath(MODULE))
