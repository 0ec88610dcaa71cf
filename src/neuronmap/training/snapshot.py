"""What the features look like while they form: density histogram, L0, and examples of a few, at each held-out evaluation.

    <run>/snapshot.json      the last evaluation, whole
    <run>/snapshots.jsonl    one line an evaluation: step, tokens, rows, edges, counts, never, l0, features

The codes are those that the evaluation computes anyway; what is added is counting, and reading columns of eight features. Which
features are followed is drawn from those that fire at the first evaluation, with the run's seed; one that dies makes room for another.
Activations are on the scale of the raw activation, as those of the finished SAE.

Cost, on 2 cores: counting takes 1 to 2 % of an evaluation of 4,096 rows, examples and files about 9 ms (5 % at F = 4096, less of the
longer ones), and reading the vocabulary 0.2 s once a run. An evaluation itself takes at most a twentieth of the training.

Shapes: R measured rows, B rows of a batch, F features, J followed features, T tokens of a context.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from neuronmap.activations import ActivationStore
from neuronmap.corpora.pieces import TokenTexts
from neuronmap.paths import read_json, write_json
from neuronmap.saes.density import density_bins
from neuronmap.saes.kernels.code import SparseCode
from neuronmap.saes.meter import ReconstructionMeter, ReconstructionMetrics
from neuronmap.training.data import TrainingData
from neuronmap.training.history import append_line, read_lines, write_lines
from neuronmap.training.watching import SNAPSHOT, SNAPSHOT_FORMAT, SNAPSHOTS

if TYPE_CHECKING:
    from neuronmap.training.session import Session

__all__ = ["Snapshots"]

_FOLLOWED = 8
_EXAMPLES = 3
_BEFORE, _AFTER = 12, 6
"""Tokens shown beside the peak of an example."""
_LEAST_FIRINGS, _DENSE = 3, 0.1
"""Preferred are features that fire on 3 measured rows at least and on a tenth of them at most: others show little."""
_L0_BINS, _L0_ROWS = 16, 512
"""Bins, and rows that the histogram of L0 is of where codes are dense matrices: counting them all would be noticed."""


class Snapshots:
    """Writes the snapshots of a run.

    Args:
        folder: the run's.
        data: its rows, and the text of the held-out ones if that is known.
        scale: what inputs are multiplied by.
        seed: decides which features are followed.
    """

    def __init__(self, folder: Path, data: TrainingData, scale: float, seed: int) -> None:
        self.folder, self._data, self._scale, self._seed = folder, data, scale, seed
        self._followed: list[int] = []
        self._texts: TokenTexts | None = None
        self._measured: dict[int, _Origin | None] = {}  # by rows asked for: the same ones each time
        self._contexts: dict[int, _Context] = {}

    def rewind(self, step: int) -> None:
        """Drop what was written after ``step``, and follow the features of that moment again."""
        kept = [row for row in read_lines(self.folder / SNAPSHOTS) if row["step"] <= step]
        write_lines(self.folder / SNAPSHOTS, kept)
        self._followed = list(kept[-1]["features"]) if kept else []
        whole = self.folder / SNAPSHOT
        if whole.exists() and read_json(whole)["step"] > step:
            whole.unlink()  # of a moment that this run will come to again

    def take(self, session: Session, rows: int) -> ReconstructionMetrics:
        """Measure on held-out rows, and write down what the features look like.

        Args:
            session: the run at this moment.
            rows: about how many rows.

        Returns:
            The metrics of these rows.
        """
        dead_F = session.dead.mask_of_all().cpu().numpy()
        view = _View(self._followed, dead_F, np.random.default_rng([self._seed, session.step]))
        measured = session.glance(rows, view.look)
        self._followed = view.followed
        fired_F = view.fired_F
        edges, counts, never = density_bins(fired_F, measured.rows)
        tokens = session.step * session.plan.batch_rows
        line = {
            "step": session.step,
            "tokens": tokens,
            "rows": measured.rows,
            "edges": edges.tolist(),
            "counts": counts.tolist(),
            "never": never,
            "l0": measured.l0,
            "features": self._followed,
        }
        document = {
            "format": SNAPSHOT_FORMAT,
            "step": session.step,
            "steps": session.plan.steps,
            "tokens": tokens,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "rows": measured.rows,
            "heldout_is_training": self._data.heldout_is_training,
            "density": {"edges": line["edges"], "counts": line["counts"], "never": never},
            "l0": {"mean": measured.l0, **_histogram(view.l0_R)},
            "dead": int(dead_F.sum()),
            "features": self._described(view, measured.rows, rows),
        }
        write_json(self.folder / SNAPSHOT, document)
        append_line(self.folder / SNAPSHOTS, line)
        return measured

    # --- examples ----------------------------------------------------------------------------------------------------

    def _described(self, view: _View, measured: int, rows: int) -> list[dict[str, Any]]:
        f_RJ = view.f_RJ / self._scale
        if rows not in self._measured:
            self._measured[rows] = self._origin(rows)
        origin = self._measured[rows]
        return [
            {
                "feature": feature,
                "density": float(view.fired_F[feature]) / max(measured, 1),
                "max": _short(f_RJ[:, place].max(initial=0.0)),
                "examples": [] if origin is None else self._examples(f_RJ[:, place], origin),
            }
            for place, feature in enumerate(view.followed)
        ]

    def _origin(self, rows: int) -> _Origin | None:
        """Where the measured rows come from; None where their text is not known."""
        store, tokens = self._data.heldout, self._data.heldout_tokens
        if tokens is None or not isinstance(store, ActivationStore):
            return None
        parts = [store.provenance(start, stop) for start, stop in self._data.heldout_stretches(rows)]
        return _Origin(
            np.concatenate([part.document for part in parts]),
            np.concatenate([part.position for part in parts]),
            np.concatenate([part.context for part in parts]),
        )

    def _examples(self, f_R: npt.NDArray[np.float32], origin: _Origin) -> list[dict[str, Any]]:
        """The contexts with the largest activations, around each one's peak."""
        firing = np.flatnonzero(f_R)
        firing = firing[np.argsort(-f_R[firing], kind="stable")]
        contexts, first = np.unique(origin.context_R[firing], return_index=True)
        chosen = firing[np.sort(first)[:_EXAMPLES]] if len(contexts) else firing
        return [found for row in chosen.tolist() if (found := self._example(row, f_R, origin)) is not None]

    def _example(self, row: int, f_R: npt.NDArray[np.float32], origin: _Origin) -> dict[str, Any] | None:
        context = self._context(int(origin.context_R[row]), origin)
        peak = context.place_of.get(row)
        if peak is None:
            return None
        start, stop = max(0, peak - _BEFORE), min(len(context.ids), peak + _AFTER + 1)
        activations: list[float | None] = [None] * (stop - start)
        for one, at in context.place_of.items():
            if start <= at < stop:
                activations[at - start] = _short(f_R[one])
        window = context.ids[start:stop]
        return {
            "context": int(origin.context_R[row]),
            "document": context.documents[peak],
            "start": start,
            "peak": peak - start,
            "activation": _short(f_R[row]),
            "token_ids": window,
            "activations": activations,
            "pieces": self._pieces(window),
        }

    def _context(self, number: int, origin: _Origin) -> _Context:
        """A held-out context; a run meets the same few hundred again and again."""
        if number not in self._contexts:
            tokens: Any = self._data.heldout_tokens
            batch = tokens.contexts(number, number + 1)
            document_T = batch.document[0].tolist()
            pairs = enumerate(zip(document_T, batch.position[0].tolist(), strict=True))
            # separators and the like are in no document, so they have no place by which they could be found
            places = {pair: at for at, pair in pairs if pair[0] >= 0}
            own = np.flatnonzero(origin.context_R == number).tolist()
            found = {row: places.get((int(origin.document_R[row]), int(origin.position_R[row]))) for row in own}
            self._contexts[number] = _Context(
                ids=batch.input_ids[0].tolist(),
                documents=[tokens.document_id(one) if one >= 0 else "" for one in document_T],
                place_of={row: at for row, at in found.items() if at is not None},
            )
        return self._contexts[number]

    def _pieces(self, ids: list[int]) -> list[dict[str, Any]]:
        """The window as it is shown; empty where the run has no tokenizer."""
        model = self._data.language_model
        if model is None or model.tokenizer is None:
            return []
        if self._texts is None:
            size = int(model.module.get_input_embeddings().weight.shape[0])
            self._texts = TokenTexts.from_tokenizer(model.tokenizer, size)
        return [
            {"text": piece.text, "start": piece.start, "stop": piece.stop, "special": piece.special}
            for piece in self._texts.pieces(ids)
        ]


