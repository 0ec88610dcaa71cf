"""Tables as files: CSV and JSON lines, sent row by row."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from fastapi.responses import Response, StreamingResponse

__all__ = ["csv_download", "csv_parts", "csv_response", "json_lines", "jsonl_download"]

_ROWS_OF_A_PART = 500


def csv_parts(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """CSV by RFC 4180, in parts of some hundred rows; the first line names the columns."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(columns), extrasaction="ignore", lineterminator="\r\n")
    writer.writeheader()
    for number, row in enumerate(rows, 1):
        writer.writerow(row)
        if number % _ROWS_OF_A_PART == 0:
            yield text.getvalue()
            text.seek(0)
            text.truncate()
    yield text.getvalue()


def json_lines(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """One JSON object a line."""
    for row in rows:
        yield json.dumps(dict(row), ensure_ascii=False, allow_nan=False) + "\n"


def _headers(name: str, tag: str = "") -> dict[str, str]:
    found = {"Content-Disposition": f'attachment; filename="{re.sub(r"[^A-Za-z0-9._-]+", "-", name)}"'}
    return {**found, "ETag": tag} if tag else found


def csv_response(name: str, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> Response:
    """A small table, sent whole."""
    return Response("".join(csv_parts(columns, rows)), media_type="text/csv", headers=_headers(name))


def csv_download(name: str, columns: Sequence[str], rows: Iterable[Mapping[str, Any]], tag: str) -> StreamingResponse:
    """A large table, sent part by part, with the ETag of what it is made of."""
    return StreamingResponse(csv_parts(columns, rows), media_type="text/csv", headers=_headers(name, tag))


def jsonl_download(name: str, rows: Iterable[Mapping[str, Any]], tag: str) -> StreamingResponse:
    """The same as JSON lines."""
    return StreamingResponse(json_lines(rows), media_type="application/x-ndjson", headers=_headers(name, tag))
