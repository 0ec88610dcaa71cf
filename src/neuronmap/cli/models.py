"""``neuronmap models``: what can be hooked in a language model, and a language model as an endpoint."""

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


@app.command("serve")
@command_output
def serve(
    model: Annotated[str, typer.Argument(help="Hub id, local folder, GGUF file, or sample name (smollm2-135m).")],
    host: Annotated[str, typer.Option(help="Where to listen; there are no accounts.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:N, mps or auto.")] = "auto",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, float16 or auto.")] = "auto",
    revision: Annotated[str | None, typer.Option(help="Revision of a hub model.")] = None,
    quiet: QuietOption = False,
) -> None:
    """Serve a language model at an OpenAI-compatible address on this machine, to label and score features with.

    One answer at a time, without batching: for a whole SAE use a server made for speed (vLLM, llama.cpp, Ollama).

    Examples:

        neuronmap models serve smollm2-135m --port 8000

        neuronmap sae explain demo --sample 5 --endpoint http://127.0.0.1:8000/v1 --model smollm2-135m
    """
    from neuronmap.models import load_model
    from neuronmap.models.answering import ChatModel
    from neuronmap.models.serving import ChatServer

    output = Output(False, quiet)
    loaded = load_model(model, revision=revision, device=device, dtype=dtype, progress=output.progress())
    server = ChatServer(ChatModel(loaded), model, host, port)
    output.show(f"{model} answers at {server.address} (--endpoint {server.address} --model {model}). Ctrl-C stops it.")
    try:
        server.serve()
    except KeyboardInterrupt:
        output.show(f"Stopped after {server.answered:,} answers.")
    finally:
        server.close()
