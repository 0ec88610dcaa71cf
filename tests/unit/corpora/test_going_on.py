"""What was interrupted goes on where it stood, and ends with the bytes of an uninterrupted run."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from neuronmap.corpora import Corpus, CorpusReport, Document, Mixture, open_corpus, tokenize, tokenizing
from neuronmap.corpora.reading import read_from
from neuronmap.paths import write_json

WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "and", "some", "more", "words"]


def text(number: int) -> str:
    return " ".join(WORDS[(number * step) % len(WORDS)] for step in range(1, 5 + number % 9)) + f" {number}"


def fill(folder: Path, files: int = 6, rows: int = 23) -> Path:
    """Parquet files of several row groups, jsonl with bad rows, a text file, a broken one, a stranger."""
    folder.mkdir(exist_ok=True)
    for file in range(files):
        texts = [text(1000 * file + row) if row % 11 else None for row in range(rows)]
        pq.write_table(
            pa.table({"text": texts, "n": list(range(rows))}), folder / f"p{file:03d}.parquet", row_group_size=7
        )
    lines = [json.dumps({"text": text(row)}) if row % 7 else "{broken" for row in range(40)]
    (folder / "lines.jsonl").write_text("\n".join(lines))
    (folder / "one.txt").write_text(text(77))
    (folder / "broken.parquet").write_bytes(b"PAR1 and no more")
    (folder / "image.png").write_bytes(b"png")
    return folder


class Plugin:
    """A corpus of somebody else's: the contract and nothing more."""

    name, description, streamed = "plug-in", "made in a test", False

    def documents(self, report: CorpusReport | None = None) -> Iterator[Document]:
        report = CorpusReport() if report is None else report
        for number in range(50):
            if number % 9 == 4:
                report.reject("odd", str(number))
                continue
            report.documents += 1
            yield Document(str(number), text(number % 40))

    def digest(self) -> str:
        return "sha256:plugin"

    def size_hint(self) -> int | None:
        return None


def hub(folder: Path, monkeypatch: pytest.MonkeyPatch, streaming: bool) -> Corpus:
    """A hub data set whose answers are put in place: the builder is the real one for parquet files."""
    from datasets.packaged_modules.parquet.parquet import Parquet

    files = [str(path) for path in sorted(folder.glob("p*.parquet"))]
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda *_, **__: type("Info", (), {"sha": "abc"}))
    monkeypatch.setattr(
        "datasets.load_dataset_builder",
        lambda *_, **__: Parquet(
            cache_dir=str(folder.parent / "cache"), dataset_name="w", hash="abc", data_files={"train": files}
        ),
    )
    return open_corpus(f"hf:owner/w?streaming={streaming}")


