"""What an edge does: set a feature to zero at its layer, and see how a feature of a later layer answers.

Shapes: B contexts of a batch, T tokens in a context, D width of the activation, E firings.

At the tokens where feature i of the earlier SAE fires, its part is taken out of the activation and everything else stays, the SAE's error
included: x' = x - s f_i w_i, where s is 1, or what the SAE's ``input_norm`` multiplies its reconstruction of this x by. The model runs on
from there, and the effect on feature j of the later SAE is the mean of f_j' - f_j over those tokens. Several features share a forward
pass, each in contexts of its own; f_i and f_j are known from the shared codes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import scipy.sparse
import torch
from torch import Tensor

from neuronmap.abstraction.flow.codes import SharedCodes
from neuronmap.models import capture, replaced

if TYPE_CHECKING:
    from neuronmap.corpora import TokenSet
    from neuronmap.models import HookPoint, LanguageModel
    from neuronmap.progress import Task
    from neuronmap.saes import SparseAutoencoder

__all__ = ["Place", "ablation_effects", "contexts_of"]

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Place:
    """An SAE where it reads.

    Attributes:
        sae: the SAE.
        hook: its hook point.
        code_NF: its code on the shared rows.
    """

    sae: SparseAutoencoder
    hook: HookPoint
    code_NF: scipy.sparse.csr_matrix


@dataclass
class _Run:
    """One feature set to zero in one context."""

    source: int
    context: int
    rows_E: Ints
    place_E: Ints
    value_E: npt.NDArray[np.float32]


@dataclass
class _Sum:
    """Changes of the targets of one source, summed over its tokens."""

    tokens: int = 0
    change: dict[int, float] = field(default_factory=dict)


def ablation_effects(
    model: LanguageModel,
    tokens: TokenSet,
    codes: SharedCodes,
    earlier: Place,
    later: Place,
    pairs: Sequence[tuple[int, int]],
    *,
    contexts: int = 4,
    batch_contexts: int = 8,
    task: Task | None = None,
) -> dict[tuple[int, int], float]:
    """Set features of the earlier SAE to zero and measure features of the later one.

    One forward pass as far as the later SAE for ``batch_contexts`` pairs of a feature and a context.

    Args:
        model: the language model.
        tokens: the text of the codes.
        codes: which context and place each row of the codes has.
        earlier: the SAE whose features are set to zero.
        later: the SAE that is read, at a hook that runs after the earlier one's.
        pairs: (source, target) features.
        contexts: contexts a source, those where it fires most often.
        batch_contexts: contexts in a forward pass.
        task: told of every context.

    Returns:
        The mean change of the target's activation, on the SAE's own scale, for every pair whose source fires.
    """
    targets: dict[int, list[int]] = {}
    for source, target in pairs:
        targets.setdefault(source, []).append(target)
    runs = [run for source in sorted(targets) for run in _runs_of(source, earlier.code_NF, codes, contexts)]
    sums: dict[int, _Sum] = {}
    for start in range(0, len(runs), batch_contexts):
        batch = runs[start : start + batch_contexts]
        for run, change_ET in _changes(model, tokens, earlier, later, batch, targets):
            total = sums.setdefault(run.source, _Sum())
            total.tokens += len(change_ET)
            for target, change in zip(targets[run.source], change_ET.sum(0).tolist(), strict=True):
                total.change[target] = total.change.get(target, 0.0) + change
        if task is not None:
            task.advance(len(batch))
    return {
        (source, target): sums[source].change[target] / sums[source].tokens
        for source, target in pairs
        if source in sums
    }


def contexts_of(feature: int, code_NF: scipy.sparse.csr_matrix, codes: SharedCodes, most: int) -> Mapping[int, Ints]:
    """The contexts where a feature fires most often, with the rows where it does; the earlier of equals first."""
    rows = np.flatnonzero(code_NF[:, [feature]].toarray().ravel()) if code_NF.nnz else np.empty(0, np.int64)
    context, first, count = np.unique(codes.context_N[rows], return_index=True, return_counts=True)
    chosen = np.argsort(-count, kind="stable")[:most]
    return {int(context[c]): rows[first[c] : first[c] + count[c]] for c in chosen}


def _runs_of(source: int, code_NF: scipy.sparse.csr_matrix, codes: SharedCodes, most: int) -> Iterator[_Run]:
    for context, rows_E in contexts_of(source, code_NF, codes, most).items():
        value_E = code_NF[rows_E][:, [source]].toarray().ravel()
        yield _Run(source, context, rows_E, codes.place_N[rows_E].astype(np.int64), value_E)


@torch.no_grad()
def _changes(
    model: LanguageModel,
    tokens: TokenSet,
    earlier: Place,
    later: Place,
    batch: list[_Run],
    targets: Mapping[int, Sequence[int]],
) -> Iterator[tuple[_Run, Tensor]]:
    """For each run float32 [tokens where the source fires, its targets]: activation without the source minus with it."""
    read = [tokens.contexts(run.context, run.context + 1) for run in batch]
    ids_BT = torch.from_numpy(np.concatenate([np.asarray(one.input_ids, np.int64) for one in read]))
    attention = np.concatenate([np.asarray(one.attention) for one in read])
    mask_BT = None if attention.all() else torch.from_numpy(attention.astype(np.int64))
    W_dec_FD = earlier.sae.W_dec.detach()
    taken_BTD = torch.zeros(*ids_BT.shape, earlier.hook.width, device=model.device)
    for index, run in enumerate(batch):
        part_ED = torch.from_numpy(run.value_E)[:, None] * W_dec_FD[run.source].cpu().float()
        taken_BTD[index, torch.from_numpy(run.place_E)] = part_ED.to(model.device)

    def without(x_BTD: Tensor) -> Tensor:
        x_BTD = x_BTD.float()
        return x_BTD - taken_BTD * earlier.sae.decoder_scale(x_BTD)

    with replaced(model, earlier.hook, without):
        ablated_BTD = capture(model, ids_BT, [later.hook], attention_mask_BT=mask_BT)[later.hook.name]
    for index, run in enumerate(batch):
        x_ED = ablated_BTD[index, torch.from_numpy(run.place_E).to(model.device)]
        wanted = list(targets[run.source])
        after_ET = later.sae.encode(x_ED.to(later.sae.device, later.sae.dtype))[:, wanted].float().cpu()
        before_ET = torch.from_numpy(later.code_NF[run.rows_E][:, wanted].toarray())
        yield run, after_ET - before_ET
