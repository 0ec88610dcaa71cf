"""Numbers and texts as they go into answers: rounded, finite, whitespace visible."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from neuronmap.features.storage.text import Piece
from neuronmap.paths import public_name
from neuronmap.web.live.answers import RestsOn, ShownPiece
from neuronmap.web.live.loaded import LoadedSAE

__all__ = ["number", "numbers", "rests_on_of", "rounded", "shown_pieces"]


def rests_on_of(here: LoadedSAE) -> RestsOn:
    """SAE, model and analysis that an answer is of."""
    attached = here.attached
    return RestsOn(
        sae=here.entry.id,
        weights_digest=attached.digest,
        features=attached.num_features,
        model=public_name(attached.model.identity.name),
        model_digest=attached.model.identity.model_digest,
        hook=attached.hook.name,
        analysis=here.analysis,
        analysis_key=None if here.store is None else here.store.key,
    )


def shown_pieces(pieces: Iterable[Piece], masked: Sequence[str] = ()) -> list[ShownPiece]:
    """Pieces with the reason why their tokens are masked, one a token."""
    return [
        ShownPiece(
            text=piece.text,
            shown=piece.shown,
            start=piece.start,
            stop=piece.stop,
            special=piece.special,
            masked=next((why for why in masked[piece.start : piece.stop] if why), ""),
        )
        for piece in pieces
    ]


def rounded(value: float) -> float:
    """6 significant digits: more than the float32 behind it is worth."""
    return float(f"{float(value):.6g}")


def number(value: float | None) -> float | None:
    """The same rounded; None for what is not finite."""
    return None if value is None or not math.isfinite(value) else rounded(value)


def numbers(value_N: npt.NDArray[np.floating]) -> list[float | None]:
    """The same for each."""
    return [number(value) for value in value_N.tolist()]
