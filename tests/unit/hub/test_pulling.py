"""SAEs that go to a bucket and come back: what the library had stays, what it had not is added."""

from __future__ import annotations

from pathlib import Path

import pytest
from bundles import make_bundle

from neuronmap.errors import InputError
from neuronmap.hub import SAEModelHub
from neuronmap.hub.buckets import pull_sae, push_sae
from neuronmap.objects import RemoteFolders
from neuronmap.progress import SilentProgress
from neuronmap.zoo.blobs import LocalBlobStore

QUIET = SilentProgress()


def test_a_pull_adds_what_is_new_and_keeps_what_is_here(tmp_path: Path) -> None:
    place = RemoteFolders(LocalBlobStore(tmp_path / "bucket"))
    one, other = SAEModelHub(tmp_path / "one"), SAEModelHub(tmp_path / "other")
    made = one.register(make_bundle(tmp_path / "made"), name="mine").path
    push_sae(one, "mine", place, progress=QUIET)
    first = pull_sae(other, "mine", place, progress=QUIET)
    assert not first.known
    (made / "analyses" / "a0").mkdir(parents=True)
    (made / "analyses" / "a0" / "manifest.json").write_text("{}")
    (made / "README.md").write_text("Of the one.")
    push_sae(one, "mine", place, analyses=True, progress=QUIET)
    (first.entry.path / "README.md").write_text("Of the other.")

    second = pull_sae(other, "mine", place, progress=QUIET)
    assert (second.known, second.brought, second.kept) == (True, ("analyses/a0",), ("README.md",))
    assert (first.entry.path / "analyses" / "a0" / "manifest.json").read_text() == "{}"
    assert (first.entry.path / "README.md").read_text() == "Of the other."
    assert pull_sae(other, "mine", place, progress=QUIET).brought == ()
    replaced = pull_sae(other, "mine", place, replace=True, progress=QUIET)
    assert not replaced.known
    assert (replaced.entry.path / "README.md").read_text() == "Of the one."
    with pytest.raises(InputError, match="there is mine"):
        pull_sae(other, "another", place, progress=QUIET)
