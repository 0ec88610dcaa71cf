"""Data sets of sae-probes (2502.16681), read from its installed package or from a folder; the package itself is not imported.

``sae_probes/data/cleaned_data/<number>_<name>.csv.zst``: columns ``prompt``, ``prompt_len`` (in tokens; seven files of 0.4.2 lack it),
``target``, every field in quotes. Of its 155 files (0.4.2, inside the wheel) 113 have two classes; the others are refused. It pins an older
pandas, so NeuronMap does not depend on it: ``pip install --no-deps sae-probes`` puts the files there, and nothing else is needed of it.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import pyarrow as pa
from pyarrow import csv

from neuronmap.concepts import ConceptData, Item
from neuronmap.errors import InputError
from neuronmap.hashing import digest_parts

__all__ = ["ALL", "installed_probe_data", "probe_files", "probe_files_digest", "sae_probe_sets"]

ALL = "all"
"""Every data set that can be probed for, as a name."""
_LONGEST = 128
"""Tokens of a prompt; the package itself cuts prompts to their last 1,024."""
_CHARACTERS = 4
"""Of a token, where a file does not say how many tokens a prompt has."""
_FEWEST = 12
"""Usable prompts of each class."""
_INSIDE = ("sae_probes/data/cleaned_data", "data/cleaned_data", "cleaned_data", ".")


def installed_probe_data() -> Path | None:
    """Folder of the installed package's data; None without the package."""
    spec = find_spec("sae_probes")
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(next(iter(spec.submodule_search_locations))) / "data" / "cleaned_data"
    return folder if folder.is_dir() else None


def probe_files(folder: Path | None) -> dict[str, Path]:
    """Files by name (``5_hist_fig_ismale``), in the order of their numbers.

    Args:
        folder: the package's folder, or one of those inside it; None for the installed package.

    Raises:
        InputError: there are none.
    """
    root = installed_probe_data() if folder is None else folder
    inside = [] if root is None else [root / part for part in _INSIDE]
    for place in inside:
        files = sorted([*place.glob("*.csv.zst"), *place.glob("*.csv")])
        named = {file.name.removesuffix(".zst").removesuffix(".csv"): file for file in files}
        if named:
            return dict(sorted(named.items(), key=lambda pair: (_number(pair[0]), pair[0])))
    where = f"{folder} holds no data sets of sae-probes" if folder is not None else "sae-probes is not installed"
    raise InputError(
        f"{where}: there is no cleaned_data folder with .csv.zst files.",
        hint="pip install --no-deps sae-probes, or name the folder that its wheel was unpacked to.",
    )


Found = list[tuple[Literal["sae-probes"], ConceptData]]


def sae_probe_sets(folder: Path | None, names: Sequence[str], *, items: int, seed: int) -> tuple[Found, dict[str, str]]:
    """Some data sets as items that are read at the last token; every prompt is a cluster of its own.

    Args:
        folder: see :func:`probe_files`.
        names: whole names, or their numbers; :data:`ALL` for all that can be probed for.
        items: most items, half of each class; a quarter of them test.
        seed: which ones are drawn.

    Returns:
        The data sets; and of :data:`ALL` those that cannot be probed for, with the reason.

    Raises:
        InputError: no such data set, or one asked for by name that does not tell two classes apart, or has too few prompts that are
            short enough.
    """
    files = probe_files(folder)
    found: Found = []
    skipped: dict[str, str] = {}
    for name in _chosen(files, names):
        try:
            found.append(("sae-probes", _read(name, files[name], items, seed)))
        except _Unfit as error:
            if ALL not in names:
                raise InputError(f"Data set {name} {error}.") from None
            skipped[name] = str(error)
    return found, skipped


def probe_files_digest(folder: Path | None, names: Sequence[str]) -> str:
    """Digest of the files of some data sets; arguments and errors as for :func:`sae_probe_sets`."""
    files = probe_files(folder)
    return digest_parts(part for name in _chosen(files, names) for part in (name.encode(), files[name].read_bytes()))


def _chosen(files: dict[str, Path], names: Sequence[str]) -> list[str]:
    chosen: dict[str, None] = {}
    for name in names:
        fitting = [known for known in files if name in (ALL, known, str(_number(known)))]
        if not fitting:
            raise InputError(f"There is no data set '{name}' of sae-probes. There are: {', '.join(files)}.")
        chosen |= dict.fromkeys(fitting)
    return list(chosen)


class _Unfit(Exception):
    """A data set that cannot be probed for."""


def _number(name: str) -> int:
    first = name.partition("_")[0]
    return int(first) if first.isdigit() else 1 << 30


def _read(name: str, file: Path, items: int, seed: int) -> ConceptData:
    compression = "zstd" if file.suffix == ".zst" else None
    try:
        with pa.input_stream(str(file), compression=compression) as stream:
            table = csv.read_csv(stream, parse_options=csv.ParseOptions(newlines_in_values=True))
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{file} cannot be read as a table: {error}.") from error
    missing = {"prompt", "target"} - set(table.column_names)
    if missing:
        raise InputError(f"{file} has no column {', '.join(sorted(missing))}; it has {', '.join(table.column_names)}.")
    rows = [
        (str(row["prompt"]), str(row["target"]), row.get("prompt_len") or len(str(row["prompt"])) / _CHARACTERS)
        for row in table.to_pylist()
    ]
    classes = tuple(sorted({target for _, target, _ in rows}))
    if len(classes) != 2:
        raise _Unfit(f"has {len(classes)} classes; a probe of this suite tells two apart")
    texts: dict[str, str] = {}
    for prompt, target, length in rows:
        if prompt.strip() and length <= _LONGEST:
            texts.setdefault(prompt.rstrip(), target)  # the same prompt twice would be trained and tested on
    drawn: list[Item] = []
    for label in classes:
        mine = sorted(text for text, target in texts.items() if target == label)
        if len(mine) < _FEWEST:
            raise _Unfit(
                f"has {len(mine)} different prompts of class {label} with up to {_LONGEST} tokens; {_FEWEST} are needed"
            )
        random.Random(f"{name}:{label}:{seed}").shuffle(mine)
        taken = mine[: items // 2]
        tested = max(1, round(len(taken) / 4))
        for at, text in enumerate(taken):
            key = hashlib.sha256(text.encode()).hexdigest()[:16]
            split: Literal["train", "test"] = "test" if at < tested else "train"
            drawn.append(Item(text, label, (len(text) - 1, len(text)), key, key, "", split))
    return ConceptData(name, classes, tuple(drawn))
