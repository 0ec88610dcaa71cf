"""What every tool analyses: one activation store, the same rows as a grid of contexts, and SAEs in bundles that both read.

    <work>/analysis-<digest>/
    ├── inputs.json         folders of tokens and activation store, hook, counts
    ├── grid.npy            float32 [C * T, D], the first contexts with the mean in place of the masked positions (the peer's)
    ├── tokens.npy          int32 [C, T] of the same contexts
    ├── unembedding.npy     float32 [D, V]
    └── saes/<name>/        bundles

Shapes: C contexts of T tokens, N rows, D = width, F = features, V = vocabulary.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from analysis_cells import BATCH, CONTEXT, Cell, K, Sizes
from neuronmap import SAEConfig, SAETrainer
from neuronmap.activations import ActivationStore, harvest
from neuronmap.corpora import open_corpus, open_tokens, tokenize
from neuronmap.errors import EmptyCorpusError, InputError
from neuronmap.features.collect.rows import AnalysisRows, RowBlock, StoredRows
from neuronmap.hashing import digest_json, short
from neuronmap.models import load_model, resolve_hook
from neuronmap.paths import read_json, write_json
from neuronmap.progress import Progress
from neuronmap.saes import SparseAutoencoder, get_architecture
from neuronmap.saes.bundle import save_bundle

MODEL, CORPUS, LAYER = "smollm2-135m", "sotu", 15  # as the demo, whose analysis then reads the same store
PIECE = 65_536
NOISE = 0.3
"""Of decoder rows made from data when there are more features than rows: standard deviation over the rows' own."""


def prepare_inputs(work: Path, sizes: Sizes, progress: Progress, say: Callable[[str], None]) -> Path:
    """Harvest (or reuse) activations and lay out what the peers read.

    Args:
        work: folder for all of it.
        sizes: how many tokens, and how many contexts in the grid.

    Returns:
        The folder.

    Raises:
        EmptyCorpusError: if the text has fewer tokens.
    """
    tokens, compared = sizes.tokens, sizes.grid_contexts
    steps = sizes.training_steps
    asked = {"model": MODEL, "corpus": CORPUS, "layer": LAYER, "tokens": tokens, "grid": compared, "steps": steps}
    folder = work / f"analysis-{short(digest_json(asked))}"
    if (folder / "inputs.json").is_file() and Path(read_json(folder / "inputs.json")["store"]).is_dir():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    say(f"harvesting {tokens:,} tokens of {MODEL} block {LAYER} over {CORPUS} (once)")
    model = load_model(MODEL, dtype="float32", device="cpu", progress=progress)
    hook = resolve_hook(model, LAYER, "residual")
    text = tokenize(
        open_corpus(CORPUS),
        model.tokenizer,
        context_length=CONTEXT,
        part="all",
        max_tokens=tokens,
        tokenizer_digest=model.identity.tokenizer_digest,
        progress=progress,
    )
    if text.num_tokens < tokens or text.folder is None:
        raise EmptyCorpusError(f"{CORPUS} gives {text.num_tokens:,} tokens; {tokens:,} were asked for.")
    store = harvest(model, text, [hook], progress=progress)[hook.name]
    np.save(folder / "tokens.npy", text.contexts(0, compared).input_ids.astype(np.int32))
    np.save(folder / "grid.npy", grid(StoredRows(store, text), compared))
    W_U_VD = model.module.get_output_embeddings().weight.detach().float()
    np.save(folder / "unembedding.npy", W_U_VD.T.contiguous().numpy())
    write_json(
        folder / "inputs.json",
        {**asked, "tokens_folder": str(text.folder), "store": str(store.path), "vocabulary": len(W_U_VD)},
    )
    return folder


def grid(rows: AnalysisRows, contexts: int) -> npt.NDArray[np.float32]:
    """float32 [C * T, D]: the rows of the first contexts at their places, and the mean where a position was masked."""
    (hook,) = rows.hooks
    T = rows.tokens.context_length
    rows_MD = np.tile(rows.mean(hook).float().numpy(), (contexts * T, 1))
    for block in rows.blocks(range(contexts), 1):
        found = block[hook]
        rows_MD[found.sequence_B.astype(np.int64) * T + found.position_B] = found.x_BD.numpy()
    return rows_MD


def open_store(inputs: Path) -> ActivationStore:
    """The activations."""
    return ActivationStore.open(read_json(inputs / "inputs.json")["store"])


