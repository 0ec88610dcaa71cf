"""The cache of tokens: reused when nothing changed, made again when damaged, never half there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neuronmap.corpora import open_corpus, open_tokens, tokenize
from neuronmap.corpora.tokencache import id_dtype
from neuronmap.errors import DamagedError, DiskSpaceError

TEXTS = [f"Text number {number} with some more words in it." for number in range(40)]


@pytest.fixture
def cache(home: Path) -> Path:
    return home / "cache" / "tokens"


def make(tokenizer: Any, **options: Any) -> Any:
    return tokenize(TEXTS, tokenizer, **{"context_length": 16, "part": "all", **options})


def test_the_second_time_nothing_is_tokenised(tiny_tokenizer: Any, cache: Path, notes: Any) -> None:
    first = make(tiny_tokenizer)
    second = make(tiny_tokenizer, progress=notes)
    assert notes.tasks == []
    assert notes.lines == [second.summary()]
    assert "reused" in second.summary()
    assert (first.digest, first.folder) == (second.digest, second.folder)
    assert first.report.to_dict() == {**second.report.to_dict(), "reused": False}
    whole = first.contexts(0, first.num_contexts), second.contexts(0, second.num_contexts)
    assert (whole[0].input_ids == whole[1].input_ids).all()


def test_every_input_is_in_the_key(tiny_tokenizer: Any, bos_tokenizer: Any, cache: Path) -> None:
    keys = [
        make(tiny_tokenizer).digest,
        make(tiny_tokenizer, context_length=8).digest,
        make(tiny_tokenizer, part="train").digest,
        make(tiny_tokenizer, part="train", heldout_fraction=0.2).digest,
        make(tiny_tokenizer, separator=None).digest,
        make(tiny_tokenizer, prepend_bos=True).digest,
        make(tiny_tokenizer, max_tokens=64).digest,
        make(bos_tokenizer).digest,
        tokenize(TEXTS[1:], tiny_tokenizer, context_length=16, part="all").digest,
    ]
    assert len(set(keys)) == len(keys) == len(list(cache.iterdir()))
    assert make(tiny_tokenizer, heldout_fraction=0.5).digest == keys[0], "no held-out part in 'all'"
    assert make(tiny_tokenizer, cache=False).digest == keys[0]


def test_nothing_is_written_without_cache(tiny_tokenizer: Any, cache: Path) -> None:
    assert make(tiny_tokenizer, cache=False).folder is None
    assert not cache.exists()


def test_files_are_memory_mapped_small_integers(tiny_tokenizer: Any) -> None:
    tokens = make(tiny_tokenizer)
    size = tokens.num_contexts * 16
    assert (tokens.folder / "input_ids.bin").stat().st_size == 2 * size
    assert (tokens.folder / "position.bin").stat().st_size == 4 * size
    assert isinstance(tokens._arrays.input_ids_M, np.memmap)
    assert id_dtype(65_536) == np.uint16
    assert id_dtype(65_537) == id_dtype(None) == np.uint32
    assert str(Path.home()) not in (tokens.folder / "manifest.json").read_text()


def damage(kind: str, folder: Path) -> None:
    manifest = folder / "manifest.json"
    match kind:
        case "truncated":
            data = (folder / "input_ids.bin").read_bytes()
            (folder / "input_ids.bin").write_bytes(data[:-2])
        case "missing":
            (folder / "document.bin").unlink()
        case "no manifest":
            manifest.unlink()
        case "broken manifest":
            manifest.write_text("{")
        case "other version":
            manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "version": 99}))
        case "other key":
            manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "key": "sha256:0"}))


@pytest.mark.parametrize(
    "kind", ["truncated", "missing", "no manifest", "broken manifest", "other version", "other key"]
)
def test_a_damaged_cache_is_made_again_with_a_note(tiny_tokenizer: Any, notes: Any, kind: str) -> None:
    first = make(tiny_tokenizer)
    expected = first.contexts(0, first.num_contexts).input_ids
    damage(kind, first.folder)
    if kind != "other key":
        with pytest.raises(DamagedError):
            open_tokens(first.folder)
    again = make(tiny_tokenizer, progress=notes)
    assert "damaged" in notes.lines[0]
    assert not again.report.reused
    assert (again.contexts(0, again.num_contexts).input_ids == expected).all()
    assert open_tokens(again.folder, verify=True).digest == again.digest


def test_a_changed_byte_is_found_when_verifying(tiny_tokenizer: Any) -> None:
    folder = make(tiny_tokenizer).folder
    path = folder / "input_ids.bin"
    path.write_bytes(b"\x05" + path.read_bytes()[1:])
    open_tokens(folder)
    with pytest.raises(DamagedError, match="SHA-256"):
        open_tokens(folder, verify=True)


def test_a_foreign_folder_is_left_alone(tiny_tokenizer: Any) -> None:
    folder = make(tiny_tokenizer).folder
    (folder / "thesis.txt").write_text("precious")
    with pytest.raises(DamagedError, match="other files: thesis"):
        make(tiny_tokenizer)
    assert (folder / "thesis.txt").read_text() == "precious"


@pytest.mark.parametrize("streamed", [False, True])
def test_an_interrupt_leaves_nothing_half(tiny_tokenizer: Any, cache: Path, streamed: bool) -> None:
    class Interrupting(list[str]):
        def __iter__(self) -> Iterator[str]:
            yield from super().__iter__()
            if self.armed:
                raise KeyboardInterrupt

    texts = Interrupting(TEXTS)
    texts.armed = False  # type: ignore[attr-defined]
    corpus = open_corpus(iter(texts)) if streamed else open_corpus(texts)
    if not streamed:
        corpus.digest = lambda: "sha256:1"  # type: ignore[method-assign]
    texts.armed = True  # type: ignore[attr-defined]
    with pytest.raises(KeyboardInterrupt):
        tokenize(corpus, tiny_tokenizer, context_length=16)
    assert list(cache.iterdir()) == []


def test_a_full_disk_is_said_before_reading(tiny_tokenizer: Any, tmp_path: Path, monkeypatch: Any, cache: Path) -> None:
    (tmp_path / "a.txt").write_text("word " * 100_000)

    class Usage:
        free = 300 << 20

    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage)
    tokenize(tmp_path / "a.txt", tiny_tokenizer, part="all")
    Usage.free = 256 << 20
    with pytest.raises(DiskSpaceError, match="tokens of a"):
        tokenize(tmp_path / "a.txt", tiny_tokenizer, part="all", context_length=64)


def test_a_disk_that_fills_while_writing(tiny_tokenizer: Any, cache: Path, monkeypatch: Any) -> None:
    def full(self: Any, values: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("neuronmap.corpora.tokencache._Pieces.write", full)
    with pytest.raises(DiskSpaceError, match="No space left"):
        make(tiny_tokenizer)
    assert list(cache.iterdir()) == []


def test_two_writers_at_once_end_with_one_cache(tiny_tokenizer: Any, cache: Path, monkeypatch: Any) -> None:
    from neuronmap.corpora import tokenizing

    run = tokenizing._Tokenizing.into
    inner: list[Any] = []

    def into(self: Any, folder: Path, key: str | None, journal: Any = None) -> str:
        if not inner:
            inner.append(None)
            inner.append(make(tiny_tokenizer))  # the other process finishes first
        return run(self, folder, key, journal)

    monkeypatch.setattr(tokenizing._Tokenizing, "into", into)
    outer = make(tiny_tokenizer)
    assert outer.digest == inner[1].digest
    assert len(list(cache.iterdir())) == 1
