"""Compiling, finding and doing without the native engine; the build hook of the package."""

from __future__ import annotations

import importlib.util
import pkgutil
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest
import torch

from neuronmap.errors import ConfigError
from neuronmap.saes.kernels import choice
from neuronmap.saes.kernels.native import build, library
from neuronmap.saes.workspace import Workspace

ROOT = Path(__file__).parents[4]
CPU = torch.device("cpu")

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="there is no C compiler on this machine"
)


@pytest.fixture
def engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own in which the engine is looked for, empty at first."""
    monkeypatch.setattr(library, "COMPILED", tmp_path)
    return tmp_path  # what was opened is remembered by its path


@pytest.fixture
def no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))


def test_each_kind_of_machine_has_something_to_build():
    assert list(build.variants("x86_64")) == list(build.variants("AMD64")) == ["x86-64-v4", "x86-64-v3"]
    for machine in ("arm64", "aarch64", "ppc64le"):
        assert build.variants(machine) == {"generic": []}
    assert build.variants() in (build.variants("x86_64"), build.variants("arm64"))


@needs_compiler
def test_what_is_compiled_is_found_and_runs_in_the_threads_of_torch(engines):
    built = build.compile_engine(engines)
    assert sorted(engines.iterdir()) == sorted(built)
    assert library.why_not() is None
    engine = library.load_engine()
    assert engine is not None
    threads = f"{torch.get_num_threads()} thread"
    assert choice.describe(CPU).startswith(f"native ({engine.variant}, {threads if engine.threaded else '1 thread'}")
    for path in built:
        # A second OpenMP runtime would start a second pool of threads, which fights torch's for the cores.
        assert not any(name in path.read_bytes() for name in (b"libgomp", b"libomp", b"libiomp"))


def test_the_best_variant_that_the_cpu_can_run_is_taken(engines, monkeypatch):
    monkeypatch.setattr(library, "variants", lambda: build.variants("x86_64"))
    for name in build.variants("x86_64"):
        (engines / f"engine-{name}.so").touch()
    for can, taken in (("AVX512", "x86-64-v4"), ("AVX2", "x86-64-v3")):
        monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda can=can: can)
        assert library._find() == engines / f"engine-{taken}.so"
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "DEFAULT")
    assert "this CPU (DEFAULT) has not the instructions" in str(library.why_not())
    (engines / "engine-x86-64-v3.so").unlink()
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "AVX2")
    assert "x86-64-v4" in str(library.why_not())


def test_without_an_engine_the_torch_kernels_run_and_it_is_said_why(engines):
    assert library.load_engine() is None
    described = choice.describe(CPU)
    assert described.startswith("torch (the engine was not compiled")
    assert "neuronmap.saes.kernels.native.build" in described
    W_DF = torch.zeros(8, 4).T
    assert choice.kernels_for(Workspace(), W_DF, share=0.1).name == "torch"
    with pytest.raises(ConfigError, match=r"kernels = 'native' cannot run: the engine was not compiled"):
        choice.require("native", CPU)


@needs_compiler
@pytest.mark.parametrize("damage", ["other sources", "no library", "an older library"])
def test_an_engine_that_does_not_belong_to_this_version_is_not_used(engines, monkeypatch, damage):
    """Its functions may take other arguments: calling them would end the process."""
    if damage == "other sources":
        monkeypatch.setattr(build, "sources_digest", lambda: "0" * 64)
        build.compile_engine(engines)
    else:
        (engines / "empty.c").write_text("int nothing;" if damage == "an older library" else "")
        for name in build.variants():
            target = engines / f"engine-{name}.so"
            if damage == "no library":
                target.write_text("text")
            else:
                subprocess.run(["cc", "-shared", "-fPIC", str(engines / "empty.c"), "-o", str(target)], check=True)
    reason = library.why_not()
    assert reason is not None
    assert "cannot be used" in reason
    assert "native.build" in reason
    assert library.load_engine() is None
    assert choice.kernels_for(Workspace(), torch.zeros(8, 4).T, share=0.1).name == "torch"


def test_a_machine_without_a_compiler_is_told_what_was_looked_for(engines, no_compiler):
    with pytest.raises(RuntimeError, match=r"No C compiler found \(looked for \$CC, cc, gcc and clang\)"):
        build.compile_engine(engines)


@pytest.mark.parametrize("compiler", ["false", "/nonexistent/compiler"])
def test_a_compiler_that_fails_is_named_and_leaves_nothing_behind(engines, monkeypatch, compiler):
    monkeypatch.setenv("CC", compiler)
    with pytest.raises(RuntimeError, match=f"^{compiler} .*(failed|did not run)"):
        build.compile_engine(engines)
    assert list(engines.iterdir()) == []


# --- the hook ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def hook_module() -> ModuleType:
    pytest.importorskip("hatchling", reason="hatchling builds the package; the hook needs it")
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Said:
    """Stands for the application that a hook talks to."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.display_info = self.display_warning = self.lines.append


def run_hook(module: ModuleType, version: str) -> tuple[dict, list[str], list[str]]:
    """What the hook told hatchling, what it said, and which files it put in the wheel that exist while it is written."""
    said, build_data = Said(), {"force_include": {}, "pure_python": True}
    hook = module.EngineBuildHook(str(ROOT), {}, None, None, "", "wheel", app=said)
    hook.initialize(version, build_data)
    there = [target for source, target in build_data["force_include"].items() if Path(source).is_file()]
    hook.finalize(version, build_data, "")
    assert not any(Path(source).exists() for source in build_data["force_include"])
    return build_data, said.lines, there


@needs_compiler
def test_a_wheel_gets_the_engine_and_names_its_platform_but_no_python(hook_module):
    build_data, lines, there = run_hook(hook_module, "standard")
    assert there == [f"neuronmap/saes/kernels/native/compiled/engine-{name}.so" for name in build.variants()]
    assert build_data["pure_python"] is False
    assert build_data["tag"].startswith("py3-none-")
    assert not build_data["tag"].endswith("-any")
    assert len(lines) == 1


@pytest.mark.parametrize("version", ["standard", "editable"])
@pytest.mark.parametrize("why", ["no compiler", "not wanted"])
def test_without_an_engine_the_wheel_is_pure_and_one_line_says_why(hook_module, monkeypatch, tmp_path, version, why):
    monkeypatch.delenv("CC", raising=False)
    if why == "no compiler":
        monkeypatch.setenv("PATH", str(tmp_path))
    else:
        monkeypatch.setenv("NEURONMAP_NO_ENGINE", "1")
    build_data, lines, _ = run_hook(hook_module, version)
    assert build_data == {"force_include": {}, "pure_python": True}
    assert len(lines) == 1
    assert ("No C compiler found" if why == "no compiler" else "NEURONMAP_NO_ENGINE is set") in lines[0]
    assert "\n" not in lines[0]


def test_the_sources_are_named_and_there():
    """They are part of every wheel, so that the engine can be compiled later."""
    assert all((build.HERE / name).is_file() for name in build.SOURCES)


def test_compiled_files_do_not_pass_for_python_modules():
    names = {module.name for module in pkgutil.iter_modules([str(build.HERE)])}
    assert names == {path.stem for path in build.HERE.glob("*.py")} - {"__init__"}
