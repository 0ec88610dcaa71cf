"""Suites on an SAE of the library: opened as in training, measured, and each record kept beside it as soon as it is finished.

    <bundle>/evaluations/<suite>-<first 12 digits of the key>.json

The key is over the SAE, the language model, the text, the settings and the version, so a record is found again only for equal inputs. The
figures of the newest one also go into ``metrics.json``, by which the library searches and sorts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from neuronmap import progress as progress_module
from neuronmap.engines import EngineSettings, Pool, running
from neuronmap.errors import ConfigError, DamagedError, InputError, Interrupted, MismatchError
from neuronmap.evaluation.suites.record import SUITES, SuiteName, SuiteRecord, SuiteResult
from neuronmap.hashing import short
from neuronmap.hub.entry import LibraryEntry, model_digest
from neuronmap.hub.library import SAEModelHub
from neuronmap.hub.opening import hook_of, language_model_of, tokenized, training_config, training_text
from neuronmap.hub.sent_suites import SentSAE, SuiteWork, suites_elsewhere
from neuronmap.paths import read_json
from neuronmap.progress import Progress
from neuronmap.saes.metadata import CONFIG_FILE, EVALUATIONS_FOLDER, METRICS_FILE

if TYPE_CHECKING:
    from neuronmap.corpora import TokenSet
    from neuronmap.evaluation.suites.run import SuiteRun
    from neuronmap.evaluation.suites.settings import SuiteSettings
    from neuronmap.models import LanguageModel

__all__ = [
    "EVALUATIONS_FOLDER",
    "check_saebench",
    "check_second",
    "evaluate_suites_entry",
    "list_evaluations",
    "open_suites",
    "suite_figures",
    "write_saebench",
]

Fence = Callable[[], None]
Stored = Callable[["SuiteName", str], "SuiteRecord | None"]
"""A finished record of a suite by its key, if there is one."""


def list_evaluations(entry: LibraryEntry | Path) -> list[SuiteRecord]:
    """Records beside an SAE, the newest of each suite; files that are none of ours, or of another version, are left out."""
    folder = (entry.path if isinstance(entry, LibraryEntry) else entry) / EVALUATIONS_FOLDER
    found: dict[str, SuiteRecord] = {}
    for file in sorted(folder.glob("*.json")) if folder.is_dir() else []:
        record = _read(file)
        if record is not None:
            suite = record.result.suite
            if suite not in found or record.created >= found[suite].created:
                found[suite] = record
    return [found[name] for name in SUITES if name in found]


def suite_figures(entry: LibraryEntry) -> dict[str, float]:
    """Figures by name of the newest record of each suite, for ``metrics.json``."""
    figures = SuiteResult(suites={record.result.suite: record for record in list_evaluations(entry)}).summary()
    return {name: value for name, value in figures.items() if value is not None}


def evaluate_suites_entry(
    hub: SAEModelHub,
    entry: LibraryEntry,
    suites: Sequence[str],
    *,
    against: str | None = None,
    text: Any = None,
    model: str | None = None,
    settings: SuiteSettings | None = None,
    device: str | None = None,
    dtype: str | None = None,
    force: bool = False,
    again: bool = False,
    engine: EngineSettings | None = None,
    progress: Progress | None = None,
    fence: Fence | None = None,
) -> SuiteResult:
    """Measure an SAE of the library by suites; see :func:`neuronmap.evaluation.suites.evaluate_suites`.

    Args:
        hub: the library.
        entry: the SAE.
        suites: which ones.
        against: for ``stability``: the second SAE's name in the library.
        text: what to score on; the held-out part of the training text when left out. Baselines are fitted on the training part then, and
            else on the first half of this text.
        model, device, dtype, force: as for :func:`neuronmap.hub.pipeline.evaluate_entry`.
        settings: how thorough.
        again: measure again what is stored.
        engine: where: with Ray, workers do parts of the text of ``core``, and each other suite is measured by one of them.
        progress: where notes and bars go.
        fence: called right before a record is kept; what it raises keeps that from happening.

    Raises:
        ConfigError: suites that do not exist, or do not go with the other arguments.
        NotInLibraryError: there is no second SAE of that name.
        MismatchError, InputError: as for :func:`neuronmap.evaluation.suites.evaluate_suites`.
        Interrupted: after Ctrl-C; finished suites are kept.
    """
    from neuronmap.evaluation.suites.settings import check_suites

    progress = progress or progress_module.default()
    names = check_suites(suites, against=against is not None)
    second = hub.get(against) if against is not None else None
    if second is not None:
        check_second(entry, second, force)
    kept: list[str] = []

    def keep(record: SuiteRecord) -> None:
        if fence is not None:
            fence()
        _keep(entry, record)
        kept.append(record.result.suite)

    asked: dict[str, Any] = {"device": device, "dtype": dtype, "force": force, "again": again}
    if engine is not None and engine.engine != "local":
        work = SuiteWork(
            SentSAE.of(entry),
            SentSAE.of(second) if second is not None else None,
            names,
            {**_absolute(text, model, settings), **asked},
        )
        with _interrupted_by_name(entry, kept):
            result = _measured_elsewhere(work, names, replace(engine, device=device), keep, progress)
    else:
        given = {"text": text, "model": model, "settings": settings}
        run, stored = open_suites(hub, entry, names, second, progress=progress, **given, **asked)
        with _interrupted_by_name(entry, kept):
            result = run.measured(names, stored, keep)
    _summarise(entry, result)
    return result


def check_second(entry: LibraryEntry, second: LibraryEntry, force: bool = False) -> None:
    """Refuse what ``stability`` cannot be asked of, as far as the two SAEs tell where they are from.

    Args:
        entry, second: the SAEs.
        force: go on although they read different activations, or the same ones under two names.

    Raises:
        ConfigError: they are one SAE, or began from the same seed, whose features both still have.
        MismatchError: they read different activations.
    """
    hint = "--against takes an SAE of another seed, trained at the same hook of the same model."
    if second.id == entry.id:
        raise ConfigError(f"'{entry.id}' cannot be compared with itself.", hint=hint)
    models, hooks = (entry.model, second.model), (entry.hook, second.hook)
    digests = (model_digest(entry), model_digest(second))
    for what, names, compared in (("model", models, digests if all(digests) else models), ("hook", hooks, hooks)):
        if not force and all(compared) and compared[0] != compared[1]:
            raise MismatchError(
                f"'{entry.id}' and '{second.id}' are of different activations: {what} {names[0]} and {names[1]}.",
                hint=f"{hint} With --force they are compared all the same.",
            )
    seeds = [one.training.get("seed") if one.training else None for one in (entry, second)]
    if seeds[0] is not None and seeds[0] == seeds[1]:
        raise ConfigError(
            f"'{entry.id}' and '{second.id}' were both trained from seed {seeds[0]}: directions that neither has left since the start "
            "would count as found again.",
            hint=hint,
        )


def open_suites(
    hub: SAEModelHub,
    entry: LibraryEntry,
    names: Sequence[SuiteName],
    second: LibraryEntry | None,
    *,
    text: Any,
    model: str | None,
    settings: SuiteSettings | None,
    device: str | None,
    dtype: str | None,
    force: bool,
    again: bool,
    progress: Progress,
) -> tuple[SuiteRun, Stored | None]:
    """Suites on an SAE of the library, with its language model and text opened, and what finds records of before.

    Args:
        hub, entry, text, model, settings, device, dtype, force, again, progress: as for :func:`evaluate_suites_entry`.
        names: the suites.
        second: what ``stability`` compares with.

    Raises:
        ConfigError, MismatchError, InputError: as for :func:`evaluate_suites_entry`.
    """
    from neuronmap.evaluation.suites.run import SuiteRun
    from neuronmap.evaluation.suites.settings import SuiteSettings

    language_model, parts = _opened(entry, model, device, dtype, text, settings, progress)
    where = str(language_model.device) if language_model is not None else device or "cpu"
    sae = hub.load(entry.id, model=language_model, device=where, force=force, progress=progress)
    against = (second.id, hub.load(second.id, device=where, progress=progress)) if second is not None else None
    run = SuiteRun(sae, against=against, settings=settings or SuiteSettings(), progress=progress, **parts)
    run.check(names)
    return run, None if again else lambda suite, key: _stored(entry, suite, key)


def _opened(
    entry: LibraryEntry,
    model: str | None,
    device: str | None,
    dtype: str | None,
    text: Any,
    settings: SuiteSettings | None,
    progress: Progress,
) -> tuple[LanguageModel | None, dict[str, Any]]:
    """The language model, if the SAE is of one, and what suites are told of it."""
    from neuronmap.activations import MaskConfig

    if entry.model is None and model is None:
        return None, {"model": None, "given_hook": None, "tokens": None, "fit_tokens": None, "mask": None}
    language_model = language_model_of(entry, model=model, device=device, dtype=dtype, progress=progress)
    config = training_config(entry)
    scored, fitted = _texts(entry, language_model, text, settings, progress)
    return language_model, {
        "model": language_model,
        "given_hook": hook_of(entry, language_model),
        "tokens": scored,
        "fit_tokens": fitted,
        "mask": MaskConfig(**config.mask_fields()) if config else None,
    }


def _absolute(text: Any, model: str | None, settings: SuiteSettings | None) -> dict[str, Any]:
    """Text, model and settings with what are paths here made absolute: a worker has another working directory."""
    from neuronmap.corpora.specs import absolute_spec

    if isinstance(text, str | Path):
        text = type(text)(absolute_spec(str(text)))
    if model is not None and Path(model).exists():
        model = str(Path(model).resolve())
    if settings is not None and settings.probe_data is not None:
        settings = replace(settings, probe_data=settings.probe_data.resolve())
    return {"text": text, "model": model, "settings": settings}


def _measured_elsewhere(
    work: SuiteWork,
    names: Sequence[str],
    engine: EngineSettings,
    keep: Callable[[SuiteRecord], None],
    progress: Progress,
) -> SuiteResult:
    """Suites by workers; in the order they were asked for."""
    with running(engine, progress) as pool:
        records = suites_elsewhere(cast("Pool", pool), work, progress, keep)
        found = {record.result.suite: record for record in records}
    return SuiteResult(suites={name: found[cast("SuiteName", name)] for name in names})


@contextmanager
def _interrupted_by_name(entry: LibraryEntry, kept: list[str]) -> Iterator[None]:
    """Say after Ctrl-C what was finished."""
    try:
        yield
    except KeyboardInterrupt:
        done = f"finished and kept: {', '.join(kept)}" if kept else "no suite was finished"
        raise Interrupted(f"Stopped while evaluating '{entry.id}'; {done}.", hint="Run it again to go on.") from None


def check_saebench(suites: Sequence[str], target: Path) -> None:
    """Refuse before anything is measured what :func:`write_saebench` could not write.

    Raises:
        ConfigError: SAEBench has no form for any of these suites, or a file was named for several documents.
    """
    from neuronmap.evaluation.suites.saebench import FORMS

    forms = [FORMS[suite] for suite in dict.fromkeys(suites) if suite in FORMS]
    if not forms and set(suites) <= set(SUITES):
        raise ConfigError(
            f"SAEBench has forms for the suites {', '.join(FORMS)}, and none of them was asked for.",
            hint=f"Leave --saebench {target} out, or add one of them to --suite.",
        )
    if target.suffix == ".json" and len(forms) > 1:
        raise ConfigError(
            f"{target} is one file, and there would be {len(forms)} documents: {', '.join(forms)}.",
            hint="Name a folder.",
        )


def write_saebench(result: SuiteResult, entry: LibraryEntry, target: Path) -> list[Path]:
    """Write the records in SAEBench's form.

    Args:
        result: the records.
        entry: the SAE.
        target: a ``.json`` file, if there is one document; else a folder, where each document is a file named for its evaluation.

    Returns:
        The files.

    Raises:
        ConfigError: SAEBench has no form for any of these suites, or a file was named for several documents.
    """
    from neuronmap.evaluation.suites.saebench import saebench_documents
    from neuronmap.paths import new_folder, write_json

    check_saebench(tuple(result.suites), target)
    documents = saebench_documents(result, entry.id, read_json(entry.path / CONFIG_FILE))
    if not documents:
        raise ConfigError(
            "Absorption cannot be shown of this model, and SAEBench has no form that says so: nothing written."
        )
    if target.suffix == ".json":
        new_folder(target.parent)
        write_json(target, next(iter(documents.values())))
        return [target]
    new_folder(target)
    files = []
    for kind, document in documents.items():
        file = target / f"{entry.id.replace('/', '_')}_{kind}_eval_results.json"
        write_json(file, document)
        files.append(file)
    return files


def _texts(
    entry: LibraryEntry, model: LanguageModel, text: Any, settings: SuiteSettings | None, progress: Progress
) -> tuple[TokenSet, TokenSet | None]:
    """What is scored, and what baselines are fitted on (None: the first half of it)."""
    from neuronmap.evaluation.suites.settings import SuiteSettings
    from neuronmap.training.data import split_tokens

    config, thorough = training_config(entry), settings or SuiteSettings()
    if text is None and config is not None:
        fitted, scored, in_sample = split_tokens(config, training_text(entry), model, progress)
        return scored, None if in_sample else fitted
    if text is None:
        raise InputError(f"{entry.id} was not trained on text that can be opened by name.", hint="Give --text.")
    most = thorough.fit_rows + thorough.max_tokens
    return tokenized(model, text, config=config, most=2 * most, progress=progress), None


def _file(suite: str, key: str) -> str:
    return f"{EVALUATIONS_FOLDER}/{suite}-{short(key)}.json"


def _keep(entry: LibraryEntry, record: SuiteRecord) -> None:
    from neuronmap.saes import attach_file

    attach_file(entry.path, _file(record.result.suite, record.key), record.to_dict())


def _stored(entry: LibraryEntry, suite: SuiteName, key: str) -> SuiteRecord | None:
    record = _read(entry.path / _file(suite, key))
    return record if record is not None and record.key == key and record.result.suite == suite else None


def _read(file: Path) -> SuiteRecord | None:
    """A record; None for a file that is not there, or cannot be read as one."""
    try:
        content = read_json(file)
        return SuiteRecord.from_dict(content) if isinstance(content, dict) else None
    except (OSError, DamagedError, ConfigError):
        return None


def _summarise(entry: LibraryEntry, result: SuiteResult) -> None:
    """Put the figures where the library searches; what is not established is taken out, so that no older figure stands for it."""
    from neuronmap.evaluation.suites.record import CoreSuite
    from neuronmap.saes import attach_file

    file = entry.path / METRICS_FILE
    known = read_json(file) if file.exists() else {}
    summary = {**known.get("summary", {}), **result.summary()}
    found = {**known, "summary": {name: value for name, value in summary.items() if value is not None}}
    core = result.suites.get("core")
    if core is not None and isinstance(core.result, CoreSuite):
        found["core"] = core.result.sae.to_dict()
        found["summary"] |= {name: value for name, value in core.result.sae.summary().items() if value is not None}
    attach_file(entry.path, METRICS_FILE, found)
