"""``evaluate_suites``: several suites on one SAE, each with the baselines, each kept as soon as it is finished.

Order of the work: rows to fit baselines on -> each suite, with baselines for the SAE's L0 on the rows that it measures. A suite whose
stored record has the same key is not measured again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version

import torch
from torch import Tensor

from neuronmap import progress as progress_module
from neuronmap.activations import MaskConfig
from neuronmap.activations.extract import calibrate
from neuronmap.concepts import Concept
from neuronmap.corpora import TokenSet
from neuronmap.errors import ConfigError, InputError
from neuronmap.evaluation.rows import Autoencoder
from neuronmap.evaluation.suites.absorption import absorption_suite
from neuronmap.evaluation.suites.baselines import Dictionary, make_baselines
from neuronmap.evaluation.suites.coding import RowCapture, device_of, dtype_of, encoded, pieces, tensors_digest
from neuronmap.evaluation.suites.core_parts import FIT_TITLE, CoreParts
from neuronmap.evaluation.suites.probe_data import probe_files_digest, sae_probe_sets
from neuronmap.evaluation.suites.probing import concept_sets, probing_suite
from neuronmap.evaluation.suites.record import (
    BASELINES,
    RULE,
    AnySuite,
    SuiteName,
    SuiteProtocol,
    SuiteRecord,
    SuiteResult,
    stored_note,
)
from neuronmap.evaluation.suites.settings import SuiteSettings, check_suites
from neuronmap.evaluation.suites.stability import stability_suite
from neuronmap.evaluation.suites.structure import structure_suite
from neuronmap.hashing import digest_json
from neuronmap.models import HookPoint, LanguageModel, resolve_hook
from neuronmap.progress import Progress
from neuronmap.saes import SparseAutoencoder
from neuronmap.saes.uses import require_use

__all__ = ["SuiteRun", "evaluate_suites"]


_OF_MODEL: tuple[SuiteName, ...] = ("core", "probing", "absorption")
"""Suites that need the language model."""


def evaluate_suites(
    sae: Autoencoder,
    suites: Sequence[str] = ("core", "probing", "absorption", "structure"),
    *,
    model: LanguageModel | None = None,
    tokens: TokenSet | None = None,
    hook: HookPoint | str | None = None,
    fit_tokens: TokenSet | None = None,
    mask: MaskConfig | None = None,
    outlier_threshold: float | None = None,
    against: tuple[str, Autoencoder] | None = None,
    concepts: Sequence[Concept] | None = None,
    settings: SuiteSettings | None = None,
    stored: Callable[[SuiteName, str], SuiteRecord | None] | None = None,
    keep: Callable[[SuiteRecord], None] | None = None,
    progress: Progress | None = None,
) -> SuiteResult:
    """Measure an SAE by several suites, with the identity, PCA, random directions and neurons beside it.

    Args:
        sae: the SAE, for raw activations.
        suites: which ones. ``structure`` and ``stability`` need no language model.
        model, tokens, hook: the language model, held-out text tokenised for it, and where the SAE reads.
        fit_tokens: text to fit the baselines on, such as the training text; left out, the first half of ``tokens``, and the second
            half is what is scored.
        mask, outlier_threshold: as for :func:`neuronmap.evaluation.evaluate_sae`.
        against: name of a second SAE, and the SAE, for ``stability``.
        concepts: what to probe for; all that go by a name when left out.
        settings: how thorough.
        stored: a finished record of a suite by its key, if there is one; it is then not measured again.
        keep: called with each record as soon as it is finished.
        progress: where notes and bars go.

    Returns:
        One record a suite.

    Raises:
        ConfigError: for suites and arguments that do not go together.
        MismatchError: if the SAE cannot be measured in this way, or does not fit the model.
        InputError, EmptyCorpusError: if there is too little text, or numbers are not finite.

    Example:
        >>> result = evaluate_suites(sae, ("structure",))                                            # doctest: +SKIP
        >>> result.suites["structure"].result.meta_explained                                         # doctest: +SKIP
        {'sae': 0.52, 'random': 0.38, 'matched': 0.44}
    """
    names = check_suites(suites, against=against is not None)
    run = SuiteRun(
        sae, model, tokens, hook, fit_tokens, mask, against, settings or SuiteSettings(),
        progress or progress_module.default(), concepts, outlier_threshold,
    )  # fmt: skip
    run.check(names)
    return run.measured(names, stored, keep)


@dataclass
class SuiteRun:
    """What was given (as for :func:`evaluate_suites`), and what several suites share, made when it is first needed."""

    sae: Autoencoder
    model: LanguageModel | None
    tokens: TokenSet | None
    given_hook: HookPoint | str | None
    fit_tokens: TokenSet | None
    mask: MaskConfig | None
    against: tuple[str, Autoencoder] | None
    settings: SuiteSettings
    progress: Progress
    concepts: Sequence[Concept] | None = None
    threshold: float | None = None
    """As given; where nothing was, found from the text when it is first needed."""
    given_threshold: float | None = field(default=None, init=False)
    fitted_on: str = field(default="the training text", init=False)
    beside: dict[str, Dictionary] = field(default_factory=dict, init=False)
    """Baselines of the suite that was measured last; empty where it has none."""
    l0_measured: float | None = field(default=None, init=False)
    """The L0 that they are for."""

    def __post_init__(self) -> None:
        self.given_threshold = self.threshold

    def check(self, names: Sequence[SuiteName]) -> None:
        """Refuse early what would fail late, and split the text where there is only one."""
        if isinstance(self.sae, SparseAutoencoder):
            require_use(self.sae, "reconstruction", "Evaluation by suites")
        if not isinstance(getattr(self.sae, "W_dec", None), Tensor):
            raise ConfigError("Suites look at decoder directions, and this SAE has no W_dec.")
        parts = {"model": self.model, "tokens": self.tokens, "hook": self.given_hook}
        missing = [name for name, value in parts.items() if value is None]
        if missing and (len(missing) < len(parts) or any(name in _OF_MODEL for name in names)):
            raise ConfigError(
                f"{', '.join(missing)} missing: {', '.join(names)} needs model=, tokens= and hook= together."
            )
        if self.tokens is not None and self.fit_tokens is None:
            if self.tokens.num_contexts < 2:
                raise InputError(
                    "One context of text cannot be split into what baselines are fitted on and what is scored."
                )
            half = self.tokens.num_contexts // 2
            self.fit_tokens = self.tokens.subset(0, half)
            self.tokens = self.tokens.subset(half, self.tokens.num_contexts)
            self.fitted_on = "the first half of the given text; the second half is scored"

    @cached_property
    def hook(self) -> HookPoint | None:
        if self.model is None or self.given_hook is None:
            return None
        return (
            resolve_hook(self.model, component=self.given_hook) if isinstance(self.given_hook, str) else self.given_hook
        )

    @cached_property
    def sae_digest(self) -> str:
        return tensors_digest(self.sae)

    @cached_property
    def against_digest(self) -> str | None:
        return tensors_digest(self.against[1]) if self.against is not None else None

    def key(self, suite: SuiteName) -> str:
        """Digest of all that decides a suite's result."""
        names = [concept.to_dict() for concept in self.concepts] if self.concepts is not None else None
        probes = (self.settings.probe_data, self.settings.probe_sets)
        return digest_json({
            "rule": RULE,
            "suite": suite,
            "sae": self.sae_digest,
            "model": self.model.identity.model_digest if self.model is not None else None,
            "tokenizer": self.model.identity.tokenizer_digest if self.model is not None else None,
            "dtype": self.model.identity.dtype if self.model is not None else None,
            "hook": self.hook.name if self.hook is not None else None,
            "mask": (self.mask or MaskConfig()).to_dict(),
            "tokens": self.tokens.digest if self.tokens is not None else None,
            "fit_tokens": self.fit_tokens.digest if self.fit_tokens is not None else None,
            "outlier_threshold": self.given_threshold,
            "against": self.against_digest if suite == "stability" else None,
            "concepts": names if suite == "probing" else None,
            "probe_files": probe_files_digest(*probes) if suite == "probing" and probes[1] else None,
            "settings": self.settings.of(suite),
            "neuronmap": version("neuronmap"),
        })  # fmt: skip

    @cached_property
    def rows(self) -> Tensor:
        """Training rows: for the baselines, and which features fire."""
        return self.fit_capture.all(FIT_TITLE, self.progress)

    @property
    def fit_capture(self) -> RowCapture:
        """What gives these rows."""
        if self.fit_tokens is None:
            raise ConfigError("fit_tokens= is needed.")
        return self.capture(self.fit_tokens, self.settings.fit_rows)

    def capture(self, tokens: TokenSet, most: int) -> RowCapture:
        """What gives rows of a text."""
        model, hook = self.with_model()
        return RowCapture(
            model, tokens, hook, self.mask or MaskConfig(), self.calibrated(), most, self.settings.batch_tokens
        )

    def calibrated(self) -> float | None:
        """The norm above which a position is an outlier: as given, else found on the training text."""
        model, hook = self.with_model()
        mask = self.mask or MaskConfig()
        if self.threshold is None and mask.outlier_factor is not None and self.fit_tokens is not None:
            self.threshold = calibrate(model, self.fit_tokens, [hook], mask, self.progress)[hook.name].outlier_threshold
        return self.threshold

    def take(self, rows_ND: Tensor, threshold: float | None) -> None:
        """Have training rows and the norm of outliers that were found elsewhere."""
        self.threshold, self.rows = threshold, rows_ND

    @cached_property
    def fired(self) -> Tensor:
        """On how many of those rows each feature fires."""
        count_F = torch.zeros(self.sae.d_sae, dtype=torch.int64)
        for part_nD in pieces(self.rows, 1024):
            count_F += (encoded(self.sae, part_nD) != 0).sum(0)
        return count_F

    @property
    def l0(self) -> float:
        return int(self.fired.sum()) / len(self.rows)

    @cached_property
    def fit_rows(self) -> Tensor:
        return self.rows.to(device=device_of(self.sae), dtype=dtype_of(self.sae))

    def baselines(self, l0: float) -> dict[str, Dictionary]:
        """Those that keep as many entries as the SAE has on the rows that are measured."""
        if self.l0_measured is None or round(l0) != round(self.l0_measured):
            self.beside = make_baselines(self.fit_rows, self.sae.d_sae, l0, self.settings.seed)
        self.l0_measured = l0
        return self.beside

    def measured(
        self,
        names: Sequence[SuiteName],
        stored: Callable[[SuiteName, str], SuiteRecord | None] | None = None,
        keep: Callable[[SuiteRecord], None] | None = None,
    ) -> SuiteResult:
        """Run suites one after the other; ``stored`` and ``keep`` as for :func:`evaluate_suites`."""
        found: dict[str, SuiteRecord] = {}
        for name in names:
            key = self.key(name)
            record = stored(name, key) if stored is not None else None
            if record is not None:
                self.progress.note(stored_note(record))
            else:
                record = self.measure(name, key)
                if keep is not None:
                    keep(record)
            found[name] = record
        return SuiteResult(suites=found)

    def measure(self, suite: SuiteName, key: str) -> SuiteRecord:
        """Run one suite."""
        measures: Mapping[SuiteName, Callable[[], AnySuite]] = {
            "core": CoreParts(self).alone,
            "probing": self._probing,
            "absorption": self._absorption,
            "structure": self._structure,
            "stability": self._stability,
        }
        self.beside, self.l0_measured = {}, None
        return self.record(key, measures[suite]())

    def record(self, key: str, result: AnySuite) -> SuiteRecord:
        """What is kept of the suite that was measured last."""
        return SuiteRecord(
            key=key,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            protocol=self._protocol(),
            baselines={name: self.beside[name].facts for name in BASELINES if name in self.beside},
            result=result,
        )

    def _probing(self) -> AnySuite:
        model, hook = self.with_model()
        settings = self.settings
        sets, skipped = concept_sets(settings.items, settings.seed, self.concepts)
        if settings.probe_sets:
            more, unfit = sae_probe_sets(
                settings.probe_data, settings.probe_sets, items=settings.items, seed=settings.seed
            )
            sets, skipped = [*sets, *more], {**skipped, **unfit}
        return probing_suite(
            self.sae, self.baselines, sets, skipped, model=model, hook=hook, ks=settings.ks, bootstrap=settings.bootstrap,
            seed=settings.seed, progress=self.progress,
        )  # fmt: skip

    def _absorption(self) -> AnySuite:
        model, hook = self.with_model()
        settings = self.settings
        return absorption_suite(
            self.sae, self.baselines, model=model, hook=hook, per_letter=settings.words_per_letter,
            batch_tokens=settings.batch_tokens, bootstrap=settings.bootstrap, seed=settings.seed, progress=self.progress,
        )  # fmt: skip

    def _structure(self) -> AnySuite:
        with_model = self.model is not None
        return structure_suite(
            self.sae,
            fired_F=self.fired if with_model else None,
            tokens=len(self.rows) if with_model else 0,
            meta_steps=self.settings.meta_steps,
            seed=self.settings.seed,
            progress=self.progress,
        )

    def _stability(self) -> AnySuite:
        if self.against is None:
            raise ConfigError("against= is needed.")
        alive_F = self.fired > 0 if self.model is not None else None
        name, other = self.against
        return stability_suite(
            self.sae, other, name=name, digest=self.against_digest or "", alive_F=alive_F, seed=self.settings.seed,
            progress=self.progress,
        )  # fmt: skip

    def with_model(self) -> tuple[LanguageModel, HookPoint]:
        """The language model and the hook, for a suite that needs them."""
        if self.model is None or self.hook is None:
            raise ConfigError("model= and hook= are needed for this suite.")
        return self.model, self.hook

    def _protocol(self) -> SuiteProtocol:
        with_model = self.model is not None
        return SuiteProtocol(
            architecture=getattr(self.sae, "architecture", type(self.sae).__name__),
            d_in=self.sae.d_in,
            d_sae=self.sae.d_sae,
            sae_digest=self.sae_digest,
            model=self.model.identity.name if self.model is not None else None,
            hook=self.hook.name if self.hook is not None else None,
            model_dtype=self.model.identity.dtype if self.model is not None else None,
            mask=(self.mask or MaskConfig()).to_dict() if with_model else None,
            outlier_threshold=self.threshold if with_model else None,
            tokens_digest=self.tokens.digest if self.tokens is not None else None,
            fitted_on=self.fitted_on if with_model else None,
            fitted_rows=len(self.rows) if with_model else 0,
            l0=self.l0 if with_model else None,
            l0_measured=self.l0_measured,
            seed=self.settings.seed,
            resamples=self.settings.bootstrap,
            versions={name: version(name) for name in ("neuronmap", "torch", "transformers", "scikit-learn")},
        )
