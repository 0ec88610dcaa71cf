"""What a worker on another host is sent to do a part of an analysis, and how it gets ready.

SAEs and tokens travel with the work. Activations and language models do not: a worker opens them under the names that the driver uses, and
what it finds must be the driver's, digest for digest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from neuronmap.engines import Pool, cut
from neuronmap.errors import InputError, MismatchError
from neuronmap.progress import Progress

if TYPE_CHECKING:
    from neuronmap.activations import ActivationStore, MaskConfig
    from neuronmap.corpora import TokenSet
    from neuronmap.features.collect.analyze import Spread, States
    from neuronmap.features.collect.rows import AnalysisRows, Measured, ModelRows, StoredRows
    from neuronmap.features.config import AnalysisConfig
    from neuronmap.hub.opening import ModelSettings
    from neuronmap.models import LanguageModel
    from neuronmap.saes import SparseAutoencoder

__all__ = ["AnalysisWork", "SentModel", "SentModelRows", "SentStoredRows", "spread_over"]

SHARDS_A_WORKER = 4
"""Enough that a lost or slow worker costs a quarter of a share; few enough that merging states costs little beside making them."""


@dataclass(frozen=True)
class SentModel:
    """A language model by name, to be the same one elsewhere.

    Attributes:
        name, revision: what it is loaded by.
        dtype: what the driver's computes in.
        device: as the user named it.
        digest: of its weights.
        attention: how the driver's attends.
    """

    name: str
    revision: str | None
    dtype: str
    device: str
    digest: str
    attention: str

    @classmethod
    def of(cls, model: LanguageModel, settings: ModelSettings) -> Self:
        """What to send of a loaded model."""
        dtype = str(model.dtype).removeprefix("torch.")
        digest, device = model.identity.model_digest, settings.device.partition(":")[0]
        return cls(settings.name, settings.revision, dtype, device, digest, model.attention)

    def open(self, progress: Progress) -> LanguageModel:
        """Load it.

        Raises:
            ModelError: it is not there.
            MismatchError: there is another under its name.
        """
        from neuronmap.models import load_model

        model = load_model(
            self.name,
            revision=self.revision,
            dtype=self.dtype,
            device=self.device,
            measured_settings=False,
            progress=progress,
        )
        if model.identity.model_digest != self.digest:
            raise MismatchError(
                f"The model {self.name} is another one here: digest {model.identity.model_digest}, not {self.digest}.",
                hint="Every host of the cluster needs the same files.",
            )
        if model.attention != self.attention:
            model.module.set_attn_implementation(self.attention)
        return model


@dataclass(frozen=True, eq=False)
class SentStoredRows:
    """Stored activations, by their folder, their bucket, or both.

    Attributes:
        path: the store's folder, for hosts that see it; None where the driver reads a bucket itself.
        name: of that folder, as a bucket has it.
        digest: of its manifest, and so of every byte of it.
        bucket: URL; None without one.
    """

    path: Path | None
    name: str
    digest: str
    bucket: str | None

    @classmethod
    def of(cls, store: ActivationStore, name: str, bucket: str | None) -> Self:
        """What to send of an open store."""
        from neuronmap.activations.remote import RemoteActivationStore

        path = None if isinstance(store, RemoteActivationStore) else store.path
        return cls(path, name, str(store.manifest["manifest_digest"]), bucket)

    def open(self, tokens: TokenSet, progress: Progress) -> StoredRows:
        """Open it: in its folder, else through its bucket.

        Raises:
            InputError: this host does not see it, and there is no bucket.
            MismatchError: there is another one.
            DamagedError: it is damaged.
        """
        from neuronmap.activations.remote import RemoteActivationStore
        from neuronmap.activations.verified import open_verified
        from neuronmap.features.collect.rows import StoredRows
        from neuronmap.objects import RemoteFolders

        store: ActivationStore | None = None
        if self.path is not None and (self.path / "manifest.json").is_file():
            store = open_verified(self.path, progress)
        if self.bucket is not None and (store is None or not self._is(store)):
            store = RemoteActivationStore.find(RemoteFolders(self.bucket), self.name)
        if store is None:
            raise InputError(
                f"The activation store {self.path or self.name} is not to be seen.",
                hint="Put NEURONMAP_HOME on a disk that all hosts share, or name a bucket: --store s3://...",
            )
        if not self._is(store):
            raise MismatchError(f"The activation store {store} is another one than on the host that asks.")
        return StoredRows(store, tokens)

    def _is(self, store: ActivationStore) -> bool:
        return bool(store.manifest["manifest_digest"] == self.digest)


@dataclass(frozen=True, eq=False)
class SentModelRows:
    """Rows that a language model is to give, with what was measured beforehand.

    Attributes:
        model: which.
        hooks: names of its hook points.
        mask: positions that are no rows.
        measured: what the driver's model said of the first contexts.
    """

    model: SentModel
    hooks: tuple[str, ...]
    mask: MaskConfig
    measured: Measured

    @classmethod
    def of(cls, rows: ModelRows, model: SentModel) -> Self:
        """What to send of rows from a loaded model."""
        return cls(model, rows.hooks, rows.mask, rows.measured)

    def open(self, tokens: TokenSet, progress: Progress) -> ModelRows:
        """Load the model."""
        from neuronmap.features.collect.rows import ModelRows
        from neuronmap.models import resolve_hook

        model = self.model.open(progress)
        hooks = [resolve_hook(model, component=name) for name in self.hooks]
        return ModelRows(model, tokens, hooks, mask=self.mask, progress=progress, measured=self.measured)


@dataclass(frozen=True, eq=False)
class AnalysisWork:
    """One feature pass, for workers.

    Attributes:
        saes: on the CPU.
        hook_of, identities, config: as for :func:`~neuronmap.features.collect.analyze.run_pass`.
        tokens: all contexts.
        rows: where their activations come from.
        device: where the SAEs go: ``cpu``, ``cuda``, ``mps`` or ``auto``.
    """

    saes: dict[str, SparseAutoencoder]
    hook_of: dict[str, str]
    identities: dict[str, str]
    config: AnalysisConfig
    tokens: TokenSet
    rows: SentStoredRows | SentModelRows
    device: str

    def open(self, progress: Progress) -> _AnalysisWorker:
        """Open rows, and put the SAEs where they run."""
        from neuronmap.models.placement import choose_device

        device, _ = choose_device(self.device)
        saes = {name: sae.to(device) for name, sae in self.saes.items()}
        return _AnalysisWorker(self, saes, self.rows.open(self.tokens, progress))


@dataclass(eq=False)
class _AnalysisWorker:
    work: AnalysisWork
    saes: dict[str, SparseAutoencoder]
    rows: AnalysisRows
    sampled: dict[str, int | None] = field(default_factory=dict)

    def run(self, shard: Any, progress: Progress) -> States:
        """The states of some blocks."""
        from neuronmap.features.collect.analyze import run_blocks

        states = run_blocks(
            self.saes,
            self.rows,
            shard,
            hook_of=self.work.hook_of,
            config=self.work.config,
            identities=self.work.identities,
            sampled=self.sampled,
            progress=progress,
        )
        self.sampled = {name: state.facts["sample_contexts"] for name, state in states.items()}
        return states


def spread_over(pool: Pool, work: AnalysisWork) -> Spread:
    """Blocks of a pass done by a pool's workers."""

    def spread(
        blocks: Sequence[int], advance: Callable[[int, str], None], stopped: Callable[[], bool]
    ) -> Iterator[tuple[Sequence[int], States]]:
        parts = cut(blocks, SHARDS_A_WORKER * pool.workers)
        for number, states in pool.run(work, parts, advance=advance, stopped=stopped):
            yield parts[number], states

    return spread
