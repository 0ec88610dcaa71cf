"""TOML recipes: the fields of ``SAEConfig`` in a file, with overrides from the command line.

# run.toml
model_name = "smollm2-135m"
layer = 15
architecture = "matryoshka"
k = 32
corpus = "sotu"
[architecture_options]
sort_features = true
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from neuronmap.errors import ConfigError
from neuronmap.training.config import SAEConfig

__all__ = ["load_recipe", "parse_setting", "with_settings"]


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


def with_settings(values: dict[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """The values with ``name=value`` settings over them; ``table.name=value`` is one entry of a table.

    Raises:
        ConfigError: for a setting without ``=``.
    """
    found = dict(values)
    for text in settings:
        name, value = parse_setting(text)
        table, dot, entry = name.partition(".")
        if dot:
            kept = found.get(table)
            found[table] = {**(kept if isinstance(kept, dict) else {}), entry: value}
        else:
            found[name] = value
    return found


def load_recipe(path: str | Path | None, settings: Sequence[str] = (), **fields: Any) -> SAEConfig:
    """Build a configuration from a file, ``name=value`` settings and keyword fields; later ones win.

    Args:
        path: TOML file, or None for none.
        settings: overrides as typed after ``--set``; ``architecture_options.sort_features=true`` is one of a table's entries.
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
    values = with_settings(values, settings)
    values.update({name: value for name, value in fields.items() if value is not None})
    _refuse_bare_options(values)
    return SAEConfig(**values)


def _refuse_bare_options(values: dict[str, Any]) -> None:
    """An architecture's option that is given as a field: say where it belongs."""
    from neuronmap.saes.registry import architecture_options

    for name in sorted(set(values) - set(SAEConfig.model_fields)):
        owners = [owner for owner, options in architecture_options().items() if name in options.model_fields]
        if owners:
            raise ConfigError(
                f"SAEConfig has no field '{name}': it is an option of {', '.join(owners)}.",
                hint=f"--set architecture_options.{name}={values[name]}, or [architecture_options] in the recipe.",
            )