KINDS: dict[str, Callable[[Path, pytest.MonkeyPatch], Corpus]] = {
    "folder": lambda folder, _: open_corpus(folder),
    "list": lambda _, __: open_corpus([text(n) if n % 5 else "" for n in range(40)]),
    "data set": lambda _, __: open_corpus(datasets.Dataset.from_dict({"text": [text(n) for n in range(40)]})),
    "hub, downloaded": lambda folder, patch: hub(folder, patch, streaming=False),
    "hub, streamed": lambda folder, patch: hub(folder, patch, streaming=True),
    "sample": lambda _, __: open_corpus("pydoc"),
    "plug-in": lambda _, __: Plugin(),
    "mixture": lambda folder, _: Mixture([(open_corpus(folder), 2), (Plugin(), 1)], exhausted="repeat"),
    "mixture, stop": lambda folder, _: Mixture([(open_corpus(folder), 1), (Plugin(), 3)]),
    "deduplicated": lambda folder, _: open_corpus(
        Mixture([(open_corpus(folder), 1), (Plugin(), 1)], exhausted="go_on"), deduplicate=True
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("corpus") / "texts")


@pytest.mark.parametrize("kind", KINDS)
def test_every_corpus_goes_on_from_a_place_in_json(folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    def opened() -> Corpus:
        return KINDS[kind](folder, monkeypatch)

    whole = CorpusReport()
    documents = list(opened().documents(whole))
    assert len(documents) > 30
    for count in {0, 1, 7, 24, len(documents) // 2, 3 * len(documents) // 4, len(documents) - 1, len(documents)}:
        before = CorpusReport()
        reading = read_from(opened(), before)
        assert [next(reading) for _ in range(count)] == documents[:count]
        place, kept = json.loads(json.dumps([reading.place(), before.to_dict()]))
        after = CorpusReport()
        going_on = read_from(opened(), after, place)
        after.restore(kept)
        assert list(going_on) == documents[count:], count
        assert after == whole, count


def files_of(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizing, "FIRST_BATCH_CHARS", 300)
    monkeypatch.setattr(tokenizing, "LARGEST_BATCH_CHARS", 400)
    monkeypatch.setattr(tokenizing, "JOURNAL_SECONDS", 0.0)


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("options", [{"part": "all"}, {"part": "train", "max_tokens": 2500, "separator": None}])
@pytest.mark.parametrize("stops", [[1], [2, 3, 1], [3, 3, 2]])
@pytest.mark.parametrize("kind", ["folder", "hub, streamed", "mixture", "deduplicated"])
def test_interrupted_tokenising_ends_with_the_same_bytes(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tiny_tokenizer: Any, notes: Any, home: Path, kind: str,
    stops: list[int], options: dict[str, Any],
) -> None:  # fmt: skip
    def run(progress: Any = None) -> Any:
        corpus = KINDS[kind](folder, monkeypatch)
        return tokenize(corpus, tiny_tokenizer, context_length=16, progress=progress, **options)

    expected = run()
    whole = files_of(expected.folder)
    for file in expected.folder.iterdir():
        file.unlink()
    expected.folder.rmdir()
    encode = tokenizing._Tokenizing._encode
    for batches in stops:
        left = [batches]

        def stopping(self: Any, batch: Any, left: list[int] = left) -> Any:
            if left[0] == 0:
                raise KeyboardInterrupt
            left[0] -= 1
            return encode(self, batch)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):  # noqa: PT012 (patched within)
            patch.setattr(tokenizing._Tokenizing, "_encode", stopping)
            run()
        assert [path.name for path in (home / "cache" / "tokens").iterdir()] == [f".unfinished-{expected.folder.name}"]
    interrupted = next((home / "cache" / "tokens").iterdir())
    (interrupted / ".journal.json.abc").write_text("{")  # a kill while the journal is replaced
    again = run(notes)
    assert any("Going on with the interrupted tokenising" in line for line in notes.lines)
    assert files_of(again.folder) == whole
    assert [path.name for path in (home / "cache" / "tokens").iterdir()] == [again.folder.name]


@pytest.mark.usefixtures("small_batches")
def test_a_kill_after_the_last_file_loses_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tiny_tokenizer: Any, notes: Any, home: Path
) -> None:
    """Everything is written, and the folder is about to get its name."""

    def last(path: Path, value: Any) -> None:
        write_json(path, value)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):  # noqa: PT012 (patched within)
        patch.setattr(tokenizing, "write_json", last)
        tokenize(folder, tiny_tokenizer, context_length=16, part="all")
    again = tokenize(folder, tiny_tokenizer, context_length=16, part="all", progress=notes)
    assert any("Going on with the interrupted" in line for line in notes.lines)
    whole = tokenize(folder, tiny_tokenizer, context_length=16, part="all", cache=False)
    assert again.report.to_dict() == whole.report.to_dict()
    names = ["document.bin", "documents.parquet", "input_ids.bin", "manifest.json", "position.bin"]
    assert sorted(path.name for path in again.folder.iterdir()) == names
    assert [path.name for path in (home / "cache" / "tokens").iterdir()] == [again.folder.name]


