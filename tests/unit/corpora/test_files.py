"""Files and folders as corpora: every format and compression, bad rows counted with their places."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from neuronmap.corpora import CorpusReport, open_corpus, tokenize
from neuronmap.errors import CorpusFormatError, CorpusNotFoundError, EmptyCorpusError

TEXTS = ["first text", "second, with a comma\nand a line", "dritter Text: Straße"]
JSONL = "".join(json.dumps({"id": number, "text": text}) + "\n" for number, text in enumerate(TEXTS)).encode()
CSV = (
    b'\xef\xbb\xbfid,text\r\n0,first text\r\n1,"second, with a comma\nand a line"\r\n2,dritter Text: Stra\xc3\x9fe\r\n'
)
TSV = 'number\treview\n0\tfirst text\n1\t"second, with a comma\nand a line"\n2\tdritter Text: Straße\n'.encode()
ARRAY = json.dumps([{"text": text} for text in TEXTS], indent=1).encode()
COMPRESS: dict[str, Any] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}


def read(source: Any, **options: Any) -> tuple[list[str], list[str], CorpusReport]:
    """Ids and texts of a corpus, and the report."""
    report = CorpusReport()
    documents = list(open_corpus(source, **options).documents(report))
    return [document.id for document in documents], [document.text for document in documents], report


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize(("name", "data"), [("a.jsonl", JSONL), ("a.csv", CSV), ("a.tsv", TSV), ("a.json", ARRAY)])
def test_rows_of_a_table_file_are_documents(tmp_path: Path, compression: str, name: str, data: bytes) -> None:
    path = tmp_path / (name + compression)
    path.write_bytes(COMPRESS[compression](data))
    ids, texts, report = read(path)
    assert texts == TEXTS
    assert all(where.startswith(f"{name}{compression}:") for where in ids)
    assert len(set(ids)) == 3
    assert (report.documents, report.num_bad) == (3, 0)


@pytest.mark.parametrize("compression", COMPRESS)
def test_a_text_file_is_one_document(tmp_path: Path, compression: str) -> None:
    path = tmp_path / f"book.txt{compression}"
    path.write_bytes(COMPRESS[compression]("\ufeffStraße\r\nzwei".encode()))
    assert read(str(path))[:2] == ([f"book.txt{compression}"], ["Straße\r\nzwei"])


@pytest.mark.parametrize("compression", [".gz", ".bz2", ".xz"])
def test_members_joined_in_one_compressed_file_are_all_read(tmp_path: Path, compression: str) -> None:
    path = tmp_path / f"a.jsonl{compression}"
    path.write_bytes(COMPRESS[compression](JSONL) + COMPRESS[compression](JSONL))
    assert read(path)[1] == TEXTS + TEXTS


def test_zstandard_frames_joined_in_one_file_are_all_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(COMPRESS[".zst"](JSONL) + COMPRESS[".zst"](JSONL))
    assert read(path)[1] == TEXTS + TEXTS


@pytest.mark.parametrize("compression", [".gz", ".bz2", ".xz", ".zst"])
def test_a_cut_off_compressed_file_is_counted(tmp_path: Path, compression: str) -> None:
    import random

    noise = random.Random(0).randbytes(200_000).hex().encode()
    (tmp_path / "good.txt").write_text("good")
    (tmp_path / f"cut.txt{compression}").write_bytes(COMPRESS[compression](noise)[:-5000])
    _, texts, report = read(tmp_path)
    assert texts == ["good"]
    assert report.bad == {"unreadable file": 1}
    assert "cut.txt" in report.examples["unreadable file"][0]


def test_parquet_is_streamed_by_row_groups(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"n": [1, 2, 3, 4], "text": ["a", None, "c", " "]}), path, row_group_size=2)
    ids, texts, report = read(path)
    assert (ids, texts) == (["a.parquet:1", "a.parquet:3"], ["a", "c"])
    assert report.bad == {"missing text": 1, "empty text": 1}
    assert report.examples == {"missing text": ["a.parquet:2"], "empty text": ["a.parquet:4"]}


def test_a_folder_is_read_recursively_in_order_of_names(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "z.md").write_text("third")
    (tmp_path / "a.txt").write_text("first")
    (tmp_path / "b" / "c.jsonl").write_text('{"text": "second"}\n')
    (tmp_path / ".hidden.txt").write_text("never")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    ids, texts, report = read(tmp_path)
    assert (ids, texts) == (["a.txt", "b/c.jsonl:1", "b/z.md"], ["first", "second", "third"])
    assert report.examples == {"file of an unknown kind": ["picture.png"]}


def test_every_bad_row_is_counted_by_reason_with_three_places(tmp_path: Path) -> None:
    lines = [
        b'{"text": "good"}',
        b"{broken",
        b"{broken",
        b"{broken",
        b"{broken",
        b'{"text": ""}',
        b'{"text": "  "}',
        b'{"text": 7}',
        b'{"other": 1}',
        b'{"text": null}',
        b'{"text": "caf\xe9"}',
        b'{"text": "\\ud800"}',
        b"",
        b'{"text": "also good"}',
    ]
    path = tmp_path / "file.jsonl"
    path.write_bytes(b"\n".join(lines))
    ids, texts, report = read(path)
    assert (ids, texts) == (["file.jsonl:1", "file.jsonl:14"], ["good", "also good"])
    assert report.bad == {
        "invalid JSON": 4,
        "empty text": 2,
        "neither text nor token ids": 1,
        "missing text": 2,
        "undecodable bytes": 2,
    }
    assert report.examples["invalid JSON"] == ["file.jsonl:2", "file.jsonl:3", "file.jsonl:4"]
    assert "4 invalid JSON (file.jsonl:2, file.jsonl:3, file.jsonl:4)" in report.bad_line()


def test_bad_csv_rows_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"id,text\n1,good\n2\n3,a,b\n4,caf\xe9\n5,\n6,good too\n")
    _, texts, report = read(path)
    assert texts == ["good", "good too"]
    assert report.bad == {"wrong number of columns": 2, "undecodable bytes": 1, "empty text": 1}
    assert report.examples["wrong number of columns"] == ["a.csv:3", "a.csv:4"]


def test_a_csv_cell_may_be_longer_than_the_default_limit(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,text\n1," + "word " * 50_000 + "\n")
    assert len(read(tmp_path / "a.csv")[1][0]) == 250_000


def test_undecodable_text_file_is_counted_not_guessed(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    (tmp_path / "b.txt").write_text("good")
    _, texts, report = read(tmp_path)
    assert (texts, report.bad) == (["good"], {"undecodable bytes": 1})


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.csv", "a.json", "a.parquet"])
def test_an_empty_file_is_an_empty_corpus_with_the_count(tmp_path: Path, name: str, tiny_tokenizer: Any) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(EmptyCorpusError, match=rf"1 empty (text|file) \({name}\)"):
        tokenize(open_corpus(tmp_path / name), tiny_tokenizer)


def test_a_broken_parquet_file_is_counted(tmp_path: Path, tiny_tokenizer: Any) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 this is not parquet")
    with pytest.raises(EmptyCorpusError, match="1 unreadable file"):
        tokenize(open_corpus(tmp_path / "a.parquet"), tiny_tokenizer)


def test_jsonl_of_bare_strings_or_ids(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('"one"\n[1, 2, 3]\n{"text": "odd"}\n')
    documents = list(open_corpus(tmp_path / "a.jsonl").documents())
    assert documents[0].text == "one"
    assert documents[1].ids is not None
    assert documents[1].ids.tolist() == [1, 2, 3]
    assert len(documents) == 2


@pytest.mark.parametrize(
    ("row", "chosen", "text"),
    [
        ({"title": "t", "content": "c"}, None, "c"),
        ({"n": 1, "review": "r"}, None, "r"),
        ({"title": "t", "prose": "p"}, "prose", "p"),
        ({"text": "t", "input_ids": [1, 2]}, None, "t"),
    ],
)
def test_which_column_is_the_text(tmp_path: Path, row: dict[str, Any], chosen: str | None, text: str) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n")
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.parquet"):
        assert read(tmp_path / name, text_column=chosen)[1] == [text]


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet", "a.csv"])
def test_an_unclear_or_wrong_column_lists_the_columns_at_once(tmp_path: Path, name: str) -> None:
    row = {"title": "t", "prose": "p", "n": 1.5}
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n")
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_text("title,prose,n\nt,p,1.5\n")
    with pytest.raises(CorpusFormatError, match=r"title \(text\), prose \(text\), n \(other\)") as unclear:
        open_corpus(tmp_path / name)
    assert "text_column" in unclear.value.hint
    with pytest.raises(CorpusFormatError, match="no column 'pros'") as wrong:
        open_corpus(tmp_path / name, text_column="pros")
    assert "'prose'" in wrong.value.hint


def test_unknown_ending_lists_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "a.docx").write_bytes(b"x")
    with pytest.raises(CorpusFormatError, match=r"\.docx") as error:
        open_corpus(tmp_path / "a.docx")
    assert ".parquet" in error.value.hint
    with pytest.raises(EmptyCorpusError, match="1 other files"):
        open_corpus(tmp_path)


def test_missing_path_suggests_near_names(tmp_path: Path) -> None:
    (tmp_path / "speeches.txt").write_text("x")
    with pytest.raises(CorpusNotFoundError, match="no file, folder, or sample") as error:
        open_corpus(str(tmp_path / "speeche.txt"))
    assert "speeches.txt" in error.value.hint
    with pytest.raises(CorpusNotFoundError) as sample:
        open_corpus("sottu")
    assert "sotu" in sample.value.hint


@pytest.mark.parametrize("text", ["", "The cat sat on the mat.", "one\ntwo", "x" * 5000])
def test_text_given_in_place_of_a_source_is_explained(text: str) -> None:
    with pytest.raises(CorpusNotFoundError, match="looks like text itself") as error:
        open_corpus(text)
    assert "list of texts" in error.value.hint


def test_the_digest_follows_content_not_place(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.txt").write_text("same")
    one, two = (open_corpus(tmp_path / folder).digest() for folder in ("one", "two"))
    assert one == two
    (tmp_path / "two" / "a.txt").write_text("Same")
    assert open_corpus(tmp_path / "two").digest() != one
