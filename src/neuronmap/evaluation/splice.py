"""What the language model does with something else in the activation's place: loss and KL, by context.

For each batch of contexts: one clean forward pass (whose hook also gives the norms that decide which positions are
outliers), then one pass for each replacement. The mask of the replacement is the mask of the scores, so a
replacement by zero and an SAE that outputs zero are the same thing.

Alignment: the model's output at position t predicts token t+1. Position t is scored when input token t is unmasked
and token t+1 is real (attended to, in the same context); the loss of predicting a special token is kept, the loss
after one is not.

Cost: V logits a token are the memory of this step (V = 49,152: 201 MB in float32 for 1,024 tokens). The clean
log-probabilities of the scored rows are kept in one reused buffer, those of a replacement are made a few rows at a
time. log_softmax is taken in float32, where its error (1e-6 nats) is far below what is measured; sums are float64.

Shapes: B contexts, T tokens, N scored rows, V vocabulary, W width of the hook.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from neuronmap.activations import MaskConfig
from neuronmap.activations.mask import candidates
from neuronmap.corpora import ContextBatch, TokenSet
from neuronmap.errors import InputError
from neuronmap.models import HookPoint, LanguageModel, replaced
from neuronmap.models.predictions import CleanPredictions
from neuronmap.progress import Task

__all__ = ["Replacement", "SplicedSums", "splice_contexts"]

Replacement = Callable[[Tensor], Tensor]
"""Rows [N, W] float32 -> what takes their place, [N, W]."""


@dataclass
class SplicedSums:
    """Sums over the scored positions of each context.

    Attributes:
        tokens_C: float64 [C], scored positions of each context.
        ce: float64 [C] by name (``clean`` and every replacement): summed cross-entropy in nats.
        kl: float64 [C] by name (every replacement): summed KL(clean || replaced) in nats.
    """

    tokens_C: Tensor
    ce: dict[str, Tensor]
    kl: dict[str, Tensor]

    def only(self, chosen_C: Tensor) -> SplicedSums:
        """The sums of some contexts (bool [C])."""
        return SplicedSums(
            self.tokens_C[chosen_C],
            {name: value[chosen_C] for name, value in self.ce.items()},
            {name: value[chosen_C] for name, value in self.kl.items()},
        )

    def of(self, name: str, ablations: Sequence[str]) -> SplicedSums:
        """The sums of one replacement under the name ``sae``, with the clean model and the ablations beside it."""
        kept = {"sae": name, **{ablation: ablation for ablation in ablations}}
        ce = {"clean": self.ce["clean"], **{new: self.ce[old] for new, old in kept.items()}}
        return SplicedSums(self.tokens_C, ce, {new: self.kl[old] for new, old in kept.items()})

    def as_sums(self) -> dict[str, Tensor]:
        """All sums under one set of names, for the bootstrap."""
        named = {f"ce_{name}": value for name, value in self.ce.items()}
        return {"tokens": self.tokens_C, **named, **{f"kl_{name}": value for name, value in self.kl.items()}}


@torch.inference_mode()
def splice_contexts(
    model: LanguageModel,
    hook: HookPoint,
    tokens: TokenSet,
    replacements: dict[str, Replacement],
    *,
    mask: MaskConfig,
    outlier_threshold: float | None,
    batch_contexts: int,
    task: Task,
    read: HookPoint | None = None,
) -> SplicedSums:
    """Run every context of ``tokens`` once clean and once a replacement.

    Args:
        model: the language model, with its head.
        hook: where the activation is replaced.
        tokens: the contexts.
        replacements: by name.
        mask: positions that are neither replaced nor scored.
        outlier_threshold: norm above which a position is neither replaced nor scored; None for no limit.
        batch_contexts: contexts in one forward pass.
        task: advanced by the tokens of every forward pass.
        read: where a transcoder reads, which must run before ``hook``: norms are taken there, and the replacement ``sae`` is given
            the rows of the same pass there.

    Raises:
        InputError: if the clean model gives NaN or infinity at a scored position, or ``read`` runs after ``hook``.
    """
    C = tokens.num_contexts
    sums = SplicedSums(
        torch.zeros(C, dtype=torch.float64),
        {name: torch.zeros(C, dtype=torch.float64) for name in ("clean", *replacements)},
        {name: torch.zeros(C, dtype=torch.float64) for name in replacements},
    )
    clean = CleanPredictions()
    for start in range(0, C, batch_contexts):
        batch = tokens.contexts(start, min(start + batch_contexts, C))
        ids_BT = torch.from_numpy(np.array(batch.input_ids, dtype=np.int64)).to(model.device)
        attention_BT = _attention(batch, model.device)
        left_BT = torch.from_numpy(candidates(batch, mask)[0]).to(model.device)
        watcher = _NormWatcher(left_BT, outlier_threshold)
        with replaced(model, hook if read is None else read, watcher):
            logits_BTV = model.logits(ids_BT, attention_BT)
        scored_BT = watcher.scored_BT
        task.advance(ids_BT.numel())
        rows_N, target_N, context_N = _targets(ids_BT, scored_BT, batch, start)
        if rows_N.numel() == 0:
            task.advance(ids_BT.numel() * len(replacements))
            continue
        ce_N = clean.take(logits_BTV, rows_N, target_N)
        del logits_BTV  # 200 MB that the next forward pass can have
        sums.tokens_C.index_add_(0, context_N, torch.ones_like(ce_N))
        sums.ce["clean"].index_add_(0, context_N, ce_N)
        for name, replacement in replacements.items():
            with ExitStack() as stack:
                splice = _Splice(scored_BT, replacement)
                if read is not None and name == "sae":
                    splice = _Transcode(scored_BT, replacement, read, hook)
                    stack.enter_context(replaced(model, read, splice.watch))
                stack.enter_context(replaced(model, hook, splice))
                logits_BTV = model.logits(ids_BT, attention_BT)
            ce_N, kl_N = clean.compare(name, logits_BTV, rows_N, target_N)
            del logits_BTV
            sums.ce[name].index_add_(0, context_N, ce_N)
            sums.kl[name].index_add_(0, context_N, kl_N)
            task.advance(ids_BT.numel())
    return sums


def _attention(batch: ContextBatch, device: torch.device) -> Tensor | None:
    if batch.attention.all():
        return None  # an all-ones mask changes nothing but may cost the fast attention path
    return torch.from_numpy(np.array(batch.attention, dtype=np.int64)).to(device)


def _targets(ids_BT: Tensor, scored_BT: Tensor, batch: ContextBatch, start: int) -> tuple[Tensor, Tensor, Tensor]:
    """Flat positions [N] that are scored, the token each predicts, and its context (on the CPU)."""
    T = ids_BT.shape[1]
    real_BT = torch.from_numpy(np.array(batch.attention, dtype=bool)).to(ids_BT.device)
    predicts_BT = torch.zeros_like(scored_BT)
    predicts_BT[:, :-1] = scored_BT[:, :-1] & real_BT[:, 1:]
    rows_N = predicts_BT.flatten().nonzero().squeeze(1)
    target_N = ids_BT.flatten().index_select(0, rows_N + 1)
    return rows_N, target_N, (rows_N // T).cpu() + start


class _NormWatcher:
    """Leaves the activation as it is and notes which positions are scored."""

    def __init__(self, left_BT: Tensor, outlier_threshold: float | None) -> None:
        self.scored_BT = left_BT
        self._threshold = outlier_threshold

    def __call__(self, x_BTW: Tensor) -> Tensor:
        norms_BT = torch.linalg.vector_norm(x_BTW, dim=-1, dtype=torch.float32)
        if not bool(norms_BT[self.scored_BT].isfinite().all()):
            raise InputError(
                "The model gives NaN or infinite activations at scored positions.",
                hint="Load the model in float32 (dtype='float32'); if it stays, the weights are damaged.",
            )
        if self._threshold is not None:
            self.scored_BT = self.scored_BT & (norms_BT <= self._threshold)
        return x_BTW


class _Splice:
    """Replaces the scored positions and nothing else."""

    def __init__(self, scored_BT: Tensor, replacement: Replacement) -> None:
        self._scored_BT, self._replacement = scored_BT, replacement

    def __call__(self, x_BTW: Tensor) -> Tensor:
        spliced_BTW = x_BTW.clone()
        spliced_BTW[self._scored_BT] = self._replacement(x_BTW[self._scored_BT].float()).to(x_BTW)
        return spliced_BTW


class _Transcode(_Splice):
    """Replaces the scored positions of one hook by what a transcoder makes of those of another, earlier in the same pass."""

    def __init__(self, scored_BT: Tensor, replacement: Replacement, read: HookPoint, hook: HookPoint) -> None:
        super().__init__(scored_BT, replacement)
        self._read, self._hook = read, hook
        self._rows_ND: Tensor | None = None

    def watch(self, x_BTW: Tensor) -> Tensor:
        """Note what is read; the activation stays."""
        self._rows_ND = x_BTW[self._scored_BT].float()
        return x_BTW

    def __call__(self, x_BTW: Tensor) -> Tensor:
        if self._rows_ND is None:
            raise InputError(
                f"{self._hook.name} runs before {self._read.name}, so a transcoder cannot write what it has read there.",
                hint="Check the two hooks, or leave loss and KL out: max_ce_tokens=0.",
            )
        spliced_BTW = x_BTW.clone()
        spliced_BTW[self._scored_BT] = self._replacement(self._rows_ND).to(x_BTW)
        return spliced_BTW
