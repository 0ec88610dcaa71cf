"""What the language model says of an SAE: loss recovered when its reconstruction is spliced in, and k-sparse probes on its features.

The same model, contexts and probing items for every cell of the sheet. The clean model, both ablations and the dense probes run once and
are kept in the work folder.

Shapes: C contexts, N rows, D = d_in.
"""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from neuronmap.activations import MaskConfig
from neuronmap.activations.items import read_hooks
from neuronmap.concepts import ConceptData, list_concepts
from neuronmap.corpora import TokenSet
from neuronmap.evaluation.bootstrap import Resampler
from neuronmap.evaluation.figures import behaviour_of
from neuronmap.evaluation.rows import Autoencoder, Reconstructor, SpreadContexts
from neuronmap.evaluation.splice import Replacement, SplicedSums, splice_contexts
from neuronmap.evaluation.suites.coding import encoded
from neuronmap.evaluation.suites.probing import concept_sets
from neuronmap.evaluation.suites.sparse_probe import ProbeItems, dense_score, probe_scores
from neuronmap.hashing import digest_json, short
from neuronmap.models import HookPoint, LanguageModel, load_model, resolve_hook
from neuronmap.paths import read_json, write_json
from neuronmap.progress import Progress
from quality_data import MODEL, Rows, text_of

ABLATIONS = ("zero", "mean")
_BATCH_CONTEXTS = 8
_RESAMPLES = 2
"""Of the probes' items: their intervals are not used here, seeds tell the spread."""


@dataclass(frozen=True)
class ModelProtocol:
    """How thorough; the same for all cells.

    Attributes:
        ce_tokens: held-out tokens run through the model, whole contexts evenly spread over the held-out text.
        items: items of each concept to probe for.
        ks: numbers of latents of the probes.
        resamples: of the loss' error, whole contexts at a time.
        seed: of items, folds and resamples.
        concepts: names of the concepts to probe for; empty for all that have two classes.
    """

    ce_tokens: int = 2048
    items: int = 320
    ks: tuple[int, ...] = (1, 5)
    resamples: int = 1000
    seed: int = 0
    concepts: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        told = {**asdict(self), "ks": list(self.ks)}
        concepts = told.pop("concepts")
        return {**told, "concepts": list(concepts)} if concepts else told


