"""Compiles the hot loops (src/trackd/compiled.py) when trackd is installed or made into a wheel.

Needs a C compiler and Python's headers. Without them it says so and trackd is installed without the
compiled loops, unless TRACKD_REQUIRE_COMPILED is set: then the installation fails.
"""

import os
import tempfile
from pathlib import Path
from typing import Any

from Cython.Build import cythonize
from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from setuptools import Distribution, Extension
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, CCompilerError

SOURCE = Path("src")


class CompiledLoops(BuildHookInterface[Any]):
    """Puts the compiled modules beside their sources."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """See BuildHookInterface; version: `standard` or `editable`."""
        root = Path(self.root)
        try:
            built = _compile(root)
        except (BaseError, CCompilerError, OSError) as error:
            if os.environ.get("TRACKD_REQUIRE_COMPILED"):
                raise
            self.app.display_warning(f"the hot loops of trackd are not compiled: {error}")
            return
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        if version == "standard":
            build_data["force_include"] |= {
                str(path): str(path.relative_to(root / SOURCE)) for path in built
            }


def _compile(root: Path) -> list[Path]:
    """Compiles every .pyx of the source; the files that came of it."""
    extensions = [
        Extension(
            ".".join(path.relative_to(root / SOURCE).with_suffix("").parts),
            [str(path.relative_to(root))],
            extra_compile_args=["-O2", "-g0", "-fno-strict-aliasing"],
        )
        for path in sorted((root / SOURCE).rglob("*.pyx"))
    ]
    before = Path.cwd()
    os.chdir(root)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            distribution = Distribution(
                {
                    "name": "trackd",
                    "package_dir": {"": str(SOURCE)},
                    "ext_modules": cythonize(
                        extensions, build_dir=scratch, include_path=[str(SOURCE)], quiet=True
                    ),
                }
            )
            command = build_ext(distribution)
            command.inplace = True
            command.build_temp = scratch
            command.ensure_finalized()
            command.run()
            return [root / output for output in command.get_output_mapping().values()]
    finally:
        os.chdir(before)
