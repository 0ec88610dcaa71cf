"""The vocabulary of a feature store: what each token stands for, as a table. How tokens are shown: :mod:`neuronmap.corpora.pieces`.

Shapes: V tokens in the vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from neuronmap.corpora.pieces import Piece, TokenTexts, visible
from neuronmap.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

__all__ = ["Piece", "Vocabulary", "visible"]


class Vocabulary(TokenTexts):
    """The bytes of every token, kept in ``vocabulary.parquet``.

    Args:
        bytes_V: what each token stands for; empty for ids without a token.
        special_V: whether it is a special token.
    """

    @classmethod
    def from_table(cls, table: pa.Table) -> Self:
        """Read ``vocabulary.parquet``."""
        return cls(table["bytes"].to_pylist(), table["special"].to_pylist())

    def to_table(self, count_V: npt.NDArray[np.integer]) -> pa.Table:
        """``vocabulary.parquet`` (schema "vocabulary").

        Args:
            count_V: rows with each token.

        Raises:
            InputError: the count is not of this many tokens.
        """
        import numpy as np
        import pyarrow as pa

        from neuronmap.features.storage.schema import arrow_schema

        if len(count_V) != self.size:
            raise InputError(f"Counts of {len(count_V)} tokens were given for a vocabulary of {self.size}.")
        columns = {
            "token": np.arange(self.size, dtype=np.int32),
            "bytes": self._bytes,
            "text": [self.text_of(token) for token in range(self.size)],
            "special": self._special,
            "count": np.asarray(count_V, np.int64),
        }
        return pa.table(columns, schema=arrow_schema("vocabulary"))
