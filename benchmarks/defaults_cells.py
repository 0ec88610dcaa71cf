"""What the sweep of defaults tries: one setting at a time away from the defaults, and the data it is tried on.

The base has every default, the rule for the batch included, which gives a run as short as these 512 rows a step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from neuronmap import SAEConfig
from neuronmap.saes import get_architecture
from neuronmap.training.plan import default_learning_rate

CONTEXT = 128
CALLED_DEFAULT = "default"
"""Name of the base run: the defaults."""


@dataclass(frozen=True)
class Field:
    """Data to sweep on.

    Attributes:
        name: of the data and the width.
        features: latents.
        l0: active features.
        figure: what decides, larger is better.
        title: of the figure.
        only: settings swept here; empty for all.
    """

    name: str
    features: int
    l0: int
    figure: str
    title: str
    only: tuple[str, ...] = ()


DEAD = "dead after, share of the run"
FIELDS = (
    Field("smollm2, 1,024 features", 1024, 32, "explained_variance", "EV of held-out rows"),
    Field("synthsae-2k, 512 latents", 512, 8, "f1_latent_mean", "F1 of latents against the truth"),
    Field("smollm2, 4,096 features", 4096, 64, "explained_variance", "EV of held-out rows", ("learning rate", DEAD)),
)


@dataclass(frozen=True)
class Setting:
    """One setting with the values that are tried.

    Attributes:
        name: in words.
        architecture: whose.
        default: the value that ``SAEConfig`` has.
        values: changes by the value's name. ``rate`` multiplies the default learning rate, ``batch_rows`` and ``dead_share`` (of the run)
            are worked out, everything else is a field of ``SAEConfig``. The default has its own, too: a record of runs whose base had
            another is then still read.
    """

    name: str
    architecture: str
    default: str
    values: dict[str, dict[str, Any]] = field(hash=False)


def _options(**changes: Any) -> dict[str, Any]:
    return {"architecture_options": changes}


SETTINGS = (
    Setting(
        "learning rate", "batchtopk", "x1",
        {"x0.25": {"rate": 0.25}, "x0.5": {"rate": 0.5}, "x1": {"rate": 1.0}, "x2": {"rate": 2.0}, "x4": {"rate": 4.0}},
    ),
    Setting(
        "batch, rows", "batchtopk", "512",
        {"512": {"batch_rows": 512}, "1024": {"batch_rows": 1024}, "2048": {"batch_rows": 2048}, "4096": {"batch_rows": 4096}},
    ),
    Setting(
        "AuxK weight", "batchtopk", "1/32",
        {"0": {"aux_coefficient": 0.0}, "1/128": {"aux_coefficient": 1 / 128}, "1/32": {"aux_coefficient": 1 / 32},
         "1/8": {"aux_coefficient": 1 / 8}},
    ),
    Setting("AuxK features", "batchtopk", "d/2", {"32": {"aux_k": 32}, "d/2": {"aux_k": None}, "256": {"aux_k": 256}}),
    Setting(
        DEAD, "batchtopk", "1/40",
        {"1/100": {"dead_share": 1 / 100}, "1/40": {"dead_share": 1 / 40}, "1/10": {"dead_share": 1 / 10}, "1/3": {"dead_share": 1 / 3}},
    ),
    Setting(
        "warm-up", "batchtopk", "5 %",
        {"0": {"warmup_fraction": 0.0}, "5 %": {"warmup_fraction": 0.05}, "20 %": {"warmup_fraction": 0.2}},
    ),
    Setting(
        "decay", "batchtopk", "20 %",
        {"0": {"decay_fraction": 0.0}, "20 %": {"decay_fraction": 0.2}, "50 %": {"decay_fraction": 0.5}},
    ),
    Setting(
        "gradient norm", "batchtopk", "unit",
        {"at most 0.1": {"clip_norm": 0.1}, "at most 1": {"clip_norm": 1.0}, "unit": {"clip_norm": "unit"},
         "as it is": {"clip_norm": None}},
    ),
    Setting("Adam's epsilon", "batchtopk", "1e-10", {"1e-10": {"adam_epsilon": 1e-10}, "1e-8": {"adam_epsilon": 1e-8}}),
    Setting(
        "falling k", "batchtopk", "off",
        {"off": {"k_anneal_fraction": 0.0}, "tenth, from 4 k": {"k_anneal_fraction": 0.1},
         "all, from 2.4 k": {"k_anneal_fraction": 1.0, "k_anneal_factor": 2.4}},
    ),
    Setting(
        "learning rate (jumprelu)", "jumprelu", "x1",
        {"x0.5": {"rate": 0.5}, "x1": {"rate": 1.0}, "x2": {"rate": 2.0}},
    ),
    Setting(
        "sparsity warm-up (jumprelu)", "jumprelu", "30 %",
        {"10 %": {"sparsity_warmup_fraction": 0.1}, "30 %": {"sparsity_warmup_fraction": 0.3}, "50 %": {"sparsity_warmup_fraction": 0.5}},
    ),
    Setting(
        "first target (jumprelu)", "jumprelu", "4 targets",
        {"1 target": _options(target_anneal_factor=1.0), "4 targets": _options(target_anneal_factor=4.0),
         "8 targets": _options(target_anneal_factor=8.0)},
    ),
    Setting(
        "target weight (jumprelu)", "jumprelu", "5",
        {"1": _options(target_weight=1.0), "5": _options(target_weight=5.0), "20": _options(target_weight=20.0)},
    ),
    Setting(
        "dead penalty (jumprelu)", "jumprelu", "0.0001",
        {"0": _options(dead_penalty=0.0), "0.0001": _options(dead_penalty=0.0001), "0.01": _options(dead_penalty=0.01)},
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Trial:
    """One run of the sweep.

    Attributes:
        field: where.
        architecture: what is trained.
        setting: name of the setting that is changed; ``default`` for the base.
        value: its value's name.
        changes: see :class:`Setting`.
        seed: of the run.
    """

    field: Field
    architecture: str
    setting: str
    value: str
    changes: dict[str, Any] = field(hash=False)
    seed: int = 0

    @property
    def label(self) -> str:
        what = "defaults" if not self.changes else f"{self.setting} {self.value}"
        return f"{self.field.name}, {self.architecture}: {what}, seed {self.seed}"

    def key(self) -> dict[str, Any]:
        """What identifies the trial among others, as plain JSON types."""
        return {"field": self.field.name, "architecture": self.architecture, "changes": self.changes, "seed": self.seed}


def trials(fields: Sequence[Field], seeds: Sequence[int], settings: Sequence[Setting] = SETTINGS) -> Iterator[Trial]:
    """All runs, each once: the base first, then setting by setting in all fields, seed by seed."""
    for seed in seeds:
        based: set[tuple[str, str]] = set()
        for setting in settings:
            for where in fields:
                if where.only and setting.name not in where.only:
                    continue
                if (where.name, setting.architecture) not in based:
                    based.add((where.name, setting.architecture))
                    yield Trial(where, setting.architecture, CALLED_DEFAULT, CALLED_DEFAULT, {}, seed)
                for value, changes in setting.values.items():
                    if value != setting.default:
                        yield Trial(where, setting.architecture, setting.name, value, changes, seed)


def training_fields(trial: Trial, visits: int) -> dict[str, Any]:
    """Fields of ``SAEConfig`` for a trial that sees so many rows."""
    changes = dict(trial.changes)
    usual = SAEConfig(context_length=CONTEXT).for_rows(visits).batch_rows
    batch = changes.pop("batch_rows", usual)
    rate, share = changes.pop("rate", None), changes.pop("dead_share", None)
    steps = visits // batch
    fields: dict[str, Any] = {
        "architecture": trial.architecture,
        "hidden_dim": trial.field.features,
        "context_length": CONTEXT,
        "batch_size": batch // CONTEXT,
        "max_steps": steps,
        "seed": trial.seed,
        "eval_every_steps": steps,
        "checkpoint_every_steps": steps,
        "target_l0" if trial.architecture == "jumprelu" else "k": trial.field.l0,
    }
    if rate is not None:
        factor = get_architecture(trial.architecture).rate_factor
        fields["learning_rate"] = rate * factor * default_learning_rate(trial.field.features, steps)
    if share is not None:
        fields["dead_after_tokens"] = max(batch, int(share * visits))
    return fields | changes