@pytest.mark.usefixtures("small_batches")
def test_a_journal_whose_data_is_gone_or_of_other_text_is_not_used(
    tiny_tokenizer: Any, home: Path, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    def stopped() -> Path:
        def saved(self: Any, *stand: Any) -> None:
            real(self, *stand)
            raise KeyboardInterrupt

        real = tokenizing._Journal.save
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):  # noqa: PT012 (patched within)
            patch.setattr(tokenizing._Journal, "save", saved)
            tokenize(folder, tiny_tokenizer, context_length=16, part="all")
        return next((home / "cache" / "tokens").glob(".unfinished-*"))

    expected = tokenize(folder, tiny_tokenizer, context_length=16, part="all", cache=False)
    for damage in ("other key", "no JSON", "short file"):
        left = stopped()
        journal = left / "journal.json"
        if damage == "other key":
            journal.write_text(json.dumps({**json.loads(journal.read_text()), "key": "sha256:0"}))
        elif damage == "no JSON":
            journal.write_text("{")
        else:
            (left / "position.bin").write_bytes(b"")
        again = tokenize(folder, tiny_tokenizer, context_length=16, part="all")
        assert again.report.to_dict() == expected.report.to_dict(), damage
        for file in again.folder.iterdir():
            file.unlink()
        again.folder.rmdir()
    assert list((home / "cache" / "tokens").iterdir()) == []


TOKENISE_AND_KILL = """
import os, random, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_going_on import fill
from transformers import PreTrainedTokenizerFast
from neuronmap.corpora import open_corpus, tokencache, tokenize, tokenizing
from neuronmap.progress import SilentProgress
tokenizing.FIRST_BATCH_CHARS, tokenizing.LARGEST_BATCH_CHARS, tokenizing.JOURNAL_SECONDS = 1000, 1000, 0.0
os.environ["TOKENIZERS_PARALLELISM"] = "false"
work = Path(sys.argv[2])
tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(work / "tokenizer.json"), eos_token="</s>")
spec = f"mix:3*{fill(work / 'a', 12, 60)},1*{fill(work / 'b', 12, 60)};go_on"

def run(home):
    os.environ["NEURONMAP_HOME"] = str(work / home)
    return tokenize(open_corpus(spec), tokenizer, context_length=16, part="all", progress=SilentProgress())

whole = run("whole")
chance, kills = random.Random(5), 0
real = tokencache._Pieces.write
while True:
    left = [chance.randrange(2, 40)]

    def dying(self, values):  # in the middle of a write
        left[0] -= 1
        if left[0] == 0:
            real(self, values[: len(values) // 2])
            self._file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        real(self, values)

    pid = os.fork()
    if pid == 0:
        tokencache._Pieces.write = dying
        run("killed")
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != -signal.SIGKILL:
        break
    kills += 1
killed = run("killed")
for one in sorted(whole.folder.iterdir()):
    assert one.read_bytes() == (killed.folder / one.name).read_bytes(), one.name
names = [sorted(path.name for path in one.folder.iterdir()) for one in (whole, killed)]
assert names[0] == names[1], names
print(kills)
"""


def test_sigkill_in_the_middle_of_writes_then_again_gives_the_same_bytes(tiny_tokenizer: Any, tmp_path: Path) -> None:
    tiny_tokenizer.backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    arguments = [sys.executable, "-c", TOKENISE_AND_KILL, str(Path(__file__).parent), str(tmp_path)]
    child = subprocess.run(arguments, stdout=subprocess.PIPE, text=True, check=True)
    assert int(child.stdout) >= 4


def test_hundreds_of_parquet_files_are_read_one_after_the_other(tmp_path: Path) -> None:
    """300 files of 0.5 MB: Arrow never holds more than a few of them, and going on opens only those that are left."""
    body = "word " * 2000
    for number in range(300):
        pq.write_table(
            pa.table({"text": [f"{number} {row} {body}" for row in range(50)]}), tmp_path / f"{number:04d}.parquet",
            compression="none", use_dictionary=False,
        )  # fmt: skip
    size = sum(file.stat().st_size for file in tmp_path.iterdir())
    corpus, pool = open_corpus(tmp_path), pa.default_memory_pool()
    at_rest, most = pool.bytes_allocated(), 0
    reading = read_from(corpus, CorpusReport())
    for count, _ in enumerate(reading, 1):
        most = max(most, pool.bytes_allocated() - at_rest)
        if count == 14_000:
            place = reading.place()
    assert count == 300 * 50
    assert size > 140e6
    assert most < 5e6
    for number in range(279):
        (tmp_path / f"{number:04d}.parquet").unlink()  # would be an unreadable file if it were opened
    report = CorpusReport()
    rest = list(read_from(corpus, report, place))
    assert (len(rest), report.bad, rest[0].id) == (1000, {}, "0280.parquet:1")
