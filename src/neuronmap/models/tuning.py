"""Measure what runs a language model fastest on this machine: threads, tokens per forward pass, attention, precision.

``neuronmap doctor --tune`` calls :func:`tune`. One setting is varied at a time, in the order of ``_Bench.candidates``, against the
best so far; the two take turns, and each turn is compared by itself, so that other work on the machine hits both. A change
counts when the median is at least 3 % better, in two measurements, and in the end together with all others that count. The model
runs as a harvest runs it: up to a block in its first third, no logits, no key-value cache.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from neuronmap.models.capturing import capture
from neuronmap.models.hooks import HookPoint, resolve_hook
from neuronmap.models.language_model import LanguageModel, wrap_model
from neuronmap.models.tuned import DEFAULT_BATCH_TOKENS, Tuned, machine_name, today, usable_cores
from neuronmap.progress import Progress

__all__ = ["Trial", "tune"]

WORTH = 1.03
"""A setting has to be this much faster than the best so far, or it is noise."""
ROUNDS = 5
NOT_TOGETHER = "faster alone, but all that was chosen together was not"
LONGEST_S = 4.0
"""A setting that is clearly slower is given up after this time."""
CONTEXT = 128
BATCHES = (1024, 2048, 4096, 8192)


@dataclass(frozen=True)
class Trial:
    """One setting that was tried.

    Attributes:
        setting: ``threads``, ``batch_tokens``, ``attention`` or ``dtype``.
        value: what it was set to.
        tokens_per_second: median.
        ratio: to the best settings before it, measured in turn with them.
        chosen: whether it became part of the best.
        note: why it was not tried or not chosen, or empty.
    """

    setting: str
    value: str
    tokens_per_second: float
    ratio: float
    chosen: bool
    note: str = ""


@dataclass(frozen=True)
class _Settings:
    threads: int
    batch_tokens: int
    attention: str
    dtype: str


def tune(model: LanguageModel, progress: Progress) -> tuple[Tuned, list[Trial]]:
    """Find the fastest settings; nothing is written, and the model and torch's threads are left as they were.

    Args:
        model: the model to measure with, in float32 and as it runs without measured settings.
        progress: where the bar goes.

    Returns:
        The settings, for ``Tuned.save``, and every trial.

    Raises:
        KeyboardInterrupt: on Ctrl-C; nothing was changed.
    """
    bench = _Bench(model)
    with bench.restored():
        first = bench.usual
        best, trials = first, []
        candidates = list(bench.candidates())
        with progress.task("Measuring settings", len(candidates), "settings") as bar:
            for setting, value in candidates:
                changed = _Settings(**{**best.__dict__, setting: value})
                trial = bench.compare(best, changed, setting, str(value))
                trials.append(trial)
                best = changed if trial.chosen else best
                bar.advance(
                    1, best=f"{best.threads} threads, {best.batch_tokens} tokens, {best.attention}, {best.dtype}"
                )
        start, end, gain = bench.in_turn(first, best)
        if best == first or gain < WORTH:  # single gains that do not add up are noise too
            best, end, gain = first, start, 1.0
            trials = [replace(trial, chosen=False, note=trial.note or NOT_TOGETHER) for trial in trials]
        rounding = 0.0 if best.dtype == first.dtype else bench.rounding(best.dtype)
    tuned = Tuned(
        machine=machine_name(model.device),
        model=model.identity.name,
        measured=today(),
        default_threads=first.threads,
        threads=best.threads,
        batch_tokens=best.batch_tokens,
        attention="eager" if best.attention == "eager" != first.attention else "sdpa",
        dtype=best.dtype,
        tokens_per_second=round(end, 1),
        speedup=round(gain, 3),
        rounding=rounding,
    )
    return tuned, trials


class _Bench:
    """Runs the model under given settings and times it."""

    def __init__(self, model: LanguageModel) -> None:
        self._model = model
        self._by_dtype = {str(model.dtype).removeprefix("torch."): model}
        self.usual = _Settings(
            torch.get_num_threads(), DEFAULT_BATCH_TOKENS, model.attention, str(model.dtype).removeprefix("torch.")
        )
        self._context = min(CONTEXT, model.max_length or CONTEXT)
        vocabulary = model.module.get_input_embeddings().num_embeddings
        generator = torch.Generator().manual_seed(0)
        self._ids_BT = torch.randint(vocabulary, (max(BATCHES) // self._context, self._context), generator=generator)

    def candidates(self) -> Iterator[tuple[str, int | str]]:
        """What to try beside the usual settings."""
        usual = self.usual
        if self._model.device.type == "cpu":
            # torch takes the physical cores; also all that the system counts, and halves downwards
            threads = {usual.threads // 2**power for power in (1, 2, 3)} | {usable_cores()}
            yield from (("threads", count) for count in sorted(threads - {0, usual.threads}, reverse=True))
        yield from (("batch_tokens", tokens) for tokens in BATCHES if tokens != usual.batch_tokens)
        if usual.attention == "sdpa":
            yield "attention", "eager"
        if usual.dtype != "bfloat16":
            yield "dtype", "bfloat16"

    def compare(self, best: _Settings, changed: _Settings, setting: str, value: str) -> Trial:
        """Time two settings in turn."""
        try:
            _, new, ratio = self.in_turn(best, changed)
            if ratio >= WORTH:  # twice, or it was chance
                ratio = min(ratio, self.in_turn(best, changed)[2])
        except (RuntimeError, ValueError, ImportError, MemoryError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0][:80]
            return Trial(setting, value, 0.0, 0.0, False, f"does not run here: {reason}")
        note = "" if ratio >= WORTH else "slower" if ratio < 1 / WORTH else f"within {WORTH - 1:.0%}: no difference"
        return Trial(setting, value, round(new, 1), round(ratio, 3), ratio >= WORTH, note)

    def in_turn(self, one: _Settings, other: _Settings) -> tuple[float, float, float]:
        """Median tokens per second of two settings that take turns, and the median over turns of the second over the first."""
        runs = [self._runner(settings) for settings in (one, other)]
        for run in runs:
            run()  # pages, caches, kernels
        rates: tuple[list[float], list[float]] = ([], [])
        spent = [0.0, 0.0]
        for _ in range(ROUNDS):
            for index, run in enumerate(runs):
                if spent[index] < LONGEST_S:
                    rates[index].append(run())
                    spent[index] += 1e-9 + self._last_s
        ratio = statistics.median(new / old for old, new in zip(*rates, strict=False))  # a slow one has fewer turns
        return statistics.median(rates[0]), statistics.median(rates[1]), ratio

    def rounding(self, dtype: str) -> float:
        """Median over tokens of |x - x32|^2 / |x32|^2 at the hook."""
        ids_BT = self._ids_BT[:4]
        exact = self._activations(self._by_dtype[self.usual.dtype], ids_BT).double().flatten(0, 1)
        rounded = self._activations(self._in(dtype), ids_BT).double().flatten(0, 1)
        share_N = (rounded - exact).square().sum(dim=1) / exact.square().sum(dim=1).clamp_min(1e-30)
        return float(share_N.median())

    def _runner(self, settings: _Settings) -> Callable[[], float]:
        model = self._in(settings.dtype)
        ids_BT = self._ids_BT[: max(1, settings.batch_tokens // self._context)]

        def run() -> float:
            torch.set_num_threads(settings.threads)
            if model.attention != settings.attention:
                model.module.set_attn_implementation(settings.attention)
            started = time.perf_counter()
            self._activations(model, ids_BT)
            if model.device.type == "cuda":
                torch.cuda.synchronize(model.device)
            self._last_s = time.perf_counter() - started
            return ids_BT.numel() / self._last_s

        return run

    _last_s = 0.0

    def _activations(self, model: LanguageModel, ids_BT: Tensor) -> Tensor:
        hook = _hook(model)
        return capture(model, ids_BT, [hook])[hook.name]

    def _in(self, dtype: str) -> LanguageModel:
        """The model in a precision; a copy, made once."""
        if dtype not in self._by_dtype:
            module = copy.deepcopy(self._model.module).to(getattr(torch, dtype))
            self._by_dtype[dtype] = wrap_model(module, name=self._model.identity.name)
        return self._by_dtype[dtype]

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Put threads and attention back afterwards, whatever happens."""
        try:
            yield
        finally:
            torch.set_num_threads(self.usual.threads)
            if self._model.attention != self.usual.attention:
                self._model.module.set_attn_implementation(self.usual.attention)


def _hook(model: LanguageModel) -> HookPoint:
    return resolve_hook(model, max(0, model.num_layers // 3 - 1))