class ModelMeter:
    """Splices and probes SAEs for rows of one hook.

    Args:
        rows: where the SAEs were trained; the mask, the outlier norm and the mean of the ablation are theirs.
        protocol: how thorough.
        work: folder where what needs no SAE is kept.
        device: where the model runs.
        progress: where bars go.
        model: the language model, if it is at hand; else it is loaded when it is first needed.
    """

    def __init__(
        self,
        rows: Rows,
        protocol: ModelProtocol,
        work: Path,
        device: str,
        progress: Progress,
        model: LanguageModel | None = None,
    ) -> None:
        self.rows, self.protocol, self.work, self.device, self.progress = rows, protocol, work, device, progress
        self._given = model
        self._loaded: tuple[LanguageModel, HookPoint, TokenSet] | None = None
        self._reference: tuple[SplicedSums, dict[str, Any]] | None = None
        self._read: list[tuple[ConceptData, ProbeItems, Tensor]] | None = None

    def figures(self, sae: Autoencoder) -> dict[str, Any]:
        """Loss recovered against both ablations, KL, and AUC of k-sparse probes, each with what it rests on."""
        return {**self._behaviour(sae), **self._probing(sae)}

    @property
    def reference(self) -> dict[str, Any]:
        """What holds for every cell: losses of the clean model and the ablations, AUC of dense probes, the items."""
        return self._references()[1]

    def _model(self) -> tuple[LanguageModel, HookPoint, TokenSet]:
        if self._loaded is None:
            model = self._given or load_model(MODEL, dtype="float32", device=self.device, progress=self.progress)
            hook = resolve_hook(model, self.rows.facts["layer"], "residual")
            tokens = text_of(model, "heldout", 2 * self.rows.facts["held"], self.progress)
            self._loaded = model, hook, tokens
        return self._loaded

    def _splice(self, replacements: dict[str, Replacement]) -> SplicedSums:
        model, hook, tokens = self._model()
        chosen = SpreadContexts(tokens, self.protocol.ce_tokens // tokens.context_length)
        forwards = chosen.num_contexts * tokens.context_length * (1 + len(replacements))
        with self.progress.task("Loss, clean and spliced", forwards, "tokens") as bar:
            return splice_contexts(
                model,
                hook,
                cast(TokenSet, chosen),
                replacements,
                mask=MaskConfig(),
                outlier_threshold=self.rows.facts["outlier_threshold"],
                batch_contexts=_BATCH_CONTEXTS,
                task=bar,
            )

    def _references(self) -> tuple[SplicedSums, dict[str, Any]]:
        if self._reference is None:
            told = {"rows": self.rows.digest, "protocol": self.protocol.to_dict(), "device": self.device}
            stem = self.work / f"reference-{short(digest_json(told))}"
            sums, facts = stem.with_suffix(".safetensors"), stem.with_suffix(".json")
            if not facts.is_file():
                self._make_references(sums, facts)
            kept = load_file(sums)
            named = {kind: {n: kept[f"{kind}_{n}"] for n in ABLATIONS} for kind in ("ce", "kl")}
            self._reference = SplicedSums(kept["tokens"], named["ce"], named["kl"]), read_json(facts)
        return self._reference

    def _make_references(self, sums: Path, facts: Path) -> None:
        mean_D = torch.from_numpy(self.rows.train).mean(0, dtype=torch.float64).float().to(self.device)
        found = self._splice({"zero": torch.zeros_like, "mean": mean_D.expand_as})
        tensors = {f"ce_{name}": found.ce[name] for name in ABLATIONS}
        tensors |= {f"kl_{name}": found.kl[name] for name in ABLATIONS}
        save_file({"tokens": found.tokens_C, **tensors}, sums)
        scored = float(found.tokens_C.sum())
        dense = {
            data.name: dense_score(x_ND, items, self.protocol.seed).auc.value for data, items, x_ND in self._items()
        }
        write_json(
            facts,
            {
                "scored_tokens": int(scored),
                "contexts": int((found.tokens_C > 0).sum()),
                "loss": {name: float(value.sum()) / scored for name, value in found.ce.items()},
                "dense_auc": dense,
                "dense_auc_mean": statistics.fmean(value for value in dense.values() if value is not None),
                "items_digest": digest_json([data.digest for data, _, _ in self._items()]),
            },
        )

    def _behaviour(self, sae: Autoencoder) -> dict[str, Any]:
        reference, _ = self._references()
        spliced = self._splice({"sae": Reconstructor(sae, torch.device(self.device), torch.float32)})
        spliced.ce |= reference.ce
        spliced.kl |= reference.kl
        filled_C = spliced.tokens_C > 0
        resampler = Resampler.draw(int(filled_C.sum()), self.protocol.resamples, self.protocol.seed)
        found = behaviour_of(spliced.only(filled_C), resampler, "the training rows")
        figures: dict[str, Any] = {"delta_ce": found.delta_ce.value, "kl": found.kl_sae.value}
        for name, score in (("zero", found.ce_score_zero), ("mean", found.ce_score_mean)):
            figures[f"ce_recovered_{name}"] = None if score is None else score.value
            figures[f"ce_recovered_{name}_error"] = None if score is None else score.error
        return figures

    def _items(self) -> list[tuple[ConceptData, ProbeItems, Tensor]]:
        """Every binary concept as it is read at the hook."""
        if self._read is None:
            protocol = self.protocol
            chosen = [one for one in list_concepts() if not protocol.concepts or one.name in protocol.concepts]
            sets = [data for _, data in concept_sets(protocol.items, protocol.seed, chosen)[0]]
            told = {"rows": self.rows.digest, "sets": [data.digest for data in sets], "device": self.device}
            file = self.work / f"items-{short(digest_json(told))}.safetensors"
            if not file.is_file():
                model, hook, _ = self._model()
                tensors: dict[str, Tensor] = {}
                for whole, (found, (x_ND,)) in zip(
                    sets, read_hooks(model, sets, [hook], progress=self.progress), strict=True
                ):
                    taken = set(map(id, found.items))
                    tensors[f"{whole.name}/rows"] = x_ND.float().contiguous()
                    tensors[f"{whole.name}/kept"] = torch.tensor([id(item) in taken for item in whole.items])
                save_file(tensors, file)
            kept = load_file(file)
            self._read = [
                (data, probe_items(data, kept[f"{data.name}/kept"], protocol.seed), kept[f"{data.name}/rows"])
                for data in sets
            ]
        return self._read

    def _probing(self, sae: Autoencoder) -> dict[str, Any]:
        by_set: dict[str, dict[str, float | None]] = {}
        for data, items, x_ND in self._items():
            scores = probe_scores(encoded(sae, x_ND), items, self.protocol.ks, self.protocol.seed)
            by_set[data.name] = {str(score.k): score.auc.value for score in scores}
        return {**mean_aucs(by_set, self.protocol.ks), "probes": by_set}


def mean_aucs(by_set: dict[str, dict[str, float | None]], ks: tuple[int, ...]) -> dict[str, float | None]:
    """Mean over data sets for each k; None if it is undefined for one, so that cells never rest on different sets."""
    found: dict[str, float | None] = {}
    for k in ks:
        values = [scores[str(k)] for scores in by_set.values()]
        known = [value for value in values if value is not None]
        found[f"auc_{k}"] = statistics.fmean(known) if known and len(known) == len(values) else None
    return found


def probe_items(data: ConceptData, kept_N: Tensor, seed: int) -> ProbeItems:
    """Which of the items that could be read train (all but the test split, as in the probing suite), and what they are."""
    items = [item for item, kept in zip(data.items, kept_N.tolist(), strict=True) if kept]
    return ProbeItems.of(
        [item.label == data.classes[1] for item in items],
        [item.cluster for item in items],
        [item.split != "test" for item in items],
        resamples=_RESAMPLES,
        seed=seed,
    )
