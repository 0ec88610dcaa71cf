"""From an SAE of the library to its feature store: the one path that the command line and jobs take.

rows (stored, or from the model) -> the pass -> weights and map -> feature store -> hints -> <bundle>/analyses/<key>
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from neuronmap import paths
from neuronmap import progress as progress_module
from neuronmap.engines import EngineSettings, running
from neuronmap.errors import ConfigError, DamagedError, Interrupted, MismatchError, MissingDependencyError
from neuronmap.features.config import AnalysisConfig
from neuronmap.hashing import digest_json, short
from neuronmap.hub.analyses import analysis_folder
from neuronmap.hub.entry import LibraryEntry
from neuronmap.hub.library import SAEModelHub
from neuronmap.hub.opening import (
    ModelSettings,
    hook_of,
    language_model_of,
    model_settings,
    tokenized,
    training_config,
    training_text,
)
from neuronmap.progress import Progress
from neuronmap.saes.metadata import read_bundle_info

if TYPE_CHECKING:
    import pyarrow as pa

    from neuronmap.activations import MaskConfig
    from neuronmap.corpora import TokenSet
    from neuronmap.features.collect.rows import AnalysisRows
    from neuronmap.features.collect.state import FeatureState
    from neuronmap.features.directions.map import FeatureMap
    from neuronmap.features.storage.store import FeatureStore
    from neuronmap.hub.spreading import AnalysisWork
    from neuronmap.models import HookPoint
    from neuronmap.saes import SparseAutoencoder
    from neuronmap.training import SAEConfig

__all__ = ["AnalysisRequest", "analyze_into_library"]

_QUOTED = re.compile(r"'([^']+)'")
"""The tokens in a label."""
_PARTS = {"lens": "direct logits", "map": "a map", "hints": "hints"}
"""What is made besides the pass, in words."""


@dataclass(frozen=True)
class AnalysisRequest:
    """What to analyse SAEs on, and what to make besides the pass.

    Attributes:
        text: corpus, file or folder; None for the text the SAE was trained on, whose stored activations are then used if they are
            still there.
        tokens: most tokens; None for as many as training read, or all of another text.
        model: the language model, if not the one the SAE was trained on.
        device, dtype: of the language model; as in training when None.
        force: go on although model, revision or tokenizer differ.
        config: what the pass keeps.
        lens: direct logits through the model's unembedding.
        feature_map: a two-dimensional map of the decoder directions with clusters.
        hints: labels by rules.
        complete: make an analysis anew that is there without one of these three; otherwise it is taken as it is.
        replace: make it anew although it is there.
        restart: begin an interrupted pass anew.
        shard: (i, n), from 0: only that part of the pass.
        folder: where the work of a shard lies; None for a folder of the cache.
        engine: where the pass runs.
        bucket: URL of a bucket for stored activations: those of this host are put there, those that are missing here are read from there.
    """

    text: str | None = None
    tokens: int | None = None
    model: str | None = None
    device: str | None = None
    dtype: str | None = None
    force: bool = False
    config: AnalysisConfig = field(default_factory=AnalysisConfig)
    lens: bool = True
    feature_map: bool = True
    hints: bool = True
    complete: bool = True
    replace: bool = False
    restart: bool = False
    shard: tuple[int, int] | None = None
    folder: Path | None = None
    engine: EngineSettings = field(default_factory=EngineSettings)
    bucket: str | None = None


def analyze_into_library(
    names: Sequence[str],
    request: AnalysisRequest | None = None,
    *,
    hub: SAEModelHub | None = None,
    merge: Sequence[str | Path] = (),
    progress: Progress | None = None,
) -> list[Path]:
    """Analyse SAEs of one language model, all in one pass over the text, and keep each feature store with its SAE.

    Args:
        names: the SAEs; all of the same language model.
        request: on what, and what to make.
        hub: the library.
        merge: work folders of finished shards, to be merged instead of a pass here.
        progress: where notes and bars go.

    Returns:
        The feature stores, in the order of the names; with a shard, the work folder.

    Raises:
        ConfigError: no SAE, one named twice, or SAEs of different language models.
        InputError: an SAE whose model, hook or text is not known and not given.
        MismatchError: an SAE that does not fit the model; lists every difference.
        Interrupted: on Ctrl-C; the same call continues.
    """
    request = request or AnalysisRequest()
    return _Analysis(list(names), request, hub or SAEModelHub(), progress or progress_module.default()).run(merge)


@dataclass(frozen=True)
class _Subject:
    """One SAE of an analysis."""

    entry: LibraryEntry
    sae: SparseAutoencoder
    hook: HookPoint
    record: dict[str, Any]


class _Analysis:
    def __init__(self, names: list[str], request: AnalysisRequest, hub: SAEModelHub, progress: Progress) -> None:
        self.request, self.hub, self.progress = request, hub, progress
        self.entries = _entries(hub, names)
        self.model = language_model_of(
            self.entries[0], model=request.model, device=request.device, dtype=request.dtype, progress=progress
        )
        self.subjects = [self._subject(entry) for entry in self.entries]
        self.tokens, self.mask, self.corpus = self._text()

    def run(self, merge: Sequence[str | Path]) -> list[Path]:
        from neuronmap.features.collect.analyze import forget_pass, run_pass
        from neuronmap.hub.spreading import spread_over

        self._engine().checked()
        if merge and self.request.shard is not None:
            raise ConfigError(
                "A shard is made or shards are merged, not both at once.", hint="Leave out --shard or --merge."
            )
        if merge:
            return self._finished(self._merged(merge))
        rows = self._rows()
        if self.request.shard is None and not self.request.replace:
            done = self._done(rows)
            if done is not None:
                return done
        folder = self.request.folder or self._work_folder(rows)
        if self.request.restart:
            forget_pass(folder)
        try:
            with running(self._engine(), self.progress) as pool:
                states = run_pass(
                    {subject.entry.id: subject.sae for subject in self.subjects},
                    rows,
                    hook_of=self._hooks(),
                    identities=self._identities(),
                    folder=folder,
                    config=self.request.config,
                    shard=self.request.shard or (0, 1),
                    spread=None if pool is None else spread_over(pool, self._work(rows)),
                    progress=self.progress,
                )
        except Interrupted as error:
            raise Interrupted(error.message, hint="Run the same command again; it continues there.") from None
        if self.request.shard is not None:
            return [folder]
        made = self._finished(states)
        if self.request.folder is None:
            forget_pass(folder)  # the stores hold what it was for
        return made

    def _finished(self, states: dict[str, FeatureState]) -> list[Path]:
        return [self._finish(subject, states[subject.entry.id]) for subject in self.subjects]

    # --- what is analysed --------------------------------------------------------------------------------------------

    def _subject(self, entry: LibraryEntry) -> _Subject:
        hook = hook_of(entry, self.model)
        sae = self.hub.load(
            entry.id, model=self.model, device=str(self.model.device), force=self.request.force, progress=self.progress
        )
        metadata = read_bundle_info(entry.path).metadata
        record = {
            "id": entry.id,
            "architecture": entry.architecture,
            "d_in": entry.d_in,
            "d_sae": entry.d_sae,
            "k": entry.k,
            "weights_digest": entry.weights_digest,
            "trained_on": dict(metadata.corpus or {}) if metadata is not None else {},
        }
        return _Subject(entry, sae, hook, record)

    def _text(self) -> tuple[TokenSet, MaskConfig, dict[str, Any]]:
        """The tokens, the mask and what to call them; as in training where the request does not say otherwise."""
        from neuronmap.activations import MaskConfig
        from neuronmap.training.data import split_tokens

        first = self.entries[0]
        config = training_config(first)
        mask = MaskConfig(**config.mask_fields()) if config else MaskConfig()
        text, most = self.request.text, self.request.tokens
        if most is not None and most < 1:
            raise ConfigError(f"tokens = {most}: at least 1 token is needed.")
        source = text if text is not None else training_text(first)
        if text is None and most is None and config is not None:
            found, _, _ = split_tokens(config, source, self.model, self.progress)
        else:
            found = tokenized(self.model, source, config=config, most=most, progress=self.progress)
        self._note_others(config, text is None)
        report = {name: value for name, value in found.report.to_dict().items() if name != "reused"}
        return found, mask, {"name": found.report.corpus, **report, "digest": found.digest}

    def _note_others(self, config: SAEConfig | None, own_text: bool) -> None:
        """Say for whom the first SAE's text and mask are not those of training."""
        for entry in self.entries[1:]:
            other = training_config(entry)
            if config is None or other is None:
                continue
            names = ["text"] * (own_text and other.corpus != config.corpus)
            names += ["mask"] * (other.mask_fields() != config.mask_fields())
            if names:
                self.progress.note(
                    f"{entry.id} is analysed with the {' and '.join(names)} of {self.entries[0].id}, not its own."
                )

    def _rows(self) -> AnalysisRows:
        """Stored activations if they are there, which needs no run of the model; else the model, once for all SAEs."""
        from neuronmap.features.collect.rows import ModelRows, StoredRows
        from neuronmap.hub.buckets import activations_of
        from neuronmap.objects import RemoteFolders

        hooks = list({subject.hook.name: subject.hook for subject in self.subjects}.values())
        place = RemoteFolders(self.request.bucket) if self.request.bucket is not None else None
        if len(hooks) == 1:
            dtype = (self.entries[0].training or {}).get("store_dtype", "auto")
            store = activations_of(
                self.model, self.tokens, hooks[0], dtype=dtype, mask=self.mask, place=place, progress=self.progress
            )
            if store is not None:
                self.progress.note(f"Reading the stored activations of {self.tokens.num_tokens:,} tokens ({store}).")
                return StoredRows(store, self.tokens)
        self.progress.note(
            f"Running {self.model.identity.name} over {self.tokens.num_tokens:,} tokens: no stored activations of this text."
        )
        return ModelRows(self.model, self.tokens, hooks, mask=self.mask, progress=self.progress)

    def _engine(self) -> EngineSettings:
        return replace(self.request.engine, device=self.request.device or self._settings().device)

    def _settings(self) -> ModelSettings:
        request = self.request
        return model_settings(self.entries[0], model=request.model, device=request.device, dtype=request.dtype)

    def _work(self, rows: AnalysisRows) -> AnalysisWork:
        """The pass as other hosts are sent it."""
        from neuronmap.features.collect.rows import ModelRows, StoredRows
        from neuronmap.hub.spreading import AnalysisWork, SentModel, SentModelRows, SentStoredRows

        settings = self._settings()
        sent: SentStoredRows | SentModelRows
        if isinstance(rows, ModelRows):
            sent = SentModelRows.of(rows, SentModel.of(self.model, settings))
        else:
            store = cast("StoredRows", rows).store
            sent = SentStoredRows.of(store, store.name, self.request.bucket)
        return AnalysisWork(
            {subject.entry.id: copy.deepcopy(subject.sae).to("cpu") for subject in self.subjects},
            self._hooks(),
            self._identities(),
            self.request.config,
            self.tokens,
            sent,
            settings.device.partition(":")[0],
        )

    def _hooks(self) -> dict[str, str]:
        return {subject.entry.id: subject.hook.name for subject in self.subjects}

    def _identities(self) -> dict[str, str]:
        return {subject.entry.id: subject.entry.weights_digest or subject.entry.id for subject in self.subjects}

    # --- where it goes -----------------------------------------------------------------------------------------------

    def _key(self, subject: _Subject, rows: AnalysisRows) -> str:
        from neuronmap.features.collect.analyze import pass_key

        return pass_key(subject.sae, rows, subject.hook.name, self._identities()[subject.entry.id], self.request.config)

    def _done(self, rows: AnalysisRows) -> list[Path] | None:
        """The stores, if all of them are there with what is wanted. If something is missing, what they had is wanted too."""
        from neuronmap.features.storage.store import FeatureStore

        found = [analysis_folder(subject.entry, self._key(subject, rows)) for subject in self.subjects]
        if not all((folder / "manifest.json").is_file() for folder in found):
            return None
        try:
            made_with = []
            for folder in found:
                with FeatureStore.open(folder) as store:
                    made_with.append(_made_with(store))
        except DamagedError as error:
            self.progress.note(f"{error.message} It is made anew.")
            return None
        wanted = self._wanted()
        missing = [part for part in wanted if wanted[part] and not all(had[part] for had in made_with)]
        if missing and self.request.complete:
            named = " and ".join(_PARTS[part] for part in missing)
            self.progress.note(f"This analysis is there without {named}; it is made anew with them.")
            kept = {part: wanted[part] or any(had[part] for had in made_with) for part in wanted}
            self.request = replace(self.request, lens=kept["lens"], feature_map=kept["map"], hints=kept["hints"])
            return None
        for folder in found:
            self.progress.note(f"This analysis is there already ({folder}); --replace makes it anew.")
        return found

    def _wanted(self) -> dict[str, bool]:
        """What is made besides the pass, as the manifest keeps it."""
        return {"lens": self.request.lens, "map": self.request.feature_map, "hints": self.request.hints}

    def _work_folder(self, rows: AnalysisRows) -> Path:
        shard = self.request.shard or (0, 1)
        key = digest_json([[self._key(subject, rows) for subject in self.subjects], list(shard)])
        return paths.cache_folder("features") / short(key)

    def _merged(self, folders: Sequence[str | Path]) -> dict[str, FeatureState]:
        """The states of finished shards, merged for each SAE."""
        from neuronmap.features.collect.analyze import load_pass
        from neuronmap.features.collect.state import FeatureState

        passes = [load_pass(Path(folder)) for folder in folders]
        wanted = {subject.entry.id for subject in self.subjects}
        for folder, found in zip(folders, passes, strict=True):
            if missing := sorted(wanted - set(found)):
                raise MismatchError(f"The shard {folder} holds {', '.join(sorted(found))}, not {', '.join(missing)}.")
            for name, identity in self._identities().items():
                if (other := found[name].facts["sae_digest"]) != identity:
                    raise MismatchError(f"The shard {folder} is of other weights of {name}: {other}, not {identity}.")
        return {name: FeatureState.merge([found[name] for found in passes]) for name in wanted}

    def _finish(self, subject: _Subject, state: FeatureState) -> Path:
        from neuronmap.features.directions.weights import weight_facts
        from neuronmap.features.storage.text import Vocabulary
        from neuronmap.features.summary.finish import attach_table, finish
        from neuronmap.interpretation import make_hints

        config = state.config  # of the pass; that of merged shards need not be the request's
        with_lens = self.request.lens and self.model.has_lm_head
        weights = weight_facts(
            subject.sae,
            neighbours=min(config.neighbours, subject.sae.d_sae - 1),
            lens_tokens=config.neighbours,
            model=self.model if with_lens else None,
            hook=subject.hook if with_lens else None,
            progress=self.progress,
        )
        if self.request.lens and weights.lens is None:
            self.progress.note(f"No direct logits: {weights.lens_note or 'the model has no language-model head.'}")
        embedded = int(self.model.module.get_input_embeddings().weight.shape[0])
        vocabulary = Vocabulary.from_tokenizer(self.model.tokenizer, max(embedded, int(state.facts["vocabulary"])))
        place = self._map(subject, state, weights)
        facts = {
            "sae": subject.record,
            "model": self.model.identity.to_dict(),
            "hook": subject.hook.to_dict(),
            "corpus": self.corpus,
            "made_with": self._wanted(),
        }
        with self.hub.staging() as staging:
            made = finish(
                state,
                self.tokens,
                vocabulary,
                staging / "store",
                weights=weights,
                feature_map=place,
                facts=facts,
                progress=self.progress,
            )
            if self.request.hints:
                lens = weights.lens
                promoted = None if lens is None else (lens.promoted_FN, lens.promoted_logit_FN)
                hints = make_hints(state, self.tokens, vocabulary, promoted=promoted, progress=self.progress)
                attach_table(made, "hints", hints)
            if place is not None and (place.cluster_F >= 0).any():
                attach_table(made, "clusters", _clusters(made, place))
            name, weights_digest = short(state.facts["key"]), subject.entry.weights_digest
            return self.hub.attach(
                subject.entry.id, name, made, overwrite=True, move=True, weights_digest=weights_digest
            )

    def _map(self, subject: _Subject, state: FeatureState, weights: Any) -> FeatureMap | None:
        if not self.request.feature_map:
            return None
        from neuronmap.features.directions.map import feature_map

        try:
            return feature_map(
                subject.sae.W_dec,
                state.features["firings"] > 0,
                weights.neighbours_FN,
                weights.neighbour_cosines_FN,
                seed=state.config.seed,
                progress=self.progress,
            )
        except MissingDependencyError as error:
            self.progress.note(f"No map of the features: {error.message} {error.hint}")
            return None


