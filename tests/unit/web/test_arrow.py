"""A list that was taken for a mapping while pyarrow was imported is one no more."""

from __future__ import annotations

import subprocess
import sys

import pytest

RACE = """
import abc, threading
from collections.abc import Hashable, Mapping, Sequence

asked, answers = threading.Event(), [isinstance([], Sequence), isinstance([], Mapping)]

def ask():
    asked.wait()
    Hashable.register(type("Another", (), {}))  # what was answered before is asked anew
    answers.append(isinstance([], Mapping))

thread = threading.Thread(target=ask)
thread.start()

init = abc._abc_init

def slow_init(made):
    if made.__name__ == "MapScalar":  # the thread gets its turn between the class and its own answers
        asked.set()
        thread.join()
    init(made)

abc._abc_init = slow_init
"""


@pytest.mark.parametrize(("importing", "mapping"), [("import pyarrow", True), ("import_arrow()", False)])
def test_lists_are_no_mappings_after_pyarrow_was_imported_beside_other_threads(importing: str, mapping: bool) -> None:
    """What pyarrow alone does is shown, so that this is seen to be about something."""
    after = "print(*answers, isinstance([], Mapping), isinstance([], Sequence))"
    code = f"{RACE}\nfrom neuronmap.web.arrow import import_arrow\n{importing}\n{after}"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert ran.stdout.split() == ["True", "False", "True", str(mapping), "True"]
