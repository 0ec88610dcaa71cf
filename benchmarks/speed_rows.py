"""The rows that every library's steps are timed on: real activations, centred and scaled to E|x|^2 = 1.

    <work>/speed-<digest>/rows-576.npy      float32 [N, 576], residual stream of SmolLM2-135M after block 8
    <work>/speed-<digest>/rows-<D>.npy      the same rows at another width

Another width is made by a random rotation: into the first D of 576 dimensions, or into D > 576 with a little noise
(a hundredth of the energy) in the new ones. Centred, because not every library starts b_dec at the mean, and half of the
features are to be active at a dense start everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from neuronmap.errors import EmptyCorpusError
from neuronmap.hashing import digest_json, short
from neuronmap.progress import Progress

MODEL, CORPUS, CONTEXT, LAYER, WIDTH = "smollm2-135m", "sotu", 128, 8, 576
_NOISE = 0.1  # standard deviation against the rows': a hundredth of the energy

Matrix = npt.NDArray[np.float32]


def prepare_rows(work: Path, count: int, progress: Progress, say: Callable[[str], None]) -> Path:
    """Harvest (or reuse) ``count`` rows; returns their folder.

    Raises:
        EmptyCorpusError: if the text has fewer.
    """
    asked = {"model": MODEL, "corpus": CORPUS, "context": CONTEXT, "layer": LAYER, "rows": count, "form": 1}
    folder = work / f"speed-{short(digest_json(asked))}"
    if not (folder / f"rows-{WIDTH}.npy").is_file():
        say(f"harvesting {count:,} rows of {MODEL} block {LAYER} over {CORPUS} (once)")
        _save(folder, WIDTH, centred_and_scaled(_harvested(count, progress)))
    return folder


def rows_of_width(folder: Path, width: int) -> Path:
    """The file with the rows at a width."""
    file = folder / f"rows-{width}.npy"
    if not file.is_file():
        _save(folder, width, at_width(np.load(folder / f"rows-{WIDTH}.npy"), width))
    return file


def at_width(rows: Matrix, width: int) -> Matrix:
    """Rotated into ``width`` dimensions, with noise in all of them if there are more than before."""
    generator = np.random.default_rng(width)
    old = rows.shape[1]
    square = generator.standard_normal((max(old, width),) * 2).astype(np.float32)
    rotation = np.linalg.qr(square)[0]
    turned = rows @ rotation[:old, :width]
    if width > old:
        turned += generator.standard_normal(turned.shape, dtype=np.float32) * (_NOISE / width**0.5)
    return centred_and_scaled(turned)


def centred_and_scaled(rows: Matrix) -> Matrix:
    """Mean 0 and mean square norm 1."""
    centred = rows - rows.mean(axis=0, dtype=np.float64).astype(np.float32)
    energy = float(np.einsum("nd,nd->n", centred, centred).mean(dtype=np.float64))
    return np.ascontiguousarray(centred / np.float32(energy**0.5), dtype=np.float32)


def _save(folder: Path, width: int, rows: Matrix) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / f"part-{width}.npy"
    np.save(aside, rows)
    aside.replace(folder / f"rows-{width}.npy")


def _harvested(count: int, progress: Progress) -> Matrix:
    from neuronmap.activations import harvest
    from neuronmap.corpora import open_corpus, tokenize
    from neuronmap.models import load_model, resolve_hook

    model = load_model(MODEL, dtype="float32", device="cpu", progress=progress)
    hook = resolve_hook(model, LAYER, "residual")
    tokens = tokenize(
        open_corpus(CORPUS),
        model.tokenizer,
        context_length=CONTEXT,
        part="train",
        max_tokens=count + count // 32 + 8 * CONTEXT,  # the mask drops about one row in a hundred
        tokenizer_digest=model.identity.tokenizer_digest,
        progress=progress,
    )
    store = harvest(model, tokens, [hook], dtype="float32", progress=progress)[hook.name]
    if store.num_rows < count:
        raise EmptyCorpusError(f"{CORPUS} gives {store.num_rows:,} rows; {count:,} were asked for.")
    rows: Matrix = store.read(0, count).numpy()
    return rows
