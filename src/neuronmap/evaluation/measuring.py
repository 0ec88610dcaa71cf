"""One evaluation, and its parts: sums over rows, and over contexts of the spliced model, put together by whoever has them.

Shapes: N rows, D = d_in, F = d_sae, T tokens in a context, W = D.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from importlib.metadata import version
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from neuronmap.activations import ActivationStore, MaskConfig, RowSource
from neuronmap.activations.extract import RowExtractor, calibrate, check_fit, contexts_per_batch
from neuronmap.activations.mask import nothing_left
from neuronmap.corpora import TokenSet
from neuronmap.errors import ConfigError, EmptyCorpusError, MismatchError
from neuronmap.evaluation.bootstrap import Resampler
from neuronmap.evaluation.figures import behaviour_of, reconstruction_of, sparsity_of, weights_of
from neuronmap.evaluation.metrics import Behaviour, CoreMetrics, Protocol
from neuronmap.evaluation.pairs import rows_and_targets
from neuronmap.evaluation.parts import (
    EvaluationSize,
    RowPart,
    added,
    behaviour_count,
    context_parts,
    joined_behaviour,
    joined_rows,
    row_count,
)
from neuronmap.evaluation.rows import Autoencoder, Reconstructor, RowSums, SpreadContexts, Units, rows_of_source
from neuronmap.evaluation.splice import Replacement, SplicedSums, splice_contexts
from neuronmap.models import HookPoint, LanguageModel, resolve_hook
from neuronmap.progress import Progress, Task
from neuronmap.saes import SparseAutoencoder
from neuronmap.saes.places import output_hook
from neuronmap.saes.uses import require_use

__all__ = ["MEASURED", "Evaluation"]

MEASURED = "sae"
"""Name of the SAE among what is measured."""
_MOST_STORED_ROWS = 131_072
_MOST_MODEL_TOKENS = 16_384


def _check_use(sae: Autoencoder, source: RowSource | None, hook_out: HookPoint | str | None) -> None:
    """Refuse what rows of one hook, or of two, cannot tell."""
    transcodes = isinstance(sae, SparseAutoencoder) and not sae.reconstructs_input
    if isinstance(sae, SparseAutoencoder) and not (transcodes and sae.reads == "rows"):
        require_use(sae, "reconstruction", "Evaluation")
    if hook_out is not None and not transcodes:
        raise ConfigError("hook_out= is for transcoders: other SAEs reconstruct what they read.")
    if transcodes and source is not None:
        raise MismatchError(
            "Rows of one hook do not tell how good a transcoder is: it reconstructs another hook than it reads.",
            hint="Give model= and tokens=; rows of both hooks are then captured in one pass.",
        )


class Evaluation:
    """One evaluation: what was given, resolved and checked; then part by part, or :meth:`run` for all of it.

    Contexts are cut into parts that depend on nothing but their number, and the sums of parts are put together in their order. So whoever
    does the parts, and in whichever order, the record is the same to the bit.

    Args:
        sae, source, model, tokens, mask, outlier_threshold: as for :func:`neuronmap.evaluation.evaluate_sae`.
        hooks: where the SAE reads, and what a transcoder writes.
        size: how much of it.
        progress: where notes and bars go.
        others: what is measured beside the SAE, by name.

    Raises:
        ConfigError, MismatchError: as :func:`neuronmap.evaluation.evaluate_sae`.
    """

    def __init__(
        self,
        sae: Autoencoder,
        source: RowSource | None,
        model: LanguageModel | None,
        hooks: tuple[HookPoint | str | None, HookPoint | str | None],
        tokens: TokenSet | None,
        mask: MaskConfig | None,
        outlier_threshold: float | None,
        size: EvaluationSize,
        progress: Progress,
        others: Mapping[str, Autoencoder] | None = None,
    ) -> None:
        _check_use(sae, source, hooks[1])
        self.sae, self.source, self.model, self.tokens, self.size, self.progress = (
            sae, source, model, tokens, size, progress,
        )  # fmt: skip
        if (model is None) != (tokens is None):
            given, missing = ("model", "tokens") if tokens is None else ("tokens", "model")
            raise ConfigError(f"{given}= was given without {missing}=; the two go together.")
        if source is None and model is None:
            raise ConfigError("There is nothing to evaluate on: give rows of activations, or model= and tokens=.")
        store = source if isinstance(source, ActivationStore) else None
        stored_mask = MaskConfig(**store.manifest["mask"]) if store is not None else None
        if mask is not None and stored_mask is not None and mask != stored_mask:
            raise ConfigError(
                f"mask= differs from the mask the stored rows were harvested with ({stored_mask.to_dict()}).",
                hint="Leave mask out, or harvest again with the mask you want.",
            )
        if mask is not None and source is not None and model is None and stored_mask is None:
            raise ConfigError("mask= applies to tokens; rows of activations are taken as they are.")
        if outlier_threshold is not None and (source is not None or not outlier_threshold > 0):
            raise ConfigError(
                f"outlier_threshold = {outlier_threshold}: a norm above 0, and only for tokens run through a model; "
                "stored rows have theirs."
            )
        self.outlier_threshold = outlier_threshold
        self.store = store
        self.mask = mask or stored_mask or MaskConfig()
        self.hook = self._resolve(hooks[0])
        self._check_fit()
        self.written = self._written(hooks[1])
        decoder = getattr(sae, "W_dec", None)
        if isinstance(decoder, Tensor):
            self.dtype, device = decoder.dtype, decoder.device
        else:
            self.dtype, device = torch.float32, model.device if model is not None else torch.device("cpu")
        self.measured: dict[str, Autoencoder] = {MEASURED: sae, **(others or {})}
        self.reconstructors = {name: Reconstructor(other, device, self.dtype) for name, other in self.measured.items()}

    def _resolve(self, hook: HookPoint | str | None) -> HookPoint | None:
        if self.model is None:
            return None
        if hook is None and self.store is not None:
            hook = str(self.store.hook["name"])
        if hook is None:
            raise ConfigError(
                "hook= is needed: where in the model does the SAE read?", hint="neuronmap models hooks MODEL"
            )
        return resolve_hook(self.model, component=hook) if isinstance(hook, str) else hook

    def _written(self, given: HookPoint | str | None) -> HookPoint | None:
        """The hook that a transcoder reconstructs; None for what reconstructs its input."""
        if not isinstance(self.sae, SparseAutoencoder) or self.sae.reconstructs_input:
            return None
        model, _, hook = self._model_parts()
        return output_hook(self.sae, model, hook, given)

    def _check_fit(self) -> None:
        wrong: list[str] = []
        if self.source is not None and self.source.width != self.sae.d_in:
            wrong.append(f"the rows are {self.source.width} wide, the SAE takes {self.sae.d_in}")
        if self.hook is not None and self.hook.width != self.sae.d_in:
            wrong.append(f"{self.hook.name} is {self.hook.width} wide, the SAE takes {self.sae.d_in}")
        if self.store is not None and self.model is not None and self.hook is not None:
            if self.store.model.get("model_digest") != self.model.identity.model_digest:
                wrong.append(
                    f"the rows were harvested from {self.store.model.get('name')} "
                    f"({self.store.model.get('model_digest')}), the model is {self.model.identity.name} "
                    f"({self.model.identity.model_digest})"
                )
            if self.store.hook["name"] != self.hook.name:
                wrong.append(f"the rows were harvested at {self.store.hook['name']}, the hook is {self.hook.name}")
        if wrong:
            raise MismatchError(f"The SAE cannot be evaluated on this: {'; '.join(wrong)}.")
        if self.model is not None and self.tokens is not None and self.hook is not None:
            check_fit(self.model, self.tokens, [self.hook])

    # --- part by part ---------------------------------------------------------------------------------------------------------

    @cached_property
    def threshold(self) -> tuple[float | None, str | None]:
        """The norm above which a position is an outlier, and where it is from: as harvested, else calibrated in the same way."""
        if self.outlier_threshold is not None:
            return self.outlier_threshold, "as given"
        if self.store is not None:
            return self.store.manifest["outlier_threshold"], "the stored rows"
        if self.model is None or self.tokens is None or self.hook is None or self.mask.outlier_factor is None:
            return None, None
        found = calibrate(self.model, self.tokens, [self.hook], self.mask, self.progress)[self.hook.name]
        return found.outlier_threshold, f"the first {found.contexts} contexts of these tokens"

    @cached_property
    def row_contexts(self) -> SpreadContexts:
        """Contexts whose rows are taken."""
        _, tokens, _ = self._model_parts()
        return SpreadContexts(tokens, row_count(tokens, self.size.max_tokens or _MOST_MODEL_TOKENS))

    @cached_property
    def behaviour_contexts(self) -> SpreadContexts:
        """Contexts that are run through the whole model."""
        _, tokens, _ = self._model_parts()
        return SpreadContexts(tokens, behaviour_count(tokens, self.size.max_ce_tokens))

    @cached_property
    def _extractor(self) -> RowExtractor:
        model, _, hook = self._model_parts()
        hooks = [hook] if self.written is None else [hook, self.written]
        # The extractor asks a token set for its size and its contexts only, which this view has.
        return RowExtractor(model, cast(TokenSet, self.row_contexts), hooks, self.mask, self._batch)

    @property
    def _batch(self) -> int:
        return contexts_per_batch(self._model_parts()[1], self.size.batch_tokens)

    def row_part(self, start: int, stop: int, bar: Task) -> RowPart:
        """What is summed over rows of contexts ``start`` to ``stop`` of :attr:`row_contexts`, captured at the hook (the model stops there).

        Args:
            start, stop: one of :func:`neuronmap.evaluation.parts.context_parts`.
            bar: advanced by tokens.
        """
        _, _, hook = self._model_parts()
        every = Units.of_contexts(0, self.row_contexts.num_contexts - 1)
        units = every.part(start, stop)
        sums, contexts, dropped = self._sums(units), set[int](), dict[str, int]()
        for low in range(start, stop, self._batch):
            high = min(low + self._batch, stop)
            for found, target_NO in rows_and_targets(self._extractor, low, high, hook, self.written, self.threshold[0]):
                context_N = torch.from_numpy(found.index[:, 3].astype(np.int64))
                for name, one in sums.items():
                    one.add(self.reconstructors[name], found.rows_NW, units.number(context_N), target_NO)
                contexts.update(context_N.tolist())
                dropped = added(dropped, found.dropped)
            bar.advance((high - low) * self.row_contexts.context_length)
        return RowPart(
            {name: one.on_cpu() for name, one in sums.items()}, every, units.first - every.first, len(contexts), dropped
        )

    def behaviour_part(self, start: int, stop: int, mean_D: Tensor, bar: Task) -> SplicedSums:
        """Loss and KL of contexts ``start`` to ``stop`` of :attr:`behaviour_contexts`, of everything that is measured.

        Args:
            start, stop: as for :meth:`row_part`.
            mean_D: what ``mean`` puts in an activation's place [D].
            bar: advanced by the tokens of every forward pass.
        """
        model, _, hook = self._model_parts()
        mean_D = mean_D.float().to(model.device)
        baselines: dict[str, Replacement] = {"zero": torch.zeros_like, "mean": mean_D.expand_as}
        replacements: dict[str, Replacement] = dict(self.reconstructors)
        replacements |= {name: baselines[name] for name in self.size.ablations}
        return splice_contexts(
            model,
            hook if self.written is None else self.written,
            cast(TokenSet, self.behaviour_contexts.part(start, stop)),
            replacements,
            mask=self.mask,
            outlier_threshold=self.threshold[0],
            batch_contexts=self._batch,
            task=bar,
            read=None if self.written is None else hook,
        )

    def finished(self, rows: RowPart, spliced: SplicedSums | None) -> dict[str, CoreMetrics]:
        """The records, by name, from the sums over all rows and all contexts.

        Raises:
            EmptyCorpusError: the mask left no position to score in the contexts of ``spliced``.
        """
        behaviours: dict[str, Behaviour] = {}
        spliced_contexts = 0
        if spliced is not None:
            behaviours, spliced_contexts = self._behaviours(rows.sums[MEASURED], spliced)
        filled = int((rows.sums[MEASURED].by_unit()["rows"] > 0).sum())
        resampler = Resampler.draw(filled, self.size.bootstrap, self.size.seed)
        counted = {
            "tokens": rows.sums[MEASURED].rows,
            "contexts": rows.contexts,
            "behaviour_tokens": behaviours[MEASURED].ce_clean.count if behaviours else 0,
            "behaviour_contexts": spliced_contexts,
            "dropped": rows.dropped,
            "outlier_threshold": self.threshold[0],
            "outlier_threshold_from": self.threshold[1],
            "resamples": self.size.bootstrap,
            "resampled": rows.units.label,
            "units": resampler.units,
            "seed": self.size.seed,
        }
        found = {}
        for name, sae in self.measured.items():
            totals = resampler.totals(rows.sums[name].by_unit())
            found[name] = CoreMetrics(
                reconstruction=reconstruction_of(rows.sums[name], resampler, totals),
                sparsity=sparsity_of(rows.sums[name], resampler, totals),
                behaviour=behaviours.get(name),
                weights=weights_of(sae),
                protocol=self._protocol(sae, counted),
            )
        return found

    def _behaviours(self, sums: RowSums, spliced: SplicedSums) -> tuple[dict[str, Behaviour], int]:
        """Loss and KL, by what is measured; also how many contexts had something to score."""
        filled_C = spliced.tokens_C > 0
        if not bool(filled_C.any()):
            raise EmptyCorpusError(
                f"The mask leaves no position to score in the {len(filled_C)} contexts run through the model.",
                hint="Raise max_ce_tokens, or relax the mask.",
            )
        resampler = Resampler.draw(int(filled_C.sum()), self.size.bootstrap, self.size.seed)
        mean_of = f"the {sums.rows:,} rows scored for reconstruction"
        kept, ablations = spliced.only(filled_C), self.size.ablations
        found = {name: behaviour_of(kept.of(name, ablations), resampler, mean_of) for name in self.reconstructors}
        return found, int(filled_C.sum())

    # --- all of it ------------------------------------------------------------------------------------------------------------

    def run(self) -> dict[str, CoreMetrics]:
        """Rows first, then the spliced model, then the figures, of everything that is measured."""
        _ = self.threshold
        rows = self._stored_rows(self.source) if self.source is not None else self._captured_rows()
        spliced = None
        if self.model is not None and self.size.max_ce_tokens:
            chosen = self.behaviour_contexts
            tokens = chosen.num_contexts * chosen.context_length
            mean_D = rows.sums[MEASURED].mean()
            with self.progress.task("Loss and KL, clean and spliced", self.forwards * tokens, "tokens") as bar:
                spliced = joined_behaviour([
                    self.behaviour_part(*part, mean_D, bar) for part in context_parts(chosen.num_contexts, self._batch)
                ])  # fmt: skip
        return self.finished(rows, spliced)

    @property
    def forwards(self) -> int:
        """Forward passes that a token costs where loss and KL are measured."""
        return 1 + len(self.measured) + len(self.size.ablations)

    def _stored_rows(self, source: RowSource) -> RowPart:
        units = Units.of_source(source)
        sums, contexts = self._sums(units), set[int]()
        most = self.size.max_tokens or _MOST_STORED_ROWS
        with self.progress.task("Reconstruction", min(most, source.num_rows), "tokens") as bar:
            for rows_nD, context_n in rows_of_source(source, most):
                for name, one in sums.items():
                    one.add(self.reconstructors[name], rows_nD, units.number(context_n))
                if self.store is not None:
                    contexts.update(context_n.tolist())
                bar.advance(len(rows_nD))
        dropped = dict(self.store.manifest["dropped"]) if self.store is not None else {}
        return RowPart(sums, units, 0, len(contexts), dropped)

    def _captured_rows(self) -> RowPart:
        chosen = self.row_contexts
        with self.progress.task("Reconstruction", chosen.num_contexts * chosen.context_length, "tokens") as bar:
            parts = context_parts(chosen.num_contexts, self._batch)
            rows = joined_rows(self.row_part(*part, bar) for part in parts)
        if not rows.sums[MEASURED].rows:
            raise nothing_left(cast(TokenSet, chosen), rows.dropped)
        return rows

    def _sums(self, units: Units) -> dict[str, RowSums]:
        """Empty sums of everything that is measured."""
        return {name: RowSums(one.width, one.sae.d_sae, units.count) for name, one in self.reconstructors.items()}

    def _model_parts(self) -> tuple[LanguageModel, TokenSet, HookPoint]:
        if self.model is None or self.tokens is None or self.hook is None:
            raise ConfigError("model=, tokens= and hook= are needed for this part.")
        return self.model, self.tokens, self.hook

    def _protocol(self, sae: Autoencoder, counted: dict[str, Any]) -> Protocol:
        store, model, tokens = self.store, self.model, self.tokens
        names = [place.name for place in (self.hook, self.written) if place is not None]
        if not names and store is not None:
            names = [str(store.hook["name"])]
        knows_mask = store is not None or self.source is None
        if self.source is not None:
            said = "stored rows" if store is not None else "rows in memory"
        else:
            said = "model run over tokens"
        context_length = tokens.context_length if tokens else None
        if store is not None:
            context_length = store.manifest["tokens"]["context_length"]
        return Protocol(
            architecture=getattr(sae, "architecture", type(sae).__name__),
            d_in=sae.d_in,
            d_sae=sae.d_sae,
            sae_dtype=str(self.dtype).removeprefix("torch."),
            source=said,
            source_digest=self.source.digest if self.source is not None else tokens.digest if tokens else None,
            context_length=context_length,
            mask=self.mask.to_dict() if knows_mask or model is not None else None,
            model=model.identity.name if model else store.model["name"] if store else None,
            model_dtype=model.identity.dtype if model else store.model["dtype"] if store else None,
            rows_dtype=_stored_as(self.source),
            hook=" -> ".join(names) or None,
            versions={name: version(name) for name in ("neuronmap", "torch", "transformers")},
            **counted,
        )


def _stored_as(source: RowSource | None) -> str | None:
    """The number format of rows on disk (``int8`` is read as float32), or of an array."""
    if source is None:
        return None
    return source.row_format.name if isinstance(source, ActivationStore) else str(source.dtype).removeprefix("torch.")