def open_rows(inputs: Path, contexts: int) -> FirstContexts:
    """The rows of the first contexts, for the pass."""
    facts = read_json(inputs / "inputs.json")
    rows = StoredRows(ActivationStore.open(facts["store"]), open_tokens(Path(facts["tokens_folder"])))
    return FirstContexts(rows, contexts, facts["vocabulary"])


class FirstContexts:
    """The rows of the first contexts, as rows for the pass. It notes how long reading takes.

    Args:
        rows: all of them.
        contexts: how many; a whole number of blocks, or all.
        vocabulary: V, the whole of the model's: the logit lens names tokens that the text may not hold.

    Attributes:
        seconds: spent in reading so far.
        count: rows read so far.
    """

    def __init__(self, rows: AnalysisRows, contexts: int, vocabulary: int) -> None:
        self.whole, self.vocabulary = rows, vocabulary
        whole = contexts == rows.tokens.num_contexts
        self.tokens = rows.tokens if whole else rows.tokens.subset(0, contexts)
        self.seconds, self.count = 0.0, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.whole, name)

    def digest(self, hook: str) -> str:
        return digest_json({"rows": self.whole.digest(hook), "contexts": self.tokens.num_contexts})

    def blocks(self, todo: Sequence[int], contexts_per_block: int) -> Iterator[dict[str, RowBlock]]:
        """As the whole's; no block may reach beyond the last context.

        Raises:
            InputError: if one does.
        """
        contexts = self.tokens.num_contexts
        if contexts % contexts_per_block and contexts != self.whole.tokens.num_contexts:
            raise InputError(f"{contexts} contexts are no whole number of blocks of {contexts_per_block}.")
        blocks = self.whole.blocks(todo, contexts_per_block)
        while True:
            started = time.perf_counter()
            block = next(blocks, None)
            self.seconds += time.perf_counter() - started
            if block is None:
                return
            self.count += sum(len(rows.x_BD) for rows in block.values())
            yield block


def prepare_sae(inputs: Path, cell: Cell, steps: int, progress: Progress, say: Callable[[str], None]) -> None:
    """Make the cell's SAE, if it is not there."""
    folder = inputs / "saes" / cell.sae
    if (folder / "cfg.json").is_file():
        return
    store = open_store(inputs)
    say(f"making the SAE {cell.sae} (once)")
    folder.parent.mkdir(exist_ok=True)
    if cell.made == "rows":
        save_bundle(from_rows(store, cell.architecture, cell.features), folder)
        return
    config = SAEConfig(
        architecture=cell.architecture,
        k=K,
        hidden_dim=cell.features,
        context_length=CONTEXT,
        num_epochs=steps * BATCH / store.num_rows + 1,
        max_steps=steps,
    )
    with tempfile.TemporaryDirectory(prefix="neuronmap-analysis-") as run:
        SAETrainer(config, progress=progress, run_folder=Path(run) / "run").train(store).save(folder)


@torch.no_grad()
def from_rows(store: ActivationStore, architecture: str, features: int) -> SparseAutoencoder:
    """An SAE without training: decoder rows are rows of the data less their mean, encoder columns the same.

    Beyond as many features as rows, they are such rows with noise.
    """
    generator = torch.Generator().manual_seed(0)
    mean_D = store.statistics.mean_D.float()
    sae = get_architecture(architecture)(
        store.width, features, SAEConfig(architecture=architecture, k=K).sae_options(store.width)
    )
    order_N = torch.randperm(store.num_rows, generator=generator)
    for start in range(0, features, PIECE):
        stop = min(start + PIECE, features)
        for place in range(start, stop):
            at = int(order_N[place % store.num_rows])
            sae.W_dec[place] = store.read(at, at + 1)[0].float() - mean_D
        if stop > store.num_rows:
            piece_FD = sae.W_dec[start:stop]
            length = piece_FD.norm(dim=1).mean() / store.width**0.5
            piece_FD += torch.randn(piece_FD.shape, generator=generator) * (NOISE * length)
        sae.W_dec[start:stop] /= sae.W_dec[start:stop].norm(dim=1, keepdim=True).clamp_min(1e-12)
        sae.W_enc.T[start:stop] = sae.W_dec[start:stop]
    sae.b_dec.copy_(mean_D)
    return sae.eval().requires_grad_(False)