@dataclass(frozen=True)
class _Origin:
    """Document, place in it, and context of each measured row."""

    document_R: npt.NDArray[np.int32]
    position_R: npt.NDArray[np.int32]
    context_R: npt.NDArray[np.int32]


@dataclass(frozen=True)
class _Context:
    """A held-out context: its tokens, the document of each, and where in it each measured row is."""

    ids: list[int]
    documents: list[str]
    place_of: dict[int, int]


class _View:
    """Looks on while held-out rows are measured: how often each feature fires, L0, and the codes of the followed features.

    Args:
        followed: features of the evaluation before.
        dead_F: bool [F], those that the trainer counts as dead.
        random: draws features to follow.
    """

    def __init__(self, followed: list[int], dead_F: npt.NDArray[np.bool_], random: np.random.Generator) -> None:
        self.followed = [feature for feature in followed if not dead_F[feature]]
        self.fired_F = np.zeros(len(dead_F), dtype=np.int64)
        self._dead_F, self._random = dead_F, random
        self._l0: list[npt.NDArray[np.int64]] = []
        self._f: list[npt.NDArray[np.float32]] = []

    @property
    def l0_R(self) -> npt.NDArray[np.int64]:  # noqa: N802 (shape suffix)
        """int64, active features of some of the rows."""
        return np.concatenate([np.zeros(0, np.int64), *self._l0])

    @property
    def f_RJ(self) -> npt.NDArray[np.float32]:  # noqa: N802 (shape suffix)
        """float32 [R, J], activations of the followed features, on the scale of training."""
        return np.concatenate([np.zeros((0, len(self.followed)), np.float32), *self._f])

    def look(self, code: Tensor | SparseCode, meter: ReconstructionMeter) -> None:
        """One batch, which the meter has counted."""
        self.fired_F = meter.fired_F.cpu().numpy()
        if not self._f:  # the first batch is nearly always the only one
            self._fill(meter.rows)
        if isinstance(code, Tensor):
            step = -(-len(code) // _L0_ROWS)
            self._l0.append(code[::step].count_nonzero(dim=1).cpu().numpy())
            self._f.append(code[:, self.followed].float().cpu().numpy())
            return
        true_N = code.value_N != 0
        row_N, feature_N, value_N = code.row_N[true_N].long(), code.feature_N[true_N].long(), code.value_N[true_N]
        self._l0.append(torch.bincount(row_N, minlength=code.num_rows).cpu().numpy())
        column_F = torch.full((code.num_features,), -1, dtype=torch.int64, device=row_N.device)
        column_F[self.followed] = torch.arange(len(self.followed), device=row_N.device)
        column_N = column_F[feature_N]
        kept_N = column_N >= 0
        f_BJ = torch.zeros(code.num_rows, len(self.followed), device=row_N.device)
        f_BJ[row_N[kept_N], column_N[kept_N]] = value_N[kept_N].float()
        self._f.append(f_BJ.cpu().numpy())

    def _fill(self, rows: int) -> None:
        """Follow further features that fire, up to eight."""
        wanted = _FOLLOWED - len(self.followed)
        if wanted <= 0:
            return
        fires_F = (self.fired_F > 0) & ~self._dead_F
        fires_F[self.followed] = False
        telling_F = fires_F & (self.fired_F >= _LEAST_FIRINGS) & (self.fired_F <= _DENSE * rows)
        for group_F in (telling_F, fires_F & ~telling_F):
            drawn = self._random.permutation(np.flatnonzero(group_F))[: max(0, _FOLLOWED - len(self.followed))]
            self.followed += [int(feature) for feature in drawn]


def _histogram(l0_R: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Rows by L0, in bins of equal width from 0 on; a bin's lower edge belongs to it."""
    width = int(l0_R.max(initial=0)) // _L0_BINS + 1
    edges = np.arange(_L0_BINS + 1) * width
    return {"rows": len(l0_R), "edges": edges.tolist(), "counts": np.histogram(l0_R, edges)[0].tolist()}


def _short(value: float) -> float:
    """5 significant digits."""
    return float(f"{float(value):.5g}")
