"""``neuronmap sae steer`` and ``compare``: what features do, and what two SAEs have in common."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from neuronmap.cli.features import AnalysisOption, NameArgument
from neuronmap.cli.output import JsonOption, Output, QuietOption, command_output
from neuronmap.errors import ConfigError, InputError, NotInLibraryError
from neuronmap.paths import new_folder

if TYPE_CHECKING:
    from neuronmap.features.live.interventions import Intervention
    from neuronmap.features.storage.store import FeatureStore
    from neuronmap.hub import LibraryEntry

__all__ = ["compare", "parse_intervention", "steer"]

_CHANGE = re.compile(r"#?(\d+)\s*(\+|-|=|x|\*)\s*([0-9.eE+-]+)\s*(max)?")
_PLOTS = (".png", ".svg", ".pdf")
_KINDS = {"+": "add", "-": "add", "=": "clamp", "x": "scale", "*": "scale"}


def parse_intervention(text: str) -> Intervention:
    """``17+60`` adds, ``17=5`` clamps, ``17x2`` scales, ``17 off`` removes; ``max`` behind a number counts in the feature's maxima.

    Raises:
        ConfigError: it has no such form.
    """
    from neuronmap.features.live.interventions import Intervention

    off = re.fullmatch(r"#?(\d+)\s*(off|remove)", text.strip())
    if off is not None:
        return Intervention.remove(int(off[1]))
    found = _CHANGE.fullmatch(text.strip())
    try:
        value = float(found[3]) if found is not None else 0.0
    except ValueError:
        found = None
    if found is None:
        raise ConfigError(
            f"{text!r} is not a change to a feature.",
            hint="17+60 adds, 17+1.5max adds in units of its largest activation, 17=5 clamps, 17x2 scales, '17 off' removes.",
        )
    kind = _KINDS[found[2]]
    if found[4] and kind == "scale":
        raise ConfigError(f"{text!r}: a factor has no unit.", hint="17x2 doubles feature 17 wherever it fires.")
    unit = "max" if found[4] else "activation"
    return Intervention(int(found[1]), kind, -value if found[2] == "-" else value, unit=unit)  # type: ignore[arg-type]


@command_output
def steer(
    name: NameArgument,
    changes: Annotated[
        list[str],
        typer.Option("--change", "-c", help="17+60, 17+1.5max, 17=5, 17x2 or '17 off'; repeat for more features."),
    ],
    prompt: Annotated[str | None, typer.Option("--prompt", "-p", help="Continue this, clean and steered.")] = None,
    text: Annotated[
        str | None, typer.Option("--text", "-t", help="Score this instead: loss and KL token by token.")
    ] = None,
    max_tokens: Annotated[int, typer.Option(help="Most tokens to generate.")] = 40,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Of the sampling and the controls.")] = 0,
    controls: Annotated[int, typer.Option(help="Random directions of the same length beside.")] = 1,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Language model, if not the SAE's own.")] = None,
    analysis: AnalysisOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Change features while the model writes or reads, beside the clean run and random directions of the same length.

    Examples:

        neuronmap sae steer demo --change 17+60 --prompt "I think that"

        neuronmap sae steer demo -c 17+1.5max -c "42 off" -p "The president said" --controls 2

        neuronmap sae steer demo -c "17 off" --text "Four score and seven years ago"
    """
    from neuronmap.features.export.records import finite
    from neuronmap.features.live.steering import FeatureSteering
    from neuronmap.hub import SAEModelHub

    output = Output(as_json, quiet)
    if (prompt is None) == (text is None):
        raise ConfigError("Give either --prompt, to be continued, or --text, to be scored.")
    interventions = [parse_intervention(change) for change in changes]
    hub = SAEModelHub()
    entry, store = _with_store(hub.get(name), analysis)
    if store is None and any(change.unit == "max" for change in interventions):
        raise InputError(
            f"{entry.id} has no analysis, so the largest activations of its features are not known.",
            hint=f"neuronmap sae analyze {entry.id}, or give a strength without max, such as 17+60.",
        )
    steering = FeatureSteering(entry.path, model=model, store=store, progress=output.progress())
    result: Any
    if prompt is not None:
        result = steering.generate(
            prompt, interventions, max_tokens=max_tokens, temperature=temperature, seed=seed, controls=controls
        )
    else:
        result = steering.score(str(text), interventions, controls=controls, seed=seed)
    output.show(escape(str(result)))
    output.document(
        {
            "schema": "neuronmap/sae.steer/1",
            "sae": entry.id,
            "changes": [str(change) for change in interventions],
            "rows": finite(result.to_arrow().to_pylist()),
            "notes": list(result.notes),
        }
    )


def _with_store(entry: LibraryEntry, analysis: str | None) -> tuple[LibraryEntry, FeatureStore | None]:
    """The newest analysis, for labels and maxima, where there is one; the one that was named must be there."""
    from neuronmap.hub.analyses import open_analysis

    try:
        return entry, open_analysis(entry, analysis)
    except NotInLibraryError:
        if analysis is not None:
            raise
        return entry, None


@command_output
def compare(
    first: Annotated[str, typer.Argument(metavar="SAE_A", help="Name in the library; a unique beginning is enough.")],
    second: Annotated[str, typer.Argument(metavar="SAE_B", help="The other one.")],
    text: Annotated[
        str | None,
        typer.Option("--text", "--corpus", "-t", help="Also compare where they fire, on this text."),
    ] = None,
    tokens: Annotated[int, typer.Option(help="Most tokens of it.")] = 65_536,
    threshold: Annotated[
        float | None, typer.Option(help="Similarity that counts as a match; what chance gives if left out.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Write the histogram of similarities to this PNG, SVG or PDF.")
    ] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Compare two SAEs: what is shared, split, merged and unique, beside what chance gives.

    Decoder directions are compared where both read one space; with **--text** the places where features fire are compared as well:
    for other layers, other models, and models with other tokenizers that is the only way.

    Examples:

        neuronmap sae compare demo demo-seed-1

        neuronmap sae compare demo other --text sotu --tokens 50000 --plot match.png
    """
    from neuronmap.features.comparing.compare import CompareConfig
    from neuronmap.hub import SAEModelHub
    from neuronmap.hub.comparing import compare_entries

    output = Output(as_json, quiet)
    if plot is not None and plot.suffix.lower() not in _PLOTS:
        raise ConfigError(f"--plot {plot}: the name ends in {', '.join(_PLOTS)}.")
    hub = SAEModelHub()
    config = CompareConfig() if threshold is None else CompareConfig(threshold=threshold)
    found = compare_entries(
        hub, (hub.get(first), hub.get(second)), text=text, tokens=tokens, config=config, progress=output.progress()
    )
    output.show(escape(found.summary()))
    if plot is not None:
        new_folder(plot.parent)
        found.plot().savefig(plot, dpi=150)
        output.show(f"Plot: {escape(str(plot))}")
    output.document(
        {
            "schema": "neuronmap/sae.compare/1",
            "a": first,
            "b": second,
            "comparison": found.to_dict(),
            "plot": None if plot is None else str(plot),
        }
    )
