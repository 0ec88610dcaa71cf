"""An SAE at its place in its language model: what everything that works on live text starts from.

Which positions count as *rows* is decided as it was in training: special tokens, the first positions of a context and norm
outliers were left out there, so the SAE's codes mean nothing at them.

Shapes: B contexts, T tokens, N rows, D = d_in, F = d_sae.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from neuronmap import progress as progress_module
from neuronmap.activations import MaskConfig
from neuronmap.errors import HookPointError, InputError
from neuronmap.features.live.reading import Batch, Context, batches
from neuronmap.features.storage.text import Vocabulary
from neuronmap.models import HookPoint, LanguageModel, capture, load_model, resolve_hook, wrap_model
from neuronmap.progress import Progress
from neuronmap.saes import BundleMetadata, SparseAutoencoder, load_sae
from neuronmap.saes.fit import differences, require_fit
from neuronmap.saes.places import recorded_hook
from neuronmap.saes.provenance import Provenance
from neuronmap.saes.uses import require_use

__all__ = ["MASKED", "AttachedSAE", "CapturedBatch", "attach"]

MASKED = ("", "first", "special", "outlier")
"""Why a position is no row, by number; 0 is a row."""

_CHUNK_VALUES = 8 << 20
"""Feature activations that are dense at once: 32 MB in float32."""


@dataclass(frozen=True)
class CapturedBatch:
    """One batch with its activations.

    Attributes:
        batch: the tokens.
        x_BTD: float32 [B, T, D] activations at the hook, on the SAE's device.
        masked_BT: uint8 [B, T], why a position is no row (:data:`MASKED`); padding counts as ``first``.
    """

    batch: Batch
    x_BTD: Tensor
    masked_BT: Tensor

    @property
    def rows(self) -> Tensor:
        """bool [B, T], the rows."""
        return self.masked_BT == 0


@dataclass(frozen=True)
class AttachedSAE:
    """An SAE, its language model and the hook between them.

    Attributes:
        sae: the SAE, for raw activations.
        model: the language model.
        hook: where the SAE reads.
        mask: which positions it was trained without.
        outlier_norm: norm above which a position is an outlier; None if training did not say, or masks none.
        name: what to call the SAE.
        notes: what a reader should know (an assumed mask, a difference that was forced).
    """

    sae: SparseAutoencoder
    model: LanguageModel
    hook: HookPoint
    mask: MaskConfig
    outlier_norm: float | None
    name: str
    notes: tuple[str, ...] = ()

    @property
    def num_features(self) -> int:
        """F."""
        return self.sae.d_sae

    @property
    def digest(self) -> str | None:
        """SHA-256 of the SAE's weights as stored; None for one that was never saved."""
        return self.sae.provenance.metadata.weights_digest if self.sae.provenance is not None else None

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Text of the model's tokens."""
        size = int(self.model.module.get_input_embeddings().weight.shape[0])
        return Vocabulary.from_tokenizer(self.model.tokenizer, size)

    def check_features(self, features: Sequence[int]) -> list[int]:
        """The ids as they are, if all exist.

        Raises:
            InputError: lists those that do not.
        """
        wrong = [index for index in features if not 0 <= int(index) < self.sae.d_sae]
        if wrong:
            raise InputError(
                f"{self.name} has no feature {', '.join(map(str, wrong[:8]))}: ids are 0 to {self.sae.d_sae - 1}."
            )
        return [int(index) for index in features]

    def token_mask(self, context: Context) -> npt.NDArray[np.uint8]:
        """uint8 [T], why a position is no row, as far as its token tells (:data:`MASKED`)."""
        masked_T = np.zeros(len(context), dtype=np.uint8)
        masked_T[: self.mask.skip_first_positions] = MASKED.index("first")
        if self.mask.skip_special:
            masked_T[context.special_T] = MASKED.index("special")
        return masked_T

    def batch_mask(self, batch: Batch, contexts: Sequence[Context]) -> Tensor:
        """uint8 [B, T] on the model's device: :meth:`token_mask` of each context, padding as ``first``."""
        masked_BT = np.full(tuple(batch.ids_BT.shape), MASKED.index("first"), dtype=np.uint8)
        for row, number in enumerate(batch.numbers):
            masked_BT[row, : len(contexts[number])] = self.token_mask(contexts[number])
        return torch.from_numpy(masked_BT).to(batch.ids_BT.device)

    def add_outliers(self, masked_BT: Tensor, norm_BT: Tensor) -> Tensor:
        """The mask with norm outliers in it.

        The limit is ``outlier_factor`` times the root mean square norm of the training rows; where that is not known, times the
        median norm of the context's own rows.
        """
        factor = self.mask.outlier_factor
        if factor is None:
            return masked_BT
        if self.outlier_norm is not None:
            outlier_BT = norm_BT > self.outlier_norm
        else:
            rows_only_BT = norm_BT.masked_fill(masked_BT != 0, torch.nan)
            outlier_BT = norm_BT > factor * rows_only_BT.nanmedian(dim=1, keepdim=True).values
        return masked_BT.masked_fill(outlier_BT & (masked_BT == 0), MASKED.index("outlier"))

    def captured(self, contexts: Sequence[Context], batch_tokens: int) -> Iterator[CapturedBatch]:
        """Run the model up to the hook over all contexts.

        Raises:
            InputError: if the model gives NaN or infinity at a row.
        """
        for batch in batches(self.model, contexts, batch_tokens):
            found = capture(self.model, batch.ids_BT, [self.hook], attention_mask_BT=batch.attention_BT)
            x_BTD = found[self.hook.name].to(self.sae.device, torch.float32)
            norm_BT = torch.linalg.vector_norm(x_BTD, dim=-1)
            masked_BT = self.batch_mask(batch, contexts).to(x_BTD.device)
            if not bool(norm_BT[masked_BT == 0].isfinite().all()):
                raise InputError(
                    f"{self.model.identity.name} gives NaN or infinite activations at {self.hook.name}.",
                    hint="Load the model in float32 (dtype='float32'); if it stays, the weights are damaged.",
                )
            yield CapturedBatch(batch, x_BTD, self.add_outliers(masked_BT, norm_BT))

    @torch.no_grad()
    def encode(self, x_ND: Tensor) -> Tensor:
        """Dense feature activations [N, F] of rows, in float32, with the plain rule."""
        return self.sae.encode(x_ND.to(self.sae.device, self.sae.dtype))

    def chunks(self, rows: int) -> Iterator[slice]:
        """Slices of rows whose dense codes fit into bounded memory."""
        step = max(1, _CHUNK_VALUES // self.sae.d_sae)
        for start in range(0, rows, step):
            yield slice(start, min(start + step, rows))


def attach(
    sae: SparseAutoencoder | str | Path | AttachedSAE,
    *,
    model: LanguageModel | str | Path | Any | None = None,
    hook: HookPoint | str | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> AttachedSAE:
    """Put an SAE on its language model.

    Args:
        sae: an SAE, a bundle's folder, or one that is attached already.
        model: its language model, loaded, or a name to load. None: the one that the SAE knows: the model it was trained with
            if that is still in memory, else loaded by name.
        hook: where the SAE reads, or its name (``model.layers.8:out``); what the SAE knows when left out.
        force: allow a model with another digest or tokenizer, if the widths fit.
        progress: where notes and bars go.

    Raises:
        InputError: the SAE does not know its model or hook and none was given.
        MismatchError: it belongs to another model (lists every difference), or reads more than rows of one hook.
        ModelError: the model cannot be loaded, or has no such hook.
    """
    if isinstance(sae, AttachedSAE):
        if model is None and hook is None:
            return sae
        sae = sae.sae
    if isinstance(sae, str | Path):
        sae = load_sae(sae)
    if not isinstance(sae, SparseAutoencoder):
        raise InputError(f"An SAE or a bundle's folder is needed, got {type(sae).__name__}.")
    require_use(sae, "features", "Reading texts through an SAE")
    provenance = sae.provenance or Provenance(BundleMetadata())
    metadata = provenance.metadata
    name = provenance.name or f"{sae.architecture} SAE"
    language_model = _language_model(provenance, model, name, progress or progress_module.default())
    identity = language_model.identity.to_dict()
    try:
        point = _hook_point(metadata, hook, language_model, name)
    except HookPointError:
        if hook is None:  # the model has no such place: what else differs says why
            require_fit(differences(metadata, sae.d_in, identity, {}), name, force=False)
        raise
    found = differences(metadata, sae.d_in, identity, point.to_dict())
    if hook is not None:  # asked for by name: a reader who says where knows where
        found = [difference for difference in found if difference.what != "hook"]
    notes = require_fit(found, name, force=force)
    if not any(
        difference.severity == "wrong" for difference in found
    ):  # one that was forced is not taken unasked next time
        sae.provenance = provenance.with_model(language_model)
    stored_mask = (metadata.corpus or {}).get("mask")
    mask = MaskConfig.from_dict(stored_mask) if stored_mask else MaskConfig()
    if not stored_mask:
        notes.append("The SAE does not say which positions it was trained without; the usual mask is assumed.")
    outlier_norm = None
    if mask.outlier_factor is not None and metadata.input_scale is not None:
        outlier_norm = mask.outlier_factor / metadata.input_scale  # the scale is 1 over the root mean square norm
    return AttachedSAE(sae, language_model, point, mask, outlier_norm, name, tuple(notes))


def _language_model(provenance: Provenance, model: Any, name: str, progress: Progress) -> LanguageModel:
    if isinstance(model, LanguageModel):
        return model
    if isinstance(model, str | Path):
        return load_model(model, progress=progress)
    if model is not None:
        return wrap_model(model)
    if provenance.language_model is not None:
        return provenance.language_model
    record = provenance.metadata.model or {}
    if not record.get("name"):
        raise InputError(f"{name} does not say which language model it belongs to.", hint="Give model=.")
    return load_model(
        record["name"], revision=record.get("revision"), dtype=record.get("dtype") or "auto", progress=progress
    )


def _hook_point(metadata: BundleMetadata, hook: Any, model: LanguageModel, name: str) -> HookPoint:
    if isinstance(hook, HookPoint):
        return hook
    if isinstance(hook, str):
        return resolve_hook(model, component=hook)
    found = recorded_hook(metadata.hook, model)
    if found is None:
        raise InputError(
            f"{name} does not say where in the model it reads.", hint="Give hook=, such as model.layers.8:out"
        )
    return found
