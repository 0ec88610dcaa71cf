"""``sweep.toml``: which SAEs a sweep trains. Loads no torch: ``neuronmap sae sweep --dry-run`` and the server read it too.

[base]                       # fields of SAEConfig, the same for all
model_name = "smollm2-135m"
corpus = "sotu"
layer = 15
name = "demo-{architecture}-{k}"

[grid]                       # a list for each field: every combination is a member
architecture = ["topk", "batchtopk"]
k = [16, 32, 64]

[[member]]                   # further ones, written out; what is not said is as in [base]
architecture = "jumprelu"
target_l0 = 32
"""

from __future__ import annotations

import difflib
import itertools
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from neuronmap.config import FrozenConfig
from neuronmap.errors import ConfigError
from neuronmap.training.config import OPTION_FIELDS, SAEConfig
from neuronmap.training.recipe import with_settings
from neuronmap.training.sweeping.names import named

__all__ = ["MOST_MEMBERS", "OWN_FIELDS", "SweepConfig", "load_sweep", "require_one_stream"]

MOST_MEMBERS = 1000

OWN_FIELDS = frozenset(
    {
        *("layer", "component", "input_dim", "hidden_dim", "architecture", *OPTION_FIELDS, "architecture_options"),
        *("num_epochs", "max_steps", "learning_rate", "warmup_fraction", "decay_fraction", "sparsity_warmup_fraction"),
        *("k_anneal_fraction", "k_anneal_factor", "adam_epsilon", "clip_norm", "dead_after_tokens", "seed"),
        *("kernels", "products", "compute_dtype", "name", "tags"),
        *("eval_every_steps", "history_every_steps", "keep_checkpoints", "loggers"),
    }
)
"""Fields in which the members of a sweep may differ. All others say what the one stream is made of, and how it is read."""


class SweepConfig(FrozenConfig):
    """What a sweep trains: fields for all, a grid of lists, and members written out.

    A field of the grid or the base that an architecture does not have (k for jumprelu) is left out for it; one that no member has is an
    error, as is a clash of names. The order of the data has one seed for all: ``data_seed`` of the base, else its ``seed``. It is written
    into each member's configuration, so that the member trained alone sees the same rows in the same order.

    Raises:
        ConfigError: for unknown keys, values out of range, members that cannot share one stream.
    """

    base: dict[str, Any] = Field(default_factory=dict)
    """Fields of SAEConfig for all members. name may hold other fields in braces: demo-{architecture}-{k}."""
    grid: dict[str, tuple[Any, ...]] = Field(default_factory=dict)
    """Lists of values by field: every combination is a member."""
    member: tuple[dict[str, Any], ...] = ()
    """Further members, written out: fields that differ from the base."""

    @field_validator("grid", mode="before")
    @classmethod
    def _lists(cls, value: Any) -> Any:
        for name, values in value.items() if isinstance(value, dict) else ():
            if not isinstance(values, list | tuple):
                raise ConfigError(f"grid.{name} = {values!r} is not a list.", hint=f"grid.{name} = [{values!r}]")
        return value

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        for title, fields in [("base", self.base), ("grid", self.grid), *(("member", one) for one in self.member)]:
            _require_known(title, fields)
        if not self.grid and not self.member:
            raise ConfigError(
                "There is nothing to sweep over: neither [grid] nor [[member]] is given.",
                hint='For example: [grid] with k = [16, 32, 64]. One SAE is what "neuronmap sae train" makes.',
            )
        if twice := sorted(set(self.base) & set(self.grid)):
            raise ConfigError(
                f"{twice[0]} is given twice: in [base] as {self.base[twice[0]]!r} and in [grid].",
                hint="Leave it out of one.",
            )
        for name, values in self.grid.items():
            if not values:
                raise ConfigError(f"grid.{name} is an empty list: no member comes of it.")
            if len({repr(value) for value in values}) < len(values):
                raise ConfigError(f"grid.{name} = {list(values)!r} holds a value twice.")
        count = len(self.member) + (len(list(self._combinations())) if self.grid else 0)
        if count > MOST_MEMBERS:
            raise ConfigError(
                f"The sweep has {count:,} members; at most {MOST_MEMBERS:,} are trained at once.",
                hint="Take values out of the grid, or make several sweeps of it.",
            )
        self.members()
        return self

    def members(self) -> tuple[SAEConfig, ...]:
        """The configuration of every member, named, in the order of the grid and then as written.

        Raises:
            ConfigError: with the member at fault.
        """
        found: list[dict[str, Any]] = []
        used: set[str] = set()
        for chosen in self._combinations() if self.grid else ():
            fields = _fitting({**self.base, **chosen}, used)
            if fields not in found:  # combinations that differ in what this architecture does not have
                found.append(fields)
        for given in self.member:
            base = _fitting({**self.base, **given}, used, keep=given)
            found.append(base)
        idle = [name for name in OPTION_FIELDS if (name in self.base or name in self.grid) and name not in used]
        if idle:
            architectures = sorted({_architecture(fields) for fields in found})
            raise ConfigError(
                f"{idle[0]} is given, but no member has it: the architectures are {', '.join(architectures)}.",
                hint=f"Leave {idle[0]} out, or add an architecture that has it.",
            )
        seed = self.base.get("data_seed", self.base.get("seed", 0))
        found = named([{"data_seed": seed, **fields} for fields in found])
        configs = tuple(_built(number, fields) for number, fields in enumerate(found, 1))
        require_one_stream(configs)
        return configs

    def _combinations(self) -> Any:
        names = list(self.grid)
        return (dict(zip(names, values, strict=True)) for values in itertools.product(*self.grid.values()))


