"""What :class:`~neuronmap.features.live.steering.FeatureSteering` gives back: texts and losses beside the clean run and the controls.

Shapes: N scored positions of all texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from neuronmap.errors import InputError
from neuronmap.features.live.strips import Strip, cell, frame, page, table
from neuronmap.features.storage.text import Vocabulary

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

__all__ = ["Run", "SteeredScore", "SteeredText"]

_SHOWN_TEXTS = 5


@dataclass(frozen=True)
class Run:
    """One continuation.

    Attributes:
        name: ``clean``, ``steered``, ``control 1``, ...
        ids: token ids of the continuation.
        text: the continuation.
        stopped: whether the model ended it itself.
        same: tokens at its start that are those of the clean run.
        losses: loss of each of its tokens under the unsteered model, in nats: how strange it finds the text.
    """

    name: str
    ids: tuple[int, ...]
    text: str
    stopped: bool
    same: int
    losses: tuple[float, ...]

    @property
    def clean_loss(self) -> float:
        """Mean of :attr:`losses`; NaN if no token could be scored."""
        return float(np.mean(self.losses)) if self.losses else float("nan")


@dataclass(frozen=True)
class SteeredText:
    """A prompt continued with and without interventions, all with the same seed.

    Attributes:
        prompt: what was continued.
        interventions: what was changed, in words.
        runs: the clean run, the steered run, and the controls: random directions of the same length.
        temperature: 0 takes the likeliest token.
        seed: of the sampling.
        notes: what a reader should know.
        title: SAEs and model.
    """

    prompt: str
    interventions: tuple[str, ...]
    runs: tuple[Run, ...]
    temperature: float
    seed: int
    notes: tuple[str, ...]
    title: str

    @property
    def clean(self) -> Run:
        """The run without interventions."""
        return self.runs[0]

    @property
    def steered(self) -> Run:
        """The run with them."""
        return self.runs[1]

    @property
    def controls(self) -> tuple[Run, ...]:
        """The runs with random directions."""
        return self.runs[2:]

    def to_arrow(self) -> pa.Table:
        """One row a run."""
        import pyarrow as pa

        return pa.table(
            {
                "run": [run.name for run in self.runs],
                "text": [run.text for run in self.runs],
                "tokens": pa.array([len(run.ids) for run in self.runs], pa.int32()),
                "same_as_clean": pa.array([run.same for run in self.runs], pa.int32()),
                "clean_loss": pa.array([run.clean_loss for run in self.runs], pa.float64(), from_pandas=True),
                "stopped": [run.stopped for run in self.runs],
            }
        )

    def to_pandas(self) -> pd.DataFrame:
        """One row a run."""
        return self.to_arrow().to_pandas()

    def _head(self) -> str:
        how = "likeliest token" if self.temperature == 0 else f"temperature {self.temperature:g}, seed {self.seed}"
        return f"{'; '.join(self.interventions)} · {how}"

    def __str__(self) -> str:
        lines = [self.title, self._head(), "", f"prompt: {self.prompt}"]
        lines += [
            f"\n{run.name} ({run.clean_loss:.2f} nats a token for the clean model):\n  {run.text}" for run in self.runs
        ]
        return "\n".join([*lines, *(f"Note: {note}" for note in self.notes)])

    def _repr_html_(self) -> str:
        rows = [
            [
                cell(run.name),
                f'<span style="opacity:.7">{cell(self.prompt)}</span><span style="white-space:pre-wrap">{cell(run.text)}</span>',
                cell(run.clean_loss),
            ]
            for run in self.runs
        ]
        head = f"<p><b>{cell(self.title)}</b><br>{cell(self._head())}</p>"
        return page(head, table(("run", "text", "loss for the clean model"), rows), notes=self.notes)


@dataclass(frozen=True)
class SteeredScore:
    """How interventions change the loss of given texts, by position.

    A position predicts the token after it. Scored are positions that are rows of the (first) SAE and are followed by a token.

    Attributes:
        token_N: int64 [N], the token that is predicted.
        text_N: int32 [N], which text it is of.
        position_N: int32 [N], its place in the text.
        clean_N: float64 [N], loss of the clean model in nats.
        steered_N: the same with the interventions.
        kl_N: float64 [N], KL(clean || steered) of the prediction, in nats.
        control_loss: float64 [controls, N], loss with random directions.
        control_kl: float64 [controls, N], KL with random directions.
        contexts: token ids of each text.
        interventions: what was changed, in words.
        vocabulary: text of the tokens.
        notes: what a reader should know.
        title: SAEs and model.
    """

    token_N: npt.NDArray[np.int64]
    text_N: npt.NDArray[np.int32]
    position_N: npt.NDArray[np.int32]
    clean_N: npt.NDArray[np.float64]
    steered_N: npt.NDArray[np.float64]
    kl_N: npt.NDArray[np.float64]
    control_loss: npt.NDArray[np.float64]
    control_kl: npt.NDArray[np.float64]
    contexts: tuple[npt.NDArray[np.int64], ...]
    interventions: tuple[str, ...]
    vocabulary: Vocabulary
    notes: tuple[str, ...]
    title: str

    @property
    def change(self) -> float:
        """Mean change of the loss, in nats a token."""
        return float((self.steered_N - self.clean_N).mean())

    @property
    def kl(self) -> float:
        """Mean KL(clean || steered), in nats a token."""
        return float(self.kl_N.mean())

    @property
    def control_changes(self) -> list[float]:
        """:attr:`change` with each control."""
        return [float((loss_N - self.clean_N).mean()) for loss_N in self.control_loss]

    @property
    def control_kls(self) -> list[float]:
        """:attr:`kl` with each control."""
        return [float(kl_N.mean()) for kl_N in self.control_kl]

    def strip(self, text: int) -> Strip:
        """One text; orange where the loss rises, blue where it falls.

        Raises:
            InputError: there is no such text.
        """
        if not 0 <= text < len(self.contexts):
            raise InputError(f"There is no text {text}: texts are 0 to {len(self.contexts) - 1}.")
        change_T = np.zeros(len(self.contexts[text]))
        titles = [""] * len(change_T)
        for place in np.flatnonzero(self.text_N == text):
            position, clean, steered = int(self.position_N[place]), self.clean_N[place], self.steered_N[place]
            change_T[position] = steered - clean
            titles[position] = f"loss {clean:.2f} → {steered:.2f}, KL {self.kl_N[place]:.3f}"
        largest = float(np.abs(self.steered_N - self.clean_N).max(initial=0.0))
        return Strip(self.vocabulary.pieces(self.contexts[text]), change_T.tolist(), largest, titles)

    def to_arrow(self) -> pa.Table:
        """One row a scored position; the controls as their mean."""
        import pyarrow as pa

        controls = {}
        if len(self.control_loss):
            controls = {"control_loss": self.control_loss.mean(0), "control_kl": self.control_kl.mean(0)}
        return pa.table(
            {
                "text": self.text_N,
                "position": self.position_N,
                "token": self.token_N,
                "token_text": [self.vocabulary.text_of(int(token)) for token in self.token_N],
                "clean_loss": self.clean_N,
                "steered_loss": self.steered_N,
                "kl": self.kl_N,
                **controls,
            }
        )

    def to_pandas(self) -> pd.DataFrame:
        """One row a scored position; the controls as their mean."""
        return self.to_arrow().to_pandas()

    def _rows(self) -> Sequence[tuple[str, float, float, float]]:
        clean = float(self.clean_N.mean())
        rows = [("clean", clean, 0.0, 0.0), ("steered", clean + self.change, self.change, self.kl)]
        pairs = zip(self.control_changes, self.control_kls, strict=True)
        return rows + [(f"control {place}", clean + change, change, kl) for place, (change, kl) in enumerate(pairs, 1)]

    def __str__(self) -> str:
        lines = [self.title, f"{'; '.join(self.interventions)} · {len(self.clean_N)} positions", ""]
        lines += [
            f"{name:>10}  loss {loss:.4f}  change {change:+.4f}  KL {kl:.4f}" for name, loss, change, kl in self._rows()
        ]
        return "\n".join([*lines, *(f"Note: {note}" for note in self.notes)])

    def _repr_html_(self) -> str:
        rows = [[cell(part) for part in row] for row in self._rows()]
        parts = [table(("run", "loss (nats a token)", "change", "KL"), rows)]
        parts += [
            frame(f"Text {text}: orange where the loss rises, blue where it falls", self.strip(text).to_html())
            for text in range(min(len(self.contexts), _SHOWN_TEXTS))
        ]
        head = f"<p><b>{cell(self.title)}</b><br>{cell('; '.join(self.interventions))}</p>"
        return page(head, *parts, notes=self.notes)
