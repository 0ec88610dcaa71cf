"""``neuronmap models``: what can be hooked in a language model."""

from __future__ import annotations

from typing import Annotated

import typer

from neuronmap.cli.output import JsonOption, Output, QuietOption, command_output, table

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True)


@app.command("hooks")
@command_output
def hooks(
    model: Annotated[str, typer.Argument(help="Hub id, local folder, GGUF file, or sample name (smollm2-135m).")],
    pattern: Annotated[
        str | None, typer.Option("--match", help="Only hook points whose name fits this pattern (* and ? allowed).")
    ] = None,
    layer: Annotated[int | None, typer.Option(help="Only this block, counted from 0.")] = None,
    revision: Annotated[str | None, typer.Option(help="Revision of a hub model.")] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """List the hook points of a model with their widths.

    The blocks and their parts are found by structure, so this works for any architecture. Each name can be given to
    `neuronmap sae train --component`, as can any module path with `:in` or `:out`.

    Examples:

        neuronmap models hooks smollm2-135m --layer 15

        neuronmap models hooks ./my-model --match '*.mlp:out'
    """
    from neuronmap.errors import HookPointError
    from neuronmap.models import list_hooks, load_model, resolve_hooks

    output = Output(as_json, quiet)
    loaded = load_model(model, revision=revision, progress=output.progress())
    if layer is not None and not 0 <= layer < loaded.num_layers:
        raise HookPointError(
            f"{loaded.identity.name} has no block {layer}: it has {loaded.num_layers} blocks, "
            f"counted from 0 to {loaded.num_layers - 1}."
        )
    found = resolve_hooks(loaded, pattern) if pattern else list_hooks(loaded)
    found = [hook for hook in found if layer is None or hook.layer == layer]
    rows = [["" if h.layer is None else str(h.layer), h.component or "", str(h.width), h.name] for h in found]
    identity = loaded.identity
    output.show(
        f"{identity.name}: {identity.architecture}, {identity.num_layers} blocks, hidden size {identity.hidden_size}",
        table("", ["layer", "component", "width", "name"], rows, right=["layer", "width"]),
    )
    output.document(
        {
            "schema": "neuronmap/models.hooks/1",
            "model": identity.to_dict(),
            "hooks": [{"layer": h.layer, "component": h.component, "width": h.width, "name": h.name} for h in found],
        }
    )
