"""``evaluate_sae``: the core metrics of one SAE, from rows of activations, or with its language model, or both.

``evaluate_beside`` measures others (baselines) on the same rows and in the same contexts.

Shapes: N rows, D = d_in, F = d_sae, T tokens in a context, W = D.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor

from neuronmap import progress as progress_module
from neuronmap.activations import ActivationStore, ArrayRows, MaskConfig, RowSource
from neuronmap.activations.extract import RowExtractor, calibrate, check_fit, contexts_per_batch
from neuronmap.activations.mask import nothing_left
from neuronmap.corpora import TokenSet
from neuronmap.errors import ConfigError, EmptyCorpusError, MismatchError
from neuronmap.evaluation.bootstrap import Resampler
from neuronmap.evaluation.figures import behaviour_of, reconstruction_of, sparsity_of, weights_of
from neuronmap.evaluation.metrics import Behaviour, CoreMetrics, Protocol
from neuronmap.evaluation.pairs import rows_and_targets
from neuronmap.evaluation.rows import Autoencoder, Reconstructor, RowSums, SpreadContexts, Units, rows_of_source
from neuronmap.evaluation.splice import Replacement, splice_contexts
from neuronmap.models import HookPoint, LanguageModel, resolve_hook
from neuronmap.progress import Progress
from neuronmap.saes import SparseAutoencoder
from neuronmap.saes.places import output_hook
from neuronmap.saes.uses import require_use

__all__ = ["Ablation", "evaluate_beside", "evaluate_sae"]

Ablation = Literal["zero", "mean"]

_MEASURED = "sae"
"""Name of the SAE among what is measured."""
_MOST_STORED_ROWS = 131_072
_MOST_MODEL_TOKENS = 16_384


def evaluate_sae(
    sae: Autoencoder,
    source: RowSource | TokenSet | Tensor | np.ndarray[Any, Any] | None = None,
    *,
    model: LanguageModel | None = None,
    hook: HookPoint | str | None = None,
    hook_out: HookPoint | str | None = None,
    tokens: TokenSet | None = None,
    mask: MaskConfig | None = None,
    outlier_threshold: float | None = None,
    max_tokens: int | None = None,
    max_ce_tokens: int = 4096,
    batch_tokens: int = 1024,
    ablations: Sequence[Ablation] = ("zero", "mean"),
    bootstrap: int = 1000,
    seed: int = 0,
    progress: Progress | None = None,
) -> CoreMetrics:
    """Measure reconstruction, sparsity and, with a language model, what the SAE does to its behaviour.

    - From rows (a store, an array): reconstruction and sparsity of those rows.
    - From a model and its tokens: the same, of rows captured at the hook; then every scored position of a smaller
      sample of contexts is replaced by the reconstruction, by zero and by the mean, and loss and KL are compared
      with the clean model. The mask of the scores is the mask of the replacement: masked positions (special,
      padding, first, norm outliers) are neither replaced nor scored, so ablations do not profit from breaking an
      attention sink.
    - From rows and a model with tokens: rows for the first part, the model for the second.

    A transcoder is measured by the hook that it reconstructs: rows of both hooks come from the same forward pass (so a model is
    needed), and its output takes the place of that hook's activation.

    Sums are float64, every quotient is one of totals, and every error comes from resampling whole contexts.
    Definitions and the reasons for them: docs/explanation/metrics.md.

    Args:
        sae: the SAE for raw activations (anything with ``d_in``, ``d_sae``, ``encode`` and ``decode``).
        source: rows [N, D], already masked, such as an ``ActivationStore`` of held-out text; or a token set.
        model: the language model the activations come from.
        hook: where; a hook point or its name. Left out, it is the store's.
        hook_out: for a transcoder: what it reconstructs. Left out, what the SAE knows.
        tokens: contexts of held-out text, tokenised for ``model``.
        mask: positions to leave out; the store's own, else the default mask. Not for rows that are masked already.
        outlier_threshold: norm above which a position is left out, if it is known (from the rows the SAE was trained
            on). Left out, it is the store's, else calibrated on 8,192 tokens as a harvest does.
        max_tokens: most tokens (rows) for reconstruction and sparsity, evenly spread; 131,072 rows or 16,384
            tokens through the model when left out.
        max_ce_tokens: most tokens for loss and KL, evenly spread; 0 leaves that part out. Each costs one full
            forward pass, one for the SAE and one for each ablation.
        batch_tokens: tokens in one forward pass; memory is V logits a token, twice.
        ablations: baselines to run: ``zero``, ``mean``.
        bootstrap: resamples for the errors; 0 for none.
        seed: seed of the resampling, the only random part.
        progress: where notes and bars go.

    Returns:
        The record: figures with errors, and the protocol they were measured by. Undefined figures are null with
        the reason, never NaN.

    Raises:
        ConfigError: for arguments that do not go together.
        MismatchError: if SAE, hook, model and store do not belong together, or the SAE reads more than rows of one hook.
        EmptyCorpusError: if the mask leaves nothing to score.
        InputError: if SAE or model give NaN or infinity.

    Example:
        >>> metrics = evaluate_sae(sae, store)                                             # doctest: +SKIP
        >>> metrics.reconstruction.explained_variance.value                                # doctest: +SKIP
        0.81
    """
    if isinstance(source, TokenSet):
        tokens, source = _only(tokens, source), None
    if isinstance(source, Tensor | np.ndarray):
        source = ArrayRows(source)
    hooks = (hook, hook_out)
    shown = progress or progress_module.default()
    task = _Evaluation(sae, source, model, hooks, tokens, mask, outlier_threshold, shown)
    task.check_arguments(max_tokens, max_ce_tokens, batch_tokens, ablations)
    found = task.run(max_tokens, max_ce_tokens, batch_tokens, tuple(dict.fromkeys(ablations)), bootstrap, seed)
    return found[_MEASURED]


def evaluate_beside(
    sae: Autoencoder,
    others: Mapping[str, Autoencoder],
    tokens: TokenSet,
    *,
    model: LanguageModel,
    hook: HookPoint | str,
    mask: MaskConfig | None = None,
    outlier_threshold: float | None = None,
    max_tokens: int | None = None,
    max_ce_tokens: int = 4096,
    batch_tokens: int = 1024,
    bootstrap: int = 1000,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, CoreMetrics]:
    """Measure an SAE and others, such as baselines, on the same rows and in the same contexts of the same forward passes.

    Each of them costs one more forward pass a token for loss and KL; rows are captured, and the clean and ablated model
    run, once for all. Resamples are the same, so differences between records are paired.

    Args:
        sae: the SAE.
        others: what is measured beside it, by name; all must read and write the hook's width.
        tokens, model, hook, mask, outlier_threshold, max_tokens, max_ce_tokens, batch_tokens, bootstrap, seed, progress:
            as for :func:`evaluate_sae`.

    Returns:
        Records by name, that of the SAE under ``sae``.

    Raises:
        ConfigError: a name is taken (``sae``, ``clean``, ``zero``, ``mean``), or the SAE is a transcoder.
        MismatchError, EmptyCorpusError, InputError: as :func:`evaluate_sae`.
    """
    taken = sorted({_MEASURED, "clean", "zero", "mean"} & set(others))
    if taken:
        raise ConfigError(f"Something beside the SAE is named {taken}; these names are taken.")
    task = _Evaluation(
        sae, None, model, (hook, None), tokens, mask, outlier_threshold, progress or progress_module.default(), others
    )
    if others and task.written is not None:
        raise ConfigError("Nothing can be measured beside a transcoder: it writes another hook than it reads.")
    task.check_arguments(max_tokens, max_ce_tokens, batch_tokens, ("zero", "mean"))
    return task.run(max_tokens, max_ce_tokens, batch_tokens, ("zero", "mean"), bootstrap, seed)


def _only(tokens: TokenSet | None, source: TokenSet) -> TokenSet:
    if tokens is not None:
        raise ConfigError("Two token sets were given, as source and as tokens=; one is enough.")
    return source


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


class _Evaluation:
    """One evaluation: what was given, resolved and checked."""

    def __init__(
        self,
        sae: Autoencoder,
        source: RowSource | None,
        model: LanguageModel | None,
        hooks: tuple[HookPoint | str | None, HookPoint | str | None],
        tokens: TokenSet | None,
        mask: MaskConfig | None,
        outlier_threshold: float | None,
        progress: Progress,
        others: Mapping[str, Autoencoder] | None = None,
    ) -> None:
        _check_use(sae, source, hooks[1])
        self.sae, self.source, self.model, self.tokens, self.progress = sae, source, model, tokens, progress
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
        self.measured: dict[str, Autoencoder] = {_MEASURED: sae, **(others or {})}
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

    def check_arguments(
        self, max_tokens: int | None, max_ce_tokens: int, batch_tokens: int, ablations: Sequence[str]
    ) -> None:
        """Refuse numbers out of range and unknown ablations."""
        if max_tokens is not None and max_tokens < 1:
            raise ConfigError(f"max_tokens = {max_tokens}: at least 1 token is needed.")
        if max_ce_tokens < 0:
            raise ConfigError(f"max_ce_tokens = {max_ce_tokens}: 0 (no loss and KL) or more.")
        if batch_tokens < 1:
            raise ConfigError(f"batch_tokens = {batch_tokens}: at least 1 token must go through the model at once.")
        unknown = [name for name in ablations if name not in ("zero", "mean")]
        if unknown:
            raise ConfigError(f"ablations = {list(ablations)}: {unknown} is not one of zero, mean.")

    def run(
        self,
        max_tokens: int | None,
        max_ce_tokens: int,
        batch_tokens: int,
        ablations: tuple[Ablation, ...],
        bootstrap: int,
        seed: int,
    ) -> dict[str, CoreMetrics]:
        """Rows first, then the spliced model, then the figures, of everything that is measured."""
        threshold, threshold_from = self._threshold()
        dropped: dict[str, int]
        if self.source is not None:
            sums, units, contexts = self._stored_rows(self.source, max_tokens or _MOST_STORED_ROWS)
            dropped = dict(self.store.manifest["dropped"]) if self.store is not None else {}
        else:
            sums, units, contexts, dropped = self._captured_rows(
                max_tokens or _MOST_MODEL_TOKENS, batch_tokens, threshold
            )
        behaviours: dict[str, Behaviour] = {}
        spliced_contexts = 0
        if self.model is not None and max_ce_tokens:
            behaviours, spliced_contexts = self._behaviour(
                sums[_MEASURED], max_ce_tokens, batch_tokens, ablations, threshold, bootstrap, seed
            )
        filled = int((sums[_MEASURED].by_unit()["rows"] > 0).sum())
        resampler = Resampler.draw(filled, bootstrap, seed)
        counted = {
            "tokens": sums[_MEASURED].rows,
            "contexts": contexts,
            "behaviour_tokens": behaviours[_MEASURED].ce_clean.count if behaviours else 0,
            "behaviour_contexts": spliced_contexts,
            "dropped": dropped,
            "outlier_threshold": threshold,
            "outlier_threshold_from": threshold_from,
            "resamples": bootstrap,
            "resampled": units.label,
            "units": resampler.units,
            "seed": seed,
        }
        found = {}
        for name, sae in self.measured.items():
            totals = resampler.totals(sums[name].by_unit())
            found[name] = CoreMetrics(
                reconstruction=reconstruction_of(sums[name], resampler, totals),
                sparsity=sparsity_of(sums[name], resampler, totals),
                behaviour=behaviours.get(name),
                weights=weights_of(sae),
                protocol=self._protocol(sae, counted),
            )
        return found

    def _sums(self, units: Units) -> dict[str, RowSums]:
        """Empty sums of everything that is measured."""
        return {
            name: RowSums(reconstructor, units.count, self._decoder_norms(reconstructor))
            for name, reconstructor in self.reconstructors.items()
        }

    def _decoder_norms(self, reconstructor: Reconstructor) -> Tensor:
        decoder = getattr(reconstructor.sae, "W_dec", None)
        if isinstance(decoder, Tensor):
            norm_F: Tensor = torch.linalg.vector_norm(decoder.detach(), dim=1)
            return norm_F
        return torch.ones(reconstructor.sae.d_sae, device=reconstructor.device)

    def _threshold(self) -> tuple[float | None, str | None]:
        """The norm above which a position is an outlier: as harvested, else calibrated in the same way."""
        if self.outlier_threshold is not None:
            return self.outlier_threshold, "as given"
        if self.store is not None:
            return self.store.manifest["outlier_threshold"], "the stored rows"
        if self.model is None or self.tokens is None or self.hook is None or self.mask.outlier_factor is None:
            return None, None
        found = calibrate(self.model, self.tokens, [self.hook], self.mask, self.progress)[self.hook.name]
        return found.outlier_threshold, f"the first {found.contexts} contexts of these tokens"

    def _stored_rows(self, source: RowSource, most_rows: int) -> tuple[dict[str, RowSums], Units, int]:
        units = Units.of_source(source)
        sums = self._sums(units)
        contexts: set[int] = set()
        with self.progress.task("Reconstruction", min(most_rows, source.num_rows), "tokens") as bar:
            for rows_nD, context_n in rows_of_source(source, most_rows):
                for one in sums.values():
                    one.add(rows_nD, units.number(context_n))
                if self.store is not None:
                    contexts.update(context_n.tolist())
                bar.advance(len(rows_nD))
        return sums, units, len(contexts)

    def _captured_rows(
        self, most_tokens: int, batch_tokens: int, threshold: float | None
    ) -> tuple[dict[str, RowSums], Units, int, dict[str, int]]:
        """Rows of evenly spread contexts, captured at the hook (the model stops there)."""
        model, tokens, hook = self._model_parts()
        # The extractor asks a token set for its size and its contexts only, which this view has.
        chosen = cast(TokenSet, SpreadContexts(tokens, -(-most_tokens // tokens.context_length)))
        batch = contexts_per_batch(tokens, batch_tokens)
        units = Units.of_contexts(0, chosen.num_contexts - 1)
        sums = self._sums(units)
        hooks = [hook] if self.written is None else [hook, self.written]
        extractor = RowExtractor(model, chosen, hooks, self.mask, batch)
        dropped: dict[str, int] = {}
        contexts: set[int] = set()
        with self.progress.task("Reconstruction", chosen.num_contexts * tokens.context_length, "tokens") as bar:
            for start in range(0, chosen.num_contexts, batch):
                stop = min(start + batch, chosen.num_contexts)
                for extracted, target_NO in rows_and_targets(extractor, start, stop, hook, self.written, threshold):
                    context_N = torch.from_numpy(extracted.index[:, 3].astype(np.int64))
                    for one in sums.values():
                        one.add(extracted.rows_NW, units.number(context_N), target_NO)
                    contexts.update(context_N.tolist())
                    for reason, count in extracted.dropped.items():
                        dropped[reason] = dropped.get(reason, 0) + count
                bar.advance((stop - start) * tokens.context_length)
        if not sums[_MEASURED].rows:
            raise nothing_left(chosen, dropped)
        return sums, units, len(contexts), dropped

    def _behaviour(
        self,
        sums: RowSums,
        most_tokens: int,
        batch_tokens: int,
        ablations: tuple[Ablation, ...],
        threshold: float | None,
        bootstrap: int,
        seed: int,
    ) -> tuple[dict[str, Behaviour], int]:
        """Loss and KL of a sample of contexts, by what is measured; also how many contexts were run."""
        model, tokens, hook = self._model_parts()
        chosen = cast(TokenSet, SpreadContexts(tokens, max(1, most_tokens // tokens.context_length)))
        mean_D = sums.mean().float().to(model.device)
        baselines: dict[str, Replacement] = {"zero": torch.zeros_like, "mean": mean_D.expand_as}
        replacements: dict[str, Replacement] = dict(self.reconstructors)
        replacements |= {name: baselines[name] for name in ablations}
        forwards = chosen.num_contexts * tokens.context_length * (1 + len(replacements))
        with self.progress.task("Loss and KL, clean and spliced", forwards, "tokens") as bar:
            spliced = splice_contexts(
                model,
                hook if self.written is None else self.written,
                chosen,
                replacements,
                mask=self.mask,
                outlier_threshold=threshold,
                batch_contexts=contexts_per_batch(tokens, batch_tokens),
                task=bar,
                read=None if self.written is None else hook,
            )
        filled_C = spliced.tokens_C > 0
        if not bool(filled_C.any()):
            raise EmptyCorpusError(
                f"The mask leaves no position to score in the {chosen.num_contexts} contexts run through the model.",
                hint="Raise max_ce_tokens, or relax the mask.",
            )
        resampler = Resampler.draw(int(filled_C.sum()), bootstrap, seed)
        mean_of = f"the {sums.rows:,} rows scored for reconstruction"
        kept = spliced.only(filled_C)
        found = {name: behaviour_of(kept.of(name, ablations), resampler, mean_of) for name in self.reconstructors}
        return found, int(filled_C.sum())

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
