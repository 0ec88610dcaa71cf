"""Text sources written as one string: what the command line and ``SAEConfig.corpus`` take beyond names and paths.

    hf:owner/name?subset=en&split=train&column=text&revision=abc&streaming=true     a hub data set with its options
    mix:0.7*sotu,0.3*hf:owner/name?streaming=true                                   shares of several sources
    mix:2*./mine.jsonl,1*sotu;go_on                                                 and what happens when one ends

Quote them in a shell: ``*``, ``?``, ``&`` and ``;`` mean something there.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args
from urllib.parse import parse_qsl

from neuronmap.corpora.mixture import Exhausted
from neuronmap.errors import ConfigError

__all__ = ["MIX", "MixtureSpec", "absolute_spec", "parse_hub", "parse_mixture"]

MIX = "mix:"
_OPTIONS = {
    "subset": "subset",
    "split": "split",
    "column": "text_column",
    "revision": "revision",
    "streaming": "streaming",
}
_TRUTH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def parse_hub(text: str) -> tuple[str, dict[str, Any]]:
    """A hub data set's id and its options, as ``open_corpus`` names them.

    Args:
        text: what stands behind ``hf:``.

    Raises:
        ConfigError: an option that does not exist or has no value.
    """
    dataset_id, _, query = text.partition("?")
    options: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in _OPTIONS:
            near = difflib.get_close_matches(name, _OPTIONS, n=1)
            raise ConfigError(
                f"hf:{text} has the option '{name}'; there are {', '.join(_OPTIONS)}.",
                hint=f"Did you mean {near[0]}?" if near else "Write hf:owner/name?split=train&column=text.",
            )
        if name == "streaming":
            if value.lower() not in _TRUTH:
                raise ConfigError(f"hf:{text}: streaming={value} is neither true nor false.")
            options[name] = _TRUTH[value.lower()]
        elif not value:
            raise ConfigError(f"hf:{text}: the option '{name}' has no value.")
        else:
            options[_OPTIONS[name]] = value
    return dataset_id, options


@dataclass(frozen=True)
class MixtureSpec:
    """A mixture as it was written.

    Attributes:
        sources: (weight, source) pairs.
        exhausted: the rule for a source that ends.
    """

    sources: tuple[tuple[float, str], ...]
    exhausted: Exhausted

    def __str__(self) -> str:
        parts = ",".join(f"{weight:g}*{source}" for weight, source in self.sources)
        return f"{MIX}{parts}" + ("" if self.exhausted == "stop" else f";{self.exhausted}")


def parse_mixture(text: str) -> MixtureSpec:
    """Read ``mix:weight*source,weight*source[;rule]``.

    Raises:
        ConfigError: it is written in another way.
    """
    body, _, rule = text.removeprefix(MIX).partition(";")
    if rule not in ("", *get_args(Exhausted)):
        raise ConfigError(
            f"{text!r}: '{rule}' is no rule for a source that ends; there are {', '.join(get_args(Exhausted))}."
        )
    sources = []
    for part in body.split(","):
        weight, star, source = part.partition("*")
        try:
            value = float(weight)
        except ValueError:
            value = -1.0
        if not star or not source.strip() or not 0 < value < float("inf"):
            raise ConfigError(
                f"{text!r}: {part.strip()!r} is not a weight above 0, a star and a source.",
                hint="Write mix:0.7*sotu,0.3*./texts.jsonl; a path with a comma is mixed in Python (neuronmap.corpora.Mixture).",
            )
        if source.strip().startswith(MIX):
            raise ConfigError(f"{text!r}: a mixture cannot be a source of a mixture.")
        sources.append((value, source.strip()))
    return MixtureSpec(tuple(sources), rule or "stop")  # type: ignore[arg-type] # checked above


def absolute_spec(text: str) -> str:
    """The same source with paths that exist here made absolute, also inside a mixture."""
    if not text.startswith(MIX):
        return str(Path(text).resolve()) if Path(text).exists() else text
    spec = parse_mixture(text)
    return str(MixtureSpec(tuple((weight, absolute_spec(source)) for weight, source in spec.sources), spec.exhausted))
