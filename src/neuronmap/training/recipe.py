"""TOML recipes: the fields of ``SAEConfig`` in a file, with overrides from the command line.

# run.toml
model_name = "smollm2-135m"
layer = 15
architecture = "matryoshka"
k = 32
corpus = "sotu"
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from neuronmap.errors import ConfigError
from neuronmap.training.config import SAEConfig

__all__ = ["load_recipe", "parse_setting"]


def parse_setting(text: str) -> tuple[str, Any]:
    """``"k=64"`` -> ``("k", 64)``. The value is read as TOML; a bare word is a string, ``null`` is None.

    Raises:
        ConfigError: when there is no ``=``.
    """
    name, equals, value = text.partition("=")
    name, value = name.strip(), value.strip()
    if not equals or not name:
        raise ConfigError(f"--set {text!r} is not of the form name=value.", hint="Example: --set k=64")
    if value.lower() in ("null", "none"):
        return name, None
    try:
        return name, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return name, value


def load_recipe(path: str | Path | None, settings: Sequence[str] = (), **fields: Any) -> SAEConfig:
    """Build a configuration from a file, ``name=value`` settings and keyword fields; later ones win.

    Args:
        path: TOML file, or None for none.
        settings: overrides as typed after ``--set``.
        fields: overrides already typed; those that are None are ignored.

    Raises:
        ConfigError: for a missing file, bad TOML, or anything that SAEConfig refuses.
    """
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values.update(tomllib.loads(Path(path).read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise ConfigError(
                f"There is no recipe file {path}.", hint="--config takes the path of a TOML file."
            ) from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} is not valid TOML: {error}.") from None
        except OSError as error:
            raise ConfigError(f"Cannot read {path}: {error.strerror or error}.") from None
    values.update(parse_setting(text) for text in settings)
    values.update({name: value for name, value in fields.items() if value is not None})
    return SAEConfig(**values)