def _made_with(store: FeatureStore) -> dict[str, bool]:
    """What is in a store, or was asked for when it was made and could not be had (a model without a head has no logits)."""
    asked = store.facts.get("made_with") or {}  # stores of before do not say
    place = store.tables.read("features", ["map_x"]).column(0)
    return {
        "lens": bool(asked.get("lens")) or "promoted" in store.tables.names,
        "map": bool(asked.get("map")) or place.null_count < len(place),
        "hints": "hints" in store.tables.names,
    }


def _clusters(folder: Path, place: FeatureMap) -> pa.Table:
    """The clusters of a map, named by what their features' labels share, or their tokens where they have none."""
    import numpy as np
    import pyarrow as pa

    from neuronmap.features.directions.map import cluster_labels
    from neuronmap.features.storage.schema import arrow_schema
    from neuronmap.features.storage.store import FeatureStore

    with FeatureStore.open(folder) as store:
        rows = store.queries.select(limit=None, columns=["label", "top_lift_text"])
        words = [[*_QUOTED.findall(row["label"] or ""), row["top_lift_text"] or ""] for row in rows]
    filled = place.cluster_F >= 0
    count = int(place.cluster_F.max()) + 1
    size = np.bincount(place.cluster_F[filled], minlength=count)

    def centre(values: Any) -> Any:
        return (np.bincount(place.cluster_F[filled], weights=values[filled], minlength=count) / size).astype(np.float32)

    columns = {
        "cluster": np.arange(count, dtype=np.int32),
        "size": size.astype(np.int32),
        "label": cluster_labels(place.cluster_F, words),
        "x": centre(place.x_F),
        "y": centre(place.y_F),
    }
    return pa.table(columns, schema=arrow_schema("clusters"))


def _entries(hub: SAEModelHub, names: list[str]) -> list[LibraryEntry]:
    entries = [hub.get(name) for name in names]
    if not entries:
        raise ConfigError("No SAE was named.", hint="neuronmap sae list-models shows what there is.")
    if len({entry.id for entry in entries}) < len(entries):
        raise ConfigError(f"An SAE is named twice: {', '.join(entry.id for entry in entries)}.")
    models = {entry.model for entry in entries}
    if len(models) > 1:
        raise ConfigError(
            f"SAEs of different language models cannot share a pass: {', '.join(map(str, sorted(map(str, models))))}.",
            hint="Analyse them one after the other.",
        )
    return entries
