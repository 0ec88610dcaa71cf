"""Files as byte streams, whether compressed or not."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from pathlib import Path
from typing import BinaryIO, cast

__all__ = ["COMPRESSIONS", "READ_ERRORS", "open_binary", "plain_suffix"]

COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")

READ_ERRORS = (OSError, EOFError, zlib.error, lzma.LZMAError)
"""What reading a broken, truncated or forbidden file raises."""


def plain_suffix(path: Path) -> str:
    """The ending that tells the format, lower case and without the compression: ``a.jsonl.gz`` -> ``.jsonl``."""
    return (Path(path.stem) if path.suffix.lower() in COMPRESSIONS else path).suffix.lower()


def open_binary(path: Path) -> BinaryIO:
    """Open for reading, decompressing by the ending. Several compressed frames in one file are read through."""
    match path.suffix.lower():
        case ".gz":
            return cast("BinaryIO", gzip.open(path, "rb"))
        case ".bz2":
            return cast("BinaryIO", bz2.open(path, "rb"))
        case ".xz":
            return cast("BinaryIO", lzma.open(path, "rb"))
        case ".zst":
            import io

            import pyarrow

            # pyarrow's reader, because it says when the file is cut off; zstandard's returns what there is.
            return cast("BinaryIO", io.BufferedReader(pyarrow.input_stream(str(path), compression="zstd"), 1 << 20))
        case _:
            return path.open("rb")
