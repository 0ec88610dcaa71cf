"""Pickled files: tensors and plain values come out; programs do not, and have nothing to reach for."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from layouts import values

from neuronmap.errors import DamagedError, InputError
from neuronmap.hub.formats.stored import read_stored
from neuronmap.hub.formats.unpickling import save_plain, unpickled


class Notes:
    """A progress that keeps its notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


class Touch:
    """What a malicious pickle is made of: a function and its arguments."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return os.mkdir, (os.fspath(self.file),)


def test_tensors_and_plain_values_come_out(tmp_path: Path) -> None:
    base = values(6, 4)
    content = {"sae": {"W": base, "row": base[1], "half": base.bfloat16()}, "step": 7, "rate": float("nan"),
               "names": ["a", None, True], "layers": {3: torch.tensor(2)}}  # fmt: skip
    save_plain(content, tmp_path / "file.pt")
    shown = Notes()
    stored = read_stored(tmp_path / "file.pt", shown)  # type: ignore[arg-type]
    assert stored.values == {"sae": {}, "step": 7, "rate": "nan", "names": ["a", None, True], "layers": {}}
    assert torch.equal(stored.tensors["sae/W"], base)
    assert torch.equal(stored.tensors["sae/row"], base[1])  # shared memory became memory of its own
    assert stored.tensors["sae/half"].dtype is torch.bfloat16
    assert int(stored.tensors["layers/3"]) == 2
    assert "process of its own" in shown.notes[0]
    assert set(stored.under("sae").tensors) == {"W", "half", "row"}


def test_a_program_is_not_run(tmp_path: Path) -> None:
    target = tmp_path / "made-by-the-pickle"
    torch.save({"weight": values(2, 2), "extra": Touch(target)}, tmp_path / "evil.pt")
    with pytest.raises(InputError, match=r"evil\.pt is not opened: .*mkdir"):
        read_stored(tmp_path / "evil.pt")
    assert not target.exists()


def test_a_whole_module_is_refused(tmp_path: Path) -> None:
    """What overcomplete writes."""
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pt")
    with pytest.raises(InputError, match="would run as a program") as caught:
        read_stored(tmp_path / "module.pt")
    assert "Linear" in caught.value.message
    assert "state_dict" in caught.value.hint


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_pickle_that_torch_did_not_write_is_refused_in_plain_words(protocol: int, tmp_path: Path) -> None:
    (tmp_path / "plain.pt").write_bytes(pickle.dumps({"weight": [1.0, 2.0], "call": print}, protocol=protocol))
    with pytest.raises(InputError, match=r"plain\.pt is not opened: it is a plain pickle of Python's") as caught:
        read_stored(tmp_path / "plain.pt")
    assert "operand" not in caught.value.message
    assert "documentation" not in caught.value.message


@pytest.mark.parametrize(("content", "said"), [(b"", "it is empty"), (b"hello, weights", "begins with b'hello, w'")])
def test_what_is_no_pickle_is_said(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "file.pt").write_bytes(content)
    with pytest.raises(DamagedError, match=said):
        read_stored(tmp_path / "file.pt")


def test_the_old_form_of_torch_is_read(tmp_path: Path) -> None:
    base = values(3, 2)
    torch.save({"weight": base}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert torch.equal(read_stored(tmp_path / "old.pt").tensors["weight"], base)


def test_a_cut_file_is_refused(tmp_path: Path) -> None:
    whole = tmp_path / "whole.pt"
    torch.save({"weight": values(64, 64)}, whole)
    (tmp_path / "cut.pt").write_bytes(whole.read_bytes()[:5000])
    with pytest.raises(DamagedError, match="cut"):
        read_stored(tmp_path / "cut.pt")


def test_the_folder_is_private_and_goes(tmp_path: Path) -> None:
    save_plain({"weight": values(2, 2)}, tmp_path / "file.pt")
    with unpickled(tmp_path / "file.pt") as found:
        folder = found.folder
        assert folder.stat().st_mode & 0o777 == 0o700
        assert sorted(file.name for file in folder.iterdir()) == ["tensors.safetensors", "values.json"]
    assert not folder.exists()


ATTEMPTS = {
    "a socket": "import socket; socket.socket()",
    "a process": "import subprocess; subprocess.run(['true'])",
    "os.system": "import os; os.system('true')",
    "a file elsewhere": "open(outside, 'w')",
    "os.open elsewhere": "import os; os.open(outside, os.O_WRONLY | os.O_CREAT)",
    "deleting": "import os; os.remove(outside)",
    "a second pickle": "import pickle; pickle.loads(pickled)",
}


def test_the_child_has_nothing_to_reach_for(tmp_path: Path) -> None:
    """The same guard, with attempts that get past ``weights_only`` standing in for a hole in it."""
    (tmp_path / "inside").mkdir()
    program = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from neuronmap.hub.formats import unpickling
        outside, pickled, attempts = sys.argv[1], bytes.fromhex(sys.argv[2]), sys.argv[4:]
        import socket, subprocess, os, pickle
        unpickling._watch(Path(sys.argv[3]))
        open(sys.argv[3] + "/allowed", "w").close()
        for attempt in attempts:
            try:
                exec(attempt)
                print("done")
            except unpickling._Refused as error:
                print("refused", error)
        """
    )
    evil = pickle.dumps(Touch(tmp_path / "made")).hex()
    ran = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "elsewhere"), evil, str(tmp_path / "inside"), *ATTEMPTS.values()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    said = ran.stdout.splitlines()
    assert [line.split()[0] for line in said] == ["refused"] * len(ATTEMPTS), ran.stdout
    assert (tmp_path / "inside" / "allowed").exists()
    assert not (tmp_path / "elsewhere").exists()
    assert not (tmp_path / "made").exists()
