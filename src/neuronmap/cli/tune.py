"""``neuronmap doctor --tune``: measure what runs a language model fastest here, and keep it.

Also what plain ``neuronmap doctor`` says of settings that were measured before.
"""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from neuronmap.cli.output import Output, table
from neuronmap.errors import DamagedError, Interrupted

if TYPE_CHECKING:
    from neuronmap.models.tuned import Tuned
    from neuronmap.models.tuning import Trial

__all__ = ["measured_settings", "tune"]

_NOT_MEASURED = "not measured: neuronmap doctor --tune"


def tune(model: str | None, output: Output) -> None:
    """Measure with a model (the first sample if None), write the settings, show every trial and what changed.

    Raises:
        ModelNotFoundError: if there is no such model, or no sample model is installed.
        UnwritablePathError: before anything is measured, if the settings could not be kept.
        Interrupted: on Ctrl-C; the settings are as they were.
    """
    from neuronmap import paths
    from neuronmap.models import list_samples, load_model
    from neuronmap.models.tuned import tuned_path
    from neuronmap.models.tuning import tune as measure

    progress = output.progress()
    name = list_samples()[0].name if model is None else model
    paths.require_writable(paths.home())
    try:
        loaded = load_model(name, dtype="float32", measured_settings=False, progress=progress)
        before = _before(loaded.device)
        tuned, trials = measure(loaded, progress)
        tuned.save(loaded.device)
    except KeyboardInterrupt:
        raise Interrupted(
            "Stopped by Ctrl-C; the settings are as they were.", hint="Measure again: neuronmap doctor --tune"
        ) from None
    changes = _changes(before, tuned)
    output.show(
        f"Measured with {tuned.model}, {loaded.device}: {tuned.machine}",
        "",
        _trials_table(trials),
        "",
        f"In use from now on: {_in_words(tuned)}.",
        f"{tuned.tokens_per_second:,.0f} tokens/s, {tuned.speedup:.2f} times as fast as without them{_rounding(tuned)}.",
        *([f"Changed: {', '.join(changes)}."] if changes else ["Nothing changed."]),
        *_left_alone(),
        f"Kept in {tuned_path()}; delete the file to go back.",
    )
    output.document(
        {
            "schema": "neuronmap/doctor.tune/1",
            "device": loaded.device.type,
            "settings": asdict(tuned),
            "trials": [asdict(trial) for trial in trials],
            "changes": changes,
            "file": str(tuned_path()),
        }
    )


def measured_settings() -> tuple[dict[str, Any], str | None]:
    """The settings for models on this machine's usual device, as ``doctor`` shows them, and what is wrong with the file.

    Returns:
        ``device``, ``state``, ``settings`` (or None) and ``file``; and a problem, or None.
    """
    from neuronmap.models.placement import choose_device
    from neuronmap.models.tuned import tuned_for, tuned_path

    device, _ = choose_device("auto")
    state, settings, problem = _NOT_MEASURED, None, None
    try:
        here, any_machine = tuned_for(device), tuned_for(device, elsewhere=True)
    except DamagedError as error:
        state, problem = "cannot be read", f"{error.message} {error.hint}"
    else:
        if here is not None:
            state, settings = f"measured on {here.measured} with {here.model}: {_in_words(here)}", asdict(here)
        elif any_machine is not None:
            state = f"measured on another machine or torch ({any_machine.machine}): ignored. Measure again: neuronmap doctor --tune"
    return {"device": device.type, "state": state, "settings": settings, "file": str(tuned_path())}, problem


def _before(device: Any) -> Tuned | None:
    """The settings until now; a damaged file is about to be replaced and counts as none."""
    from neuronmap.models.tuned import tuned_for

    try:
        return tuned_for(device)
    except DamagedError:
        return None


def _in_words(tuned: Tuned) -> str:
    threads = f"{tuned.threads} CPU thread{'s' if tuned.threads != 1 else ''}"
    return f"{threads}, {tuned.batch_tokens:,} tokens a pass, {tuned.attention} attention, {tuned.dtype}"


def _rounding(tuned: Tuned) -> str:
    if not tuned.rounding:
        return ""
    return f"; {tuned.dtype} changes an activation by {tuned.rounding:.1e} of its energy (median), and stores of float32 are not reused"


def _changes(before: Tuned | None, now: Tuned) -> list[str]:
    """``threads 2 -> 1`` for each setting that is another than before."""
    from neuronmap.models.tuned import DEFAULT_BATCH_TOKENS

    usual = {
        "threads": now.default_threads,
        "batch_tokens": DEFAULT_BATCH_TOKENS,
        "attention": "sdpa",
        "dtype": "float32",
    }
    was = usual if before is None else asdict(before)
    return [f"{name} {was[name]} -> {getattr(now, name)}" for name in usual if was[name] != getattr(now, name)]


def _left_alone() -> list[str]:
    """What the user has set, which goes before anything measured."""
    from neuronmap.models.tuned import THREAD_VARIABLES

    names = [name for name in THREAD_VARIABLES if os.environ.get(name)]
    return [f"{names[0]} is set, so the number of threads is left to it as long as it is."] if names else []


def _trials_table(trials: list[Trial]) -> Any:
    rows = [
        [
            trial.setting,
            trial.value,
            f"{trial.tokens_per_second:,.0f}" if trial.tokens_per_second else "",
            f"{trial.ratio:.2f}" if trial.ratio else "",
            "chosen" if trial.chosen else trial.note,
        ]
        for trial in trials
    ]
    return table(
        "What was tried", ["setting", "value", "tokens/s", "ratio", "result"], rows, right=["tokens/s", "ratio"]
    )
