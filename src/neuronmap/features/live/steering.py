"""``FeatureSteering``: a language model with some of its features changed, beside the same model as it is.

Shapes: B contexts, T tokens, N scored positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from neuronmap import progress as progress_module
from neuronmap.errors import ConfigError, InputError, MismatchError, ModelFormatError
from neuronmap.features.live.attached import AttachedSAE, attach
from neuronmap.features.live.generation import check_request, continue_prompt
from neuronmap.features.live.interventions import Intervention, Site, applied, sites
from neuronmap.features.live.naming import FeatureNames
from neuronmap.features.live.reading import Batch, Context, batches, read_texts
from neuronmap.features.live.steered import Run, SteeredScore, SteeredText
from neuronmap.features.storage.text import Vocabulary
from neuronmap.models.predictions import CleanPredictions
from neuronmap.progress import Progress
from neuronmap.saes.uses import require_use

if TYPE_CHECKING:
    from neuronmap.features.storage.store import FeatureStore
    from neuronmap.models import HookPoint, LanguageModel
    from neuronmap.saes import SparseAutoencoder

    SAELike = SparseAutoencoder | str | Path | AttachedSAE

__all__ = ["FeatureSteering", "scored_positions"]


_SEEDS_APART = 104_729  # controls of one seed are numbered from 0: those of the next are far from them


class FeatureSteering:
    """Generates and scores text with features clamped, scaled, added or removed.

    Args:
        sae: an SAE or a bundle's folder; or several by name, on one model, each at its own hook. Two at one hook act one after
            the other.
        model: the language model; what the SAE knows when left out.
        hook: where a single SAE reads; what it knows when left out.
        store: its feature store, for labels and for strengths in units of a feature's maximum; for several SAEs, by name.
        force: allow a model with another digest, if the widths fit.
        progress: where notes and bars go.

    Raises:
        InputError, MismatchError: as for :class:`~neuronmap.features.SAEFeatureExtractor`; also if the SAEs are of different models.

    Example:
        >>> steering = FeatureSteering(result.sae)                                                      # doctest: +SKIP
        >>> steering.generate("The president said", [Intervention.add(17, 60.0)], seed=1)               # doctest: +SKIP
    """

    def __init__(
        self,
        sae: SAELike | Mapping[str, SAELike],
        *,
        model: LanguageModel | str | Path | Any | None = None,
        hook: HookPoint | str | None = None,
        store: FeatureStore | Mapping[str, FeatureStore] | None = None,
        force: bool = False,
        progress: Progress | None = None,
    ) -> None:
        self.progress = progress or progress_module.default()
        if isinstance(sae, Mapping):
            if hook is not None:
                raise ConfigError("hook= goes with a single SAE; of several, each knows its own.")
            given, stores = dict(sae), dict(store) if isinstance(store, Mapping) else {}
            if store is not None and not isinstance(store, Mapping):
                raise ConfigError("With several SAEs, give the stores by name as well.")
        else:
            if isinstance(store, Mapping):
                raise ConfigError("With a single SAE, give its store alone.")
            given, stores = {"": sae}, {} if store is None else {"": store}
        if not given:
            raise InputError("No SAE was given.")
        self.saes: dict[str, AttachedSAE] = {}
        for name, one in given.items():
            self.saes[name] = attach(one, model=model, hook=hook, force=force, progress=self.progress)
            require_use(self.saes[name].sae, "intervention", "Steering")
            model = self.model if model is None else model
        strangers = [name for name, one in self.saes.items() if one.model.module is not self.model.module]
        if strangers:
            raise MismatchError(
                f"The SAEs are on different language models: {', '.join(strangers)}.", hint="Give model=."
            )
        self.names = {
            name: FeatureNames(stores.get(name), one.num_features, one.digest) for name, one in self.saes.items()
        }

    @property
    def model(self) -> LanguageModel:
        """The language model."""
        return next(iter(self.saes.values())).model

    @property
    def vocabulary(self) -> Vocabulary:
        """Text of the model's tokens."""
        return next(iter(self.saes.values())).vocabulary

    def generate(
        self,
        prompt: str,
        interventions: Intervention | Sequence[Intervention],
        *,
        max_tokens: int = 40,
        temperature: float = 0.0,
        seed: int = 0,
        controls: int = 1,
        cache: bool = True,
    ) -> SteeredText:
        """Continue a prompt clean, steered, and with random directions of the same length; all with the same seed.

        Args:
            prompt: what to continue.
            interventions: what to change.
            max_tokens: most tokens to generate.
            temperature: 0 takes the likeliest token.
            seed: of the sampling, whose noise the runs share, and of the random directions.
            controls: random directions to compare with; each run costs as much as the steered one.
            cache: keep keys and values between tokens.

        Raises:
            InputError: an empty prompt, unknown features, or a maximum that is needed and not known.
            ConfigError: an option out of range.
        """
        chosen = [interventions] if isinstance(interventions, Intervention) else list(interventions)
        context = read_texts(self.model, prompt)[0]
        check_request(self.model, context, max_tokens, temperature)
        variants = self._variants(chosen, controls, seed)
        found = {}
        with self.progress.task("Generating", max_tokens * len(variants), "tokens") as task:
            for name, acting in variants.items():
                found[name] = continue_prompt(
                    self.model, context, acting, max_tokens=max_tokens, temperature=temperature, seed=seed, cache=cache,
                    task=task,
                )  # fmt: skip
        runs = []
        for name, continuation in found.items():
            same = 0
            for ours, theirs in zip(continuation.ids, found["clean"].ids, strict=False):
                if ours != theirs:
                    break
                same += 1
            text, losses = self.vocabulary.decode(continuation.ids), self._clean_losses(context, continuation.ids)
            runs.append(Run(name, continuation.ids, text, continuation.stopped, same, losses))
        return SteeredText(
            prompt, self._described(chosen), tuple(runs), temperature, seed, self._notes(controls), self._title()
        )

    def score(
        self,
        texts: str | Sequence[str],
        interventions: Intervention | Sequence[Intervention],
        *,
        controls: int = 1,
        seed: int = 0,
        max_tokens: int | None = None,
        batch_tokens: int = 1024,
    ) -> SteeredScore:
        """The loss of texts, token by token, clean and steered, with KL and random directions beside.

        Args:
            texts: one text or several.
            interventions: what to change; all tokens count as prompt.
            controls: random directions to compare with.
            seed: of these directions.
            max_tokens: most tokens of a text.
            batch_tokens: most tokens in one forward pass (their logits are in memory).

        Raises:
            InputError: empty texts, unknown features, nothing to score, or a maximum that is needed and not known.
        """
        chosen = [interventions] if isinstance(interventions, Intervention) else list(interventions)
        if not self.model.has_lm_head:
            raise ModelFormatError(f"{self.model.identity.name} has no language-model head, so it gives no loss.")
        contexts = read_texts(self.model, texts, max_tokens)
        variants = self._variants(chosen, controls, seed)
        parts: dict[int, dict[str, np.ndarray]] = {}
        total = sum(len(context) for context in contexts) * len(variants)
        with self.progress.task("Scoring", total, "tokens") as task:
            for batch in batches(self.model, contexts, batch_tokens):
                parts.update(self._score_batch(batch, contexts, variants))
                task.advance(sum(len(contexts[number]) for number in batch.numbers) * len(variants))
        if not sum(len(part["target"]) for part in parts.values()):
            raise InputError("No position of the texts can be scored: they are too short.", hint="Give longer texts.")
        order = range(len(contexts))
        joined = {key: np.concatenate([parts[number][key] for number in order], axis=-1) for key in parts[0]}
        names = [name for name in variants if name.startswith("control")]
        nothing = np.zeros((0, len(joined["target"])))
        return SteeredScore(
            token_N=joined["target"],
            text_N=np.repeat(np.arange(len(contexts), dtype=np.int32), [len(parts[n]["target"]) for n in order]),
            position_N=joined["position"].astype(np.int32),
            clean_N=joined["loss clean"],
            steered_N=joined["loss steered"],
            kl_N=joined["kl steered"],
            control_loss=np.stack([joined[f"loss {name}"] for name in names]) if names else nothing,
            control_kl=np.stack([joined[f"kl {name}"] for name in names]) if names else nothing,
            contexts=tuple(context.ids_T for context in contexts),
            interventions=self._described(chosen),
            vocabulary=self.vocabulary,
            notes=self._notes(controls),
            title=self._title(),
        )

    # --- the parts ---------------------------------------------------------------------------------------------------

    def _variants(self, chosen: Sequence[Intervention], controls: int, seed: int) -> dict[str, list[Site]]:
        if controls < 0:
            raise ConfigError(f"controls = {controls}: 0 or more.")
        acting = {"clean": list[Site](), "steered": sites(self.saes, chosen, self.names)}
        for place in range(controls):
            acting[f"control {place + 1}"] = sites(self.saes, chosen, self.names, control=place + _SEEDS_APART * seed)
        return acting

    @torch.inference_mode()
    def _score_batch(
        self, batch: Batch, contexts: Sequence[Context], variants: Mapping[str, Sequence[Site]]
    ) -> dict[int, dict[str, np.ndarray]]:
        first = next(iter(self.saes.values()))
        rows_N, target_N = scored_positions(batch, first.batch_mask(batch, contexts))
        clean, T = CleanPredictions(), batch.ids_BT.shape[1]
        columns: dict[str, Tensor] = {"target": target_N.cpu(), "position": rows_N.cpu() % T + 1}
        for name, acting in variants.items():
            for site in acting:
                site.begin(site.attached.batch_mask(batch, contexts), 0, T)
            with applied(acting):
                logits_BTV = self.model.logits(batch.ids_BT, batch.attention_BT)
            if name == "clean":
                columns["loss clean"] = clean.take(logits_BTV, rows_N, target_N)
            else:
                columns[f"loss {name}"], columns[f"kl {name}"] = clean.compare(name, logits_BTV, rows_N, target_N)
            del logits_BTV
        place_N = (rows_N // T).cpu()
        return {
            number: {key: column[place_N == place].numpy() for key, column in columns.items()}
            for place, number in enumerate(batch.numbers)
        }

    def _clean_losses(self, prompt: Context, ids: tuple[int, ...]) -> tuple[float, ...]:
        """Loss of each token of a continuation under the unsteered model, in nats."""
        whole = torch.from_numpy(np.concatenate([prompt.ids_T, np.asarray(ids, dtype=np.int64)]))[None]
        logits_TV = self.model.logits(whole)[0, len(prompt) - 1 : -1].float().cpu()
        return tuple(torch.nn.functional.cross_entropy(logits_TV, whole[0, len(prompt) :], reduction="none").tolist())

    def _described(self, chosen: Sequence[Intervention]) -> tuple[str, ...]:
        said = []
        for intervention in chosen:
            names = self.names[intervention.sae if intervention.sae is not None else next(iter(self.names))]
            label = names.label(intervention.feature)
            said.append(f"{intervention}{f' ({label})' if label else ''}")
        return tuple(said)

    def _notes(self, controls: int) -> tuple[str, ...]:
        notes = [note for one in self.saes.values() for note in one.notes]
        notes.append("Masked positions (the first, special tokens) are left alone.")
        if controls:
            notes.append(
                "A control moves a position as far as the features would move it there, in a direction at random that is"
                " orthogonal to theirs."
            )
        return tuple(notes)

    def _title(self) -> str:
        where = ", ".join(f"{one.name} at {one.hook.name}" for one in self.saes.values())
        return f"{where} of {self.model.identity.name}"


def scored_positions(batch: Batch, masked_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Flat positions [N] that are scored, and the token each predicts: rows that are followed by a real token."""
    predicts_BT = torch.zeros_like(masked_BT, dtype=torch.bool)
    predicts_BT[:, :-1] = (masked_BT[:, :-1] == 0) & batch.real[:, 1:]
    rows_N = predicts_BT.flatten().nonzero().squeeze(1)
    return rows_N, batch.ids_BT.flatten().index_select(0, rows_N + 1)