def load_sweep(path: str | Path, settings: Sequence[str] = ()) -> SweepConfig:
    """Read a sweep from a TOML file.

    Args:
        path: the file.
        settings: fields of the base as ``name=value``; they win over the file's.

    Raises:
        ConfigError: for a missing file, bad TOML, or anything that SweepConfig refuses.
    """
    try:
        values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"There is no sweep file {path}.", hint="Give the path of a TOML file.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}.") from None
    except OSError as error:
        raise ConfigError(f"Cannot read {path}: {error.strerror or error}.") from None
    if settings and isinstance(values.get("base", {}), dict):
        values["base"] = with_settings(values.get("base", {}), settings)
    return SweepConfig(**values)


def require_one_stream(configs: Sequence[SAEConfig]) -> None:
    """Refuse configurations that cannot share one stream.

    Raises:
        ConfigError: with the field, two values of it, and whose they are.
    """
    if not configs:
        raise ConfigError("A sweep needs at least one member.")
    first = configs[0]
    for name in [field for field in SAEConfig.model_fields if field not in OWN_FIELDS]:
        get = "order_seed" if name == "data_seed" else name
        for number, config in enumerate(configs[1:], 2):
            if getattr(config, get) != getattr(first, get):
                raise ConfigError(
                    f"{name} must be the same for all members of a sweep, which share one stream of rows: it is "
                    f"{getattr(first, get)!r} for {_who(first, 1)} and {getattr(config, get)!r} for {_who(config, number)}.",
                    hint=_ADVICE.get(name, f"Give {name} in [base]; for other values of it make another sweep."),
                )
    several = [config for config in configs if "wandb" in config.loggers]
    if several and len(configs) > 1:
        raise ConfigError(
            "The logger 'wandb' follows one run at a time and cannot be used in a sweep.",
            hint="Use tensorboard, or the files of each run.",
        )


_ADVICE = {
    "max_tokens": "num_epochs and max_steps may differ: an SAE with fewer steps leaves early.",
    "data_seed": "Set data_seed to the same number for all; seed may differ.",
}


def _who(config: SAEConfig, number: int) -> str:
    return f"'{config.name}'" if config.name else f"member {number}"


def _require_known(table: str, fields: Mapping[str, Any]) -> None:
    for name in fields:
        if name not in SAEConfig.model_fields:
            near = difflib.get_close_matches(name, SAEConfig.model_fields, n=3, cutoff=0.5)
            raise ConfigError(
                f"[{table}] has '{name}', which is no field of SAEConfig.",
                hint=f"Did you mean {' or '.join(near)}?" if near else "Fields: neuronmap sae train --help.",
            )


def _architecture(fields: Mapping[str, Any]) -> str:
    """The architecture after the rule for ``auto``."""
    chosen = fields.get("architecture", "auto")
    if chosen != "auto":
        return str(chosen)
    return "relu" if fields.get("sparsity_penalty") is not None else "batchtopk"


def _fitting(fields: dict[str, Any], used: set[str], keep: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Without the options that the architecture does not have; ``keep`` are those that stay whatever it has."""
    from neuronmap.saes.registry import get_options

    own = get_options(_architecture(fields)).model_fields
    used.update(name for name in fields if name in own)
    return {
        name: value
        for name, value in fields.items()
        if name not in OPTION_FIELDS or name in own or name in (keep or {})
    }


def _built(number: int, fields: dict[str, Any]) -> SAEConfig:
    try:
        return SAEConfig(**fields)
    except ConfigError as error:
        raise ConfigError(f"Member {number} ('{fields['name']}'): {error.message}", hint=error.hint) from None
