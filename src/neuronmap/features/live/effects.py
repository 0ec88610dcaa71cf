"""``FeatureEffects``: what features do to what the model says next, by taking them out (true) and by a gradient (fast).

Ablation of feature j: at every row where it fires, x is replaced by x - s f_j W_dec_j, and the rest of the model runs again. What the
SAE does not explain stays. s is 1, or what the SAE's ``input_norm`` multiplies its reconstruction of this x by. The loss is summed over
the scored positions of each context, so later tokens count too.

Attribution, for all features at once, from one forward and one backward pass (arXiv 2403.19647, with the zero baseline):

    change_j ~ - sum_t s_t f_tj (dL / dx_t) . W_dec_j

It is the first-order term of the same change, exact where the rest of the model is linear. It is off where the feature is large, and
where several changes bend the path, so :meth:`FeatureEffects.compare` puts the two side by side.

Cost: ablation is one forward pass a feature over the contexts in which it fires; attribution is about three forward passes in all.

Shapes: B contexts of T tokens, N scored positions, R rows, E active entries, F features, V vocabulary, D = d_in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from neuronmap import progress as progress_module
from neuronmap.errors import ConfigError, InputError, ModelFormatError
from neuronmap.features.live.attached import AttachedSAE, attach
from neuronmap.features.live.effect_tables import AblationEffect, Ablations, Attribution, EffectComparison, TokenEffect
from neuronmap.features.live.naming import FeatureNames
from neuronmap.features.live.reading import Batch, Context, as_contexts, batches, read_texts
from neuronmap.features.live.steering import scored_positions
from neuronmap.features.storage.text import Vocabulary
from neuronmap.models import replaced
from neuronmap.models.blocks import backbone_kwargs
from neuronmap.models.predictions import CleanPredictions, row_chunks
from neuronmap.models.quiet import quiet_log
from neuronmap.progress import Progress, Task
from neuronmap.saes.uses import require_use

if TYPE_CHECKING:
    from neuronmap.features.storage.store import FeatureStore
    from neuronmap.models import HookPoint, LanguageModel
    from neuronmap.saes import SparseAutoencoder

__all__ = ["FeatureEffects"]

Texts = str | Sequence[str] | Sequence[Sequence[int]] | Sequence[npt.NDArray[np.integer]]
_GATHERED = 4 << 20
"""Values of decoder rows gathered at once: 16 MB."""


class FeatureEffects:
    """Measures what features of an SAE do in the model.

    Args:
        sae: an SAE or a bundle's folder.
        model: its language model; what it knows when left out.
        hook: where it reads; what it knows when left out.
        store: its feature store: labels, and the contexts of a feature's own examples.
        batch_tokens: most tokens in one forward pass. Their logits are in memory twice: 400 MB for 1,024 tokens of a vocabulary of
            49,152 in float32; attribution takes half as many tokens.
        force: allow a model with another digest, if the widths fit.
        progress: where bars go.

    Raises:
        InputError, MismatchError: as for :class:`~neuronmap.features.SAEFeatureExtractor`, and an SAE that does not reconstruct
            what it reads.
        ModelFormatError: the model has no language-model head.

    Example:
        >>> effects = FeatureEffects(result.sae, store=store)                                          # doctest: +SKIP
        >>> effects.ablate([17, 42]).to_pandas()                                                       # doctest: +SKIP
    """

    def __init__(
        self,
        sae: SparseAutoencoder | str | Path | AttachedSAE,
        *,
        model: LanguageModel | str | Path | Any | None = None,
        hook: HookPoint | str | None = None,
        store: FeatureStore | None = None,
        batch_tokens: int = 1024,
        force: bool = False,
        progress: Progress | None = None,
    ) -> None:
        if batch_tokens < 1:
            raise ConfigError(f"batch_tokens = {batch_tokens}: at least 1 token must go through the model at once.")
        self.progress = progress or progress_module.default()
        self.attached = attach(sae, model=model, hook=hook, force=force, progress=self.progress)
        require_use(self.attached.sae, "intervention", "Measuring effects")
        if not self.attached.model.has_lm_head:
            name = self.attached.model.identity.name
            raise ModelFormatError(f"{name} has no language-model head, so features have no effect on what it says.")
        self.names = FeatureNames(store, self.attached.num_features, self.attached.digest)
        self.batch_tokens = batch_tokens

    @property
    def vocabulary(self) -> Vocabulary:
        """Text of the model's tokens."""
        return self.attached.vocabulary

    def ablate(
        self,
        features: int | Sequence[int],
        texts: Texts | None = None,
        *,
        max_examples: int = 8,
        top: int = 10,
        max_tokens: int | None = None,
    ) -> Ablations:
        """Take features out, one at a time, and run the rest of the model.

        Args:
            features: which.
            texts: texts, or contexts of token ids, in which all features are taken out; None: each feature in the contexts of its
                own top examples in the store.
            max_examples: contexts of a feature that are taken from the store.
            top: tokens listed that it makes likelier, and as many that it makes less likely.
            max_tokens: most tokens of a text.

        Raises:
            InputError: unknown features, no texts and no store, or nothing to score.
        """
        chosen = self.attached.check_features([features] if isinstance(features, int) else list(features))
        if not chosen:
            raise InputError("No feature was given.")
        if texts is not None:
            jobs = [(chosen, self._contexts(texts, max_tokens))]
        else:
            jobs = [([feature], self._own_contexts(feature, max_examples)) for feature in chosen]
        found: list[AblationEffect] = []
        total = sum(len(group) * sum(map(len, contexts)) for group, contexts in jobs)
        with self.progress.task("Taking features out", total, "tokens") as task:
            for group, contexts in jobs:
                found += self._ablate(group, contexts, top, task)
        return Ablations(tuple(found), self._title(), self._notes())

    def attribute(self, texts: Texts, *, max_tokens: int | None = None) -> Attribution:
        """Estimate the same change of the loss for every feature at once, from gradients.

        Args:
            texts: texts, or contexts of token ids.
            max_tokens: most tokens of a text.

        Raises:
            InputError: empty texts, or nothing to score.
        """
        contexts = self._contexts(texts, max_tokens)
        F = self.attached.num_features
        change_F, largest_F = np.zeros(F), np.zeros(F, dtype=np.float32)
        firings_F, scored = np.zeros(F, dtype=np.int64), 0
        with self.progress.task("Gradients", sum(map(len, contexts)), "tokens") as task:
            for batch in batches(self.attached.model, contexts, max(1, self.batch_tokens // 2)):
                scored += self._attribute_batch(batch, contexts, change_F, firings_F, largest_F)
                task.advance(sum(len(contexts[number]) for number in batch.numbers))
        if not scored:
            raise InputError("No position of the texts can be scored: they are too short.", hint="Give longer texts.")
        return Attribution(change_F, firings_F, largest_F, scored, self.names, self._title(), self._notes())

    def compare(
        self,
        texts: Texts | None = None,
        features: int | Sequence[int] | None = None,
        *,
        top: int = 20,
        max_examples: int = 8,
        max_tokens: int | None = None,
    ) -> EffectComparison:
        """Attribution of features, and their true ablation on the same texts.

        Args:
            texts: texts, or contexts of token ids; None: each feature in the contexts of its own strongest examples.
            features: which to take out; None: those with the largest estimates on the texts.
            max_examples: contexts of a feature that are taken from the store.
            top: how many, where they are not given.
            max_tokens: most tokens of a text.

        Returns:
            Estimate and truth of each feature, and how well they agree.
        """
        wanted = [features] if isinstance(features, int) else features
        chosen = None if wanted is None else self.attached.check_features(list(wanted))
        jobs: list[tuple[list[int], Attribution, Ablations]] = []
        if texts is not None:
            contexts = [context.ids_T for context in self._contexts(texts, max_tokens)]
            attribution = self.attribute(contexts)
            chosen = attribution.strongest(top) if chosen is None else chosen
            if not chosen:
                raise InputError("No feature fires in these texts.")
            jobs.append((chosen, attribution, self.ablate(chosen, contexts)))
        elif not chosen:
            raise InputError("Neither texts nor features were given.", hint="Give texts, or features of the store.")
        else:
            for feature in chosen:
                own = [context.ids_T for context in self._own_contexts(feature, max_examples)]
                jobs.append(([feature], self.attribute(own), self.ablate([feature], own)))
        return EffectComparison(
            features=np.array(chosen, dtype=np.int32),
            estimate=np.concatenate([attribution.change_F[part] for part, attribution, _ in jobs]),
            truth=np.array([effect.loss_change for _, _, found in jobs for effect in found.effects]),
            firings=np.concatenate([attribution.firings_F[part] for part, attribution, _ in jobs]),
            names=self.names,
            title=self._title(),
        )

    # --- ablation ----------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def _ablate(self, features: list[int], contexts: Sequence[Context], top: int, task: Task) -> list[AblationEffect]:
        """One clean pass for all features, one more for each that fires."""
        here, sums = self.attached, [_Sums(len(contexts)) for _ in features]
        for batch in batches(here.model, contexts, self.batch_tokens):
            without = _Without(here, features, here.batch_mask(batch, contexts))
            with replaced(here.model, here.hook, without.watch):
                logits_BTV = here.model.logits(batch.ids_BT, batch.attention_BT)
            rows_N, target_N = scored_positions(batch, without.masked_BT)
            clean = CleanPredictions()
            loss_N = clean.take(logits_BTV, rows_N, target_N)
            for place, feature in enumerate(features):
                sums[place].positions += len(rows_N)
                if len(rows_N) and without.take_out(place):  # else nothing would change
                    with replaced(here.model, here.hook, without):
                        logits_BTV = here.model.logits(batch.ids_BT, batch.attention_BT)
                    change_N, kl_N = clean.compare(f"feature {feature} taken out", logits_BTV, rows_N, target_N)
                    fires_N = (without.f_BT > 0).flatten()[rows_N.to(without.f_BT.device)].cpu()
                    sums[place].add(batch, without.f_BT, change_N - loss_N, kl_N, fires_N, rows_N)
                    sums[place].add_tokens(clean.log_probabilities, logits_BTV, rows_N, fires_N)
                task.advance(sum(len(contexts[number]) for number in batch.numbers))
        if not sums[0].positions:
            raise InputError("No position of the texts can be scored: they are too short.", hint="Give longer texts.")
        return [
            one.result(feature, self.names.label(feature), self.vocabulary, top)
            for feature, one in zip(features, sums, strict=True)
        ]

    # --- attribution -------------------------------------------------------------------------------------------------

    def _attribute_batch(
        self,
        batch: Batch,
        contexts: Sequence[Context],
        change_F: npt.NDArray[np.float64],
        firings_F: npt.NDArray[np.int64],
        largest_F: npt.NDArray[np.float32],
    ) -> int:
        """Add one batch to the sums; the number of its scored positions."""
        here = self.attached
        x_BTD, gradient_BTD, masked_BT, scored = _gradient(here, batch, here.batch_mask(batch, contexts))
        if not scored:
            return 0
        rows_BT = masked_BT == 0
        x_RD = x_BTD[rows_BT].to(here.sae.device, torch.float32)
        gradient_RD = gradient_BTD[rows_BT].to(here.sae.device, torch.float32)
        gradient_RD = gradient_RD * here.sae.decoder_scale(x_RD)
        for row_E, feature_E, value_E in _entries(here, x_RD):
            pull_E = torch.linalg.vecdot(gradient_RD[row_E], here.sae.W_dec.detach()[feature_E].float())
            feature = feature_E.cpu().numpy()
            np.add.at(change_F, feature, -(value_E * pull_E).double().cpu().numpy())
            np.add.at(firings_F, feature, 1)
            np.maximum.at(largest_F, feature, value_E.cpu().numpy())
        return scored

    # --- contexts and words ------------------------------------------------------------------------------------------

    def _contexts(self, texts: Texts, max_tokens: int | None) -> list[Context]:
        if isinstance(texts, str) or (len(texts) and isinstance(texts[0], str)):
            return read_texts(self.attached.model, texts, max_tokens)  # type: ignore[arg-type]
        return as_contexts(self.attached.model, texts)  # type: ignore[arg-type]

    def _own_contexts(self, feature: int, most: int) -> list[Context]:
        store = self.names.store
        if store is None:
            raise InputError(
                "There are no texts, and no feature store to take examples from.", hint="Give texts= or store=."
            )
        sequences = list(dict.fromkeys(example.sequence for example in store.examples(feature, "top")))[:most]
        if not sequences:
            raise InputError(
                f"Feature {feature} has no examples: it never fired in the analysed text.", hint="Give texts."
            )
        return as_contexts(self.attached.model, [store.context(sequence) for sequence in sequences])

    def _title(self) -> str:
        return f"{self.attached.name} at {self.attached.hook.name} of {self.attached.model.identity.name}"

    def _notes(self) -> tuple[str, ...]:
        return (*self.attached.notes, "Masked positions (the first, special tokens) are left alone and not scored.")


class _Without:
    """The activation without one feature; ``watch`` looks at the clean pass first."""

    def __init__(self, attached: AttachedSAE, features: Sequence[int], masked_BT: Tensor) -> None:
        self._attached, self._features = attached, list(features)
        self.masked_BT = masked_BT
        self._f_RJ = torch.zeros(0)
        self._row_D = torch.zeros(0)
        self.f_BT = torch.zeros(0)

    def watch(self, x_BTD: Tensor) -> Tensor:
        """Note where the features fire; the activation stays."""
        here = self._attached
        norm_BT = torch.linalg.vector_norm(x_BTD, dim=-1, dtype=torch.float32)
        self.masked_BT = here.add_outliers(self.masked_BT.to(norm_BT.device), norm_BT)
        x_RD = x_BTD[self.masked_BT == 0].to(here.sae.device, torch.float32)
        self._f_RJ = torch.zeros(len(x_RD), len(self._features), device=x_RD.device)
        for part in here.chunks(len(x_RD)):
            self._f_RJ[part] = here.encode(x_RD[part])[:, self._features].float()
        return x_BTD

    def take_out(self, place: int) -> bool:
        """Choose the feature that the next pass is without; whether it fires at all."""
        self._row_D = self._attached.sae.W_dec.detach()[self._features[place]].float()
        self.f_BT = torch.zeros(self.masked_BT.shape, device=self._f_RJ.device)
        self.f_BT[(self.masked_BT == 0).to(self.f_BT.device)] = self._f_RJ[:, place]
        return bool((self._f_RJ[:, place] > 0).any())

    def __call__(self, x_BTD: Tensor) -> Tensor:
        f_BT = self.f_BT.to(x_BTD.device)
        fires_BT = f_BT > 0
        without_BTD = x_BTD.clone()
        move_ND = f_BT[fires_BT].unsqueeze(1) * self._row_D.to(x_BTD.device)
        x_ND = x_BTD[fires_BT].float()
        without_BTD[fires_BT] = (x_ND - move_ND * self._attached.sae.decoder_scale(x_ND)).to(x_BTD)
        return without_BTD


class _Sums:
    """What the ablation of one feature adds up over batches."""

    def __init__(self, contexts: int) -> None:
        self.positions, self.firings, self.at_firings = 0, 0, 0
        self.change_C = np.zeros(contexts)
        self.change_at, self.kl, self.kl_at, self.largest = 0.0, 0.0, 0.0, 0.0
        self.gaps_2V: Tensor | None = None

    def add(self, batch: Batch, f_BT: Tensor, change_N: Tensor, kl_N: Tensor, fires_N: Tensor, rows_N: Tensor) -> None:
        place_N = (rows_N // batch.ids_BT.shape[1]).cpu().numpy()
        np.add.at(self.change_C, np.array(batch.numbers)[place_N], change_N.numpy())
        self.firings += int((f_BT > 0).sum())
        self.at_firings += int(fires_N.sum())
        self.change_at += float(change_N[fires_N].sum())
        self.kl += float(kl_N.sum())
        self.kl_at += float(kl_N[fires_N].sum())
        self.largest = max(self.largest, float(f_BT.max()))

    def add_tokens(self, log_p_NV: Tensor, logits_BTV: Tensor, rows_N: Tensor, fires_N: Tensor) -> None:
        """Sums of p - q and of log p - log q at the firing positions: what the feature adds to each token."""
        V = log_p_NV.shape[1]
        firing = fires_N.nonzero().squeeze(1).to(rows_N.device)
        if self.gaps_2V is None:
            self.gaps_2V = torch.zeros(2, V, dtype=torch.float64)
        flat = logits_BTV.reshape(-1, V)
        for part in row_chunks(len(firing), V):
            log_p_nV = log_p_NV[firing[part]]
            log_q_nV = torch.log_softmax(flat.index_select(0, rows_N[firing[part]]).float(), dim=-1)
            self.gaps_2V[0] += (log_p_nV.exp() - log_q_nV.exp()).sum(0, dtype=torch.float64).cpu()
            self.gaps_2V[1] += (log_p_nV - log_q_nV).nan_to_num_(0.0).sum(0, dtype=torch.float64).cpu()

    def tokens(self, vocabulary: Vocabulary, top: int, largest: bool) -> tuple[TokenEffect, ...]:
        """The tokens whose probability changes most, one way or the other."""
        if self.gaps_2V is None or not self.at_firings:
            return ()
        # Some models' logits go on beyond the tokens of their embedding.
        mean_2V = self.gaps_2V[:, : vocabulary.size] / self.at_firings
        ids = mean_2V[0].topk(min(top, mean_2V.shape[1]), largest=largest).indices.tolist()
        found = [TokenEffect(vocabulary.shown(token), *mean_2V[:, token].tolist()) for token in ids]
        return tuple(one for one in found if one.probability and (one.probability > 0) == largest)

    def result(self, feature: int, label: str, vocabulary: Vocabulary, top: int) -> AblationEffect:
        at = max(1, self.at_firings)
        return AblationEffect(
            feature=feature,
            label=label,
            contexts=len(self.change_C),
            positions=self.positions,
            firings=self.firings,
            largest=self.largest,
            loss_change=float(self.change_C.sum()),
            by_context=tuple(self.change_C.tolist()),
            loss_at_firings=self.change_at / at,
            kl=self.kl / self.positions if self.positions else 0.0,
            kl_at_firings=self.kl_at / at,
            promoted=self.tokens(vocabulary, top, True),
            suppressed=self.tokens(vocabulary, top, False),
        )


class _Gradient(NamedTuple):
    x_BTD: Tensor
    gradient_BTD: Tensor
    masked_BT: Tensor
    scored: int


def _gradient(attached: AttachedSAE, batch: Batch, masked_BT: Tensor) -> _Gradient:
    """Activations at the hook, and the gradient there of the loss summed over the scored positions."""
    model, taken = attached.model, dict[str, Tensor]()

    def leaf(x_BTD: Tensor) -> Tensor:
        taken["x"] = x_BTD.detach().requires_grad_()
        return taken["x"]

    inputs = {"input_ids": batch.ids_BT}
    if batch.attention_BT is not None:
        inputs["attention_mask"] = batch.attention_BT.to(torch.int64)
    with replaced(model, attached.hook, leaf), torch.enable_grad(), quiet_log():
        logits_BTV = model.module(**inputs, **backbone_kwargs(model.module)).logits
        x_BTD = taken["x"]
        norm_BT = torch.linalg.vector_norm(x_BTD.detach(), dim=-1, dtype=torch.float32)
        masked_BT = attached.add_outliers(masked_BT.to(norm_BT.device), norm_BT)
        rows_N, target_N = scored_positions(batch, masked_BT)
        if not len(rows_N):
            return _Gradient(x_BTD.detach(), torch.zeros_like(x_BTD), masked_BT, 0)
        scores_NV = logits_BTV.reshape(-1, logits_BTV.shape[-1]).index_select(0, rows_N).float()
        loss = torch.nn.functional.cross_entropy(scores_NV, target_N, reduction="sum")
        (gradient_BTD,) = torch.autograd.grad(loss, x_BTD)
    return _Gradient(x_BTD.detach(), gradient_BTD, masked_BT, len(rows_N))


def _entries(attached: AttachedSAE, x_RD: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Row, feature and value of the active entries, some at a time."""
    most = max(1, _GATHERED // attached.sae.d_in)
    for part in attached.chunks(len(x_RD)):
        f_rF = attached.encode(x_RD[part])
        row_E, feature_E = f_rF.nonzero(as_tuple=True)
        for start in range(0, len(row_E), most):
            some = slice(start, start + most)
            yield row_E[some] + part.start, feature_E[some], f_rF[row_E[some], feature_E[some]].float()
