"""The rows that all libraries train on and are measured on: harvested once, exported once.

    <work>/rows-<digest>/train.npy, calibration.npy, heldout.npy    float32 [N, D], raw (unscaled) activations
    <work>/rows-<digest>/facts.json                                 what they are; written last

Held-out speeches are split into blocks of 512 rows that go to calibration and measurement in turn: thresholds are
fitted on rows that are neither trained on nor measured on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from neuronmap.activations import ArrayRows, ShuffledBatches
from neuronmap.errors import EmptyCorpusError
from neuronmap.hashing import digest_bytes, digest_json, short
from neuronmap.paths import read_json, write_json
from neuronmap.progress import Progress

if TYPE_CHECKING:
    from neuronmap.corpora import TokenSet
    from neuronmap.models import LanguageModel

MODEL, CORPUS, CONTEXT = "smollm2-135m", "sotu", 128
_BLOCK = 512
_FORMAT = 2
_PARTS = ("train", "calibration", "heldout")

Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Rows:
    """The exported rows.

    Attributes:
        folder: where they lie.
        train, calibration, heldout: float32 [N, D], raw.
        facts: where they come from.
    """

    folder: Path
    train: Matrix
    calibration: Matrix
    heldout: Matrix
    facts: dict[str, Any]

    @property
    def digest(self) -> str:
        """What the rows are, to the last bit."""
        return str(self.facts["digest"])

    @property
    def key(self) -> str:
        """What the rows are, whatever machine computed them: the same model on the same tokens with the same mask."""
        told = ("model", "model_digest", "hook", "corpus", "context", "tokens", "mask", "rows", "held")
        return digest_json({name: self.facts[name] for name in told})

    @property
    def root_mean_square_norm(self) -> float:
        """sqrt(E|x|^2) of the training rows."""
        return float(self.facts["root_mean_square_norm"])

    def path(self, part: str) -> Path:
        """File of one part."""
        return self.folder / f"{part}.npy"


def prepare_rows(
    work: Path, layer: int, train_rows: int, heldout_rows: int, progress: Progress, say: Callable[[str], None]
) -> Rows:
    """Harvest (or reuse) and export.

    Raises:
        EmptyCorpusError: if the text has fewer rows than asked for.
    """
    asked = {
        "model": MODEL,
        "corpus": CORPUS,
        "context": CONTEXT,
        "layer": layer,
        "rows": train_rows,
        "held": heldout_rows,
    }
    folder = work / f"rows-{short(digest_json({**asked, 'format': _FORMAT}))}"
    if not (folder / "facts.json").is_file():
        say(f"harvesting {train_rows:,} + {2 * heldout_rows:,} rows of {MODEL} block {layer} over {CORPUS}")
        _export(folder, asked, layer, train_rows, heldout_rows, progress)
    parts = {part: np.load(folder / f"{part}.npy") for part in _PARTS}
    facts = read_json(folder / "facts.json")
    say(
        f"rows: {', '.join(f'{len(values):,} {part}' for part, values in parts.items())}, width {facts['width']}, raw float32"
    )
    return Rows(folder, parts["train"], parts["calibration"], parts["heldout"], facts)


def _export(
    folder: Path, asked: dict[str, Any], layer: int, train_rows: int, heldout_rows: int, progress: Progress
) -> None:
    from neuronmap.activations import MaskConfig, harvest
    from neuronmap.models import load_model, resolve_hook

    model = load_model(MODEL, dtype="float32", device="cpu", progress=progress)
    hook = resolve_hook(model, layer, "residual")
    stores, digests = {}, {}
    wanted_of: dict[Literal["train", "heldout"], int] = {"train": train_rows, "heldout": 2 * heldout_rows}
    for part, wanted in wanted_of.items():
        tokens = text_of(model, part, wanted, progress)
        digests[part] = tokens.digest
        stores[part] = harvest(model, tokens, [hook], dtype="float32", progress=progress)[hook.name]
        if stores[part].num_rows < wanted:
            raise EmptyCorpusError(
                f"{CORPUS} gives {stores[part].num_rows:,} {part} rows; {wanted:,} were asked for.",
                hint="Lower --rows or --heldout-rows.",
            )
    train = stores["train"].read(0, train_rows).numpy()
    held = stores["heldout"].read(0, 2 * heldout_rows).numpy()
    odd = np.arange(len(held)) // _BLOCK % 2 == 1
    folder.mkdir(parents=True, exist_ok=True)
    parts: dict[str, Matrix] = {
        "train": train,
        "calibration": held[odd][:heldout_rows],
        "heldout": held[~odd][:heldout_rows],
    }
    for name, values in parts.items():
        np.save(folder / f"{name}.npy", np.ascontiguousarray(values, dtype=np.float32))
    energy = float(np.einsum("nd,nd->n", train, train, dtype=np.float64).mean())
    facts = {
        **asked,
        "hook": hook.name,
        "width": int(train.shape[1]),
        "mask": MaskConfig().to_dict(),
        "outlier_threshold": stores["train"].manifest["outlier_threshold"],
        "tokens": digests,
        "model_digest": model.identity.model_digest,
        "scale": "raw: as the model computes them, not scaled or centred",
        "root_mean_square_norm": energy**0.5,
        "parts": {part: len(values) for part, values in parts.items()},
        "digest": digest_json({part: digest_bytes(np.ascontiguousarray(v).tobytes()) for part, v in parts.items()}),
    }
    write_json(folder / "facts.json", facts)


def text_of(model: LanguageModel, part: Literal["train", "heldout"], rows: int, progress: Progress) -> TokenSet:
    """Tokens that give at least so many rows."""
    from neuronmap.corpora import open_corpus, tokenize

    return tokenize(
        open_corpus(CORPUS),
        model.tokenizer,
        context_length=CONTEXT,
        part=part,
        max_tokens=rows + rows // 32 + 8 * CONTEXT,  # the mask drops about one row in a hundred
        tokenizer_digest=model.identity.tokenizer_digest,
        progress=progress,
    )


def write_order(work: Path, rows: int, steps: int, batch: int, seed: int) -> Path:
    """The order in which NeuronMap's trainer visits so many rows, for the peers: int64 [steps, batch].

    The trainer's order depends on the number of rows, the batch and the seed; drawing batches of row numbers in the same way gives it.
    """
    path = work / f"order-{rows}-{steps}x{batch}-s{seed}.npy"
    if not path.is_file():
        numbers = ArrayRows(torch.arange(rows, dtype=torch.float32).unsqueeze(1))  # exact up to 2^24
        with ShuffledBatches(numbers, batch, seed=seed, prefetch=False) as batches:
            order = np.stack([next(batches)[:, 0].long().numpy() for _ in range(steps)])
        aside = path.with_suffix(".part.npy")
        np.save(aside, order)
        aside.replace(path)
    return path
