"""Build hook: compiles the C engine while the package is built or installed, if the machine has a C compiler.

``pip install .`` and wheels get the engine inside, an editable install gets it beside its sources, and without a compiler the
package is a pure Python one that runs the ``torch`` kernels (docs/decisions/0006). ``NEURONMAP_NO_ENGINE=1`` skips the compiler.
"""

from __future__ import annotations

import importlib.util
import os
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.tags import platform_tags

NATIVE = "neuronmap/saes/kernels/native"


class EngineBuildHook(BuildHookInterface):
    """Compiles before the files of a wheel are collected; never fails a build."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile into the source tree (editable) or into the wheel, which then names its platform.

        Args:
            version: ``editable`` or ``standard``.
            build_data: what hatchling is told about the wheel.
        """
        editable = version == "editable"
        sources = Path(self.root) / "src" / NATIVE
        self._scratch = tempfile.TemporaryDirectory(prefix="neuronmap-engine-")
        try:
            libraries = compile_engine(sources, sources / "compiled" if editable else Path(self._scratch.name))
        except RuntimeError as reason:
            self.app.display_warning(f"NeuronMap is built without its C engine; the torch kernels will run. {reason}")
            return
        self.app.display_info(f"NeuronMap's C engine: {', '.join(library.name for library in libraries)}")
        if not editable:
            build_data["force_include"].update(
                {str(library): f"{NATIVE}/compiled/{library.name}" for library in libraries}
            )
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{platform_tag()}"  # called through ctypes: no Python ABI in it

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the scratch folder once the wheel holds its content."""
        del version, build_data, artifact_path
        self._scratch.cleanup()


def compile_engine(sources: Path, folder: Path) -> list[Path]:
    """Compile with the package's own ``build.py``, which needs nothing installed.

    Raises:
        RuntimeError: why there is no engine.
    """
    if os.environ.get("NEURONMAP_NO_ENGINE", "0") not in ("", "0"):
        raise RuntimeError("NEURONMAP_NO_ENGINE is set.")
    spec = importlib.util.spec_from_file_location("neuronmap_engine_build", sources / "build.py")
    if spec is None or spec.loader is None:
        raise RuntimeError(f"{sources / 'build.py'} cannot be loaded.")
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    libraries: list[Path] = build.compile_engine(folder)
    return libraries


def platform_tag() -> str:
    """This machine's platform as wheels name it. On Linux the plain one: auditwheel finds the manylinux that is true."""
    if sysconfig.get_platform().startswith("linux"):
        return sysconfig.get_platform().replace("-", "_")
    return next(iter(platform_tags()))
