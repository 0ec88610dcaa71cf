"""Whether an imported SAE does what it should: its reconstruction of real activations, beside what its files say.

Shapes: N rows, D = width of what is reconstructed.

    explained_variance   1 - sum |y - yhat|^2 / sum |y - mean y|^2         ours, and what papers mean most of the time
    residual_variance    1 - sum |r - mean r|^2 / sum |y - mean y|^2       dictionary_learning's: blind to a wrong bias
    row_variance         mean over rows of 1 - |y - yhat|^2 / |y - mean y|^2    SAELens' before 2025

Files do not say which of them they mean, so a figure that fits none of the three is what is worth a warning.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from neuronmap import progress as progress_room
from neuronmap.errors import HookPointError, InputError, MismatchError
from neuronmap.hub.formats.places import said_record
from neuronmap.progress import Progress
from neuronmap.saes.metadata import BundleMetadata

if TYPE_CHECKING:
    from torch import Tensor

    from neuronmap.models import HookPoint, LanguageModel
    from neuronmap.saes import SparseAutoencoder

__all__ = ["Proof", "hooks_of", "prove"]

_CONTEXT = 128
_CONTEXTS_AT_ONCE = 8
_NEAR = 0.05
"""How far a figure may be from the file's, which was measured on other text."""
_L0_FACTOR = 2.0
_NAMELESS = frozenset({"list", "tuple", "generator", "Corpus", "Dataset", "IterableDataset"})
"""What a bundle calls a corpus that had no name: the type of what was given."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What was measured.

    Attributes:
        hook: where, exact name; of a transcoder ``in -> out``.
        model: the language model.
        tokens: rows that were measured.
        explained_variance, residual_variance, row_variance: as at the top of this file.
        l0: active features of a row.
        claims: what the files say.
        warnings: what does not fit.
    """

    hook: str
    model: str
    tokens: int
    explained_variance: float
    residual_variance: float
    row_variance: float
    l0: float
    claims: dict[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """One plain sentence."""
        said = self.claims.get("explained_variance")
        text = f"explained variance {self.explained_variance:.2f} on {self.hook}"
        text += f"; the file says {said:.2f}" if said is not None else ""
        text += f". L0 {self.l0:,.1f}"
        text += f"; the file says {self.claims['l0']:,.1f}" if "l0" in self.claims else ""
        return f"{text} ({self.tokens:,} tokens of {self.model})."

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, with the verdict."""
        return {**asdict(self), "warnings": list(self.warnings), "verdict": self.verdict}


def prove(
    sae: SparseAutoencoder,
    metadata: BundleMetadata,
    model: LanguageModel,
    text: Any,
    tokens: int = 4096,
    *,
    claims: dict[str, float] | None = None,
    hook: str | None = None,
    hook_out: str | None = None,
    progress: Progress | None = None,
) -> Proof:
    """Reconstruct real activations.

    Args:
        sae: the SAE, transcoder or crosscoder.
        metadata: says where it reads (and a transcoder, what it reconstructs).
        model: the language model.
        text: a corpus name, file, folder, or texts.
        tokens: rows at most. The first token of a context is left out: its activation is often of another size.
        claims: the files' own figures.
        hook: where it reads, over the metadata.
        hook_out: what a transcoder reconstructs, over the metadata.
        progress: where the bar goes.

    Raises:
        InputError: the metadata does not say where it reads in this model; or too little text.
        MismatchError: widths do not fit.
    """
    import torch

    from neuronmap.models import capture

    places = hooks_of(sae, metadata, model, hook, hook_out)
    _check_widths(sae, places)
    ids_CT, real_CT = _contexts(model, text, tokens, progress)
    shown = progress or progress_room.default()
    sums = _Sums()
    reads = places.into
    with shown.task(f"Reconstructing activations of {places.name}", len(ids_CT), "contexts") as task, torch.no_grad():
        for start in range(0, len(ids_CT), _CONTEXTS_AT_ONCE):
            ids_BT, kept_BT = (part[start : start + _CONTEXTS_AT_ONCE] for part in (ids_CT, real_CT.clone()))
            taken = capture(model, ids_BT, dict.fromkeys([*reads, *places.out]), attention_mask_BT=kept_BT)
            inputs = [taken[one.name].float().cpu() for one in reads]
            x = torch.stack(inputs, dim=-2) if sae.reads == "hooks" else inputs[0]
            f = sae.encode(x)
            yhat = sae.complete(sae.decode(f), x)
            y = x if sae.reconstructs_input else taken[places.out[0].name].float().cpu()
            kept_BT[:, 0] = False
            sums.add(y[kept_BT].flatten(1), yhat[kept_BT].flatten(1), f[kept_BT])
            task.advance(len(ids_BT))
    found = sums.result()
    warnings = _warnings(found, claims or {}, _other_text(metadata, text))
    return Proof(
        places.name, model.identity.name, sums.rows, found["explained_variance"], found["residual_variance"], found["row_variance"],
        found["l0"], dict(claims or {}), warnings,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Places:
    """Hooks that are read, those that are reconstructed, and how to call them."""

    into: list[HookPoint]
    out: list[HookPoint]

    @property
    def name(self) -> str:
        """``in``, or ``in -> out``."""
        first = " + ".join(hook.name for hook in self.into)
        return first if self.out == self.into else f"{first} -> {' + '.join(hook.name for hook in self.out)}"


def hooks_of(
    sae: SparseAutoencoder,
    metadata: BundleMetadata,
    model: LanguageModel,
    hook: str | None = None,
    hook_out: str | None = None,
) -> Places:
    """Where an SAE reads and what it reconstructs, on a loaded model.

    Args:
        sae: the SAE, transcoder or crosscoder.
        metadata: says it, by names of ours or of TransformerLens.
        model: the language model.
        hook: where it reads, over the metadata: a component, ``mlp:in``, or a module path with a side.
        hook_out: the same for what a transcoder reconstructs.

    Raises:
        InputError: the metadata does not say; or a transcoder would read what it reconstructs.
        HookPointError: the model has no such place.
    """
    if hook_out is not None and (sae.reads == "hooks" or sae.reconstructs_input):
        raise InputError(f"A {sae.architecture} reconstructs what it reads; an output hook is for transcoders.")
    if sae.reads == "hooks":
        if hook is not None:
            raise InputError("A crosscoder reads several hooks, which its files name; one hook cannot be said for it.")
        records = list(metadata.hooks or ())
        if not records:
            raise InputError(
                "The files do not say which hooks this crosscoder reads, so it cannot be tried on a model."
            )
        into = [_resolved(model, record) for record in records]
        return Places(into, into)
    where = dict(metadata.hook or {}) if hook is None else said_record(hook, metadata.hook)
    if sae.reconstructs_input:
        into = [_resolved(model, where)]
        return Places(into, into)
    written = dict(metadata.hook_out or {}) if hook_out is None else said_record(hook_out, metadata.hook_out or where)
    if not written:
        raise InputError(
            "The files do not say what this transcoder reconstructs, so it cannot be tried on a model.",
            hint="Say it: --hook-out mlp, or --hook-out model.layers.8.mlp:out.",
        )
    into, out = [_resolved(model, where)], [_resolved(model, written, "--hook-out")]
    if into == out:
        raise InputError(
            f"A transcoder reads one place and reconstructs another; here both would be {out[0].name}.",
            hint="--hook says where it reads (mlp:in, say), --hook-out what it reconstructs.",
        )
    return Places(into, out)


def _resolved(model: LanguageModel, record: dict[str, Any], option: str = "--hook") -> HookPoint:
    from neuronmap.models import resolve_hook

    layer, component = record.get("layer"), record.get("component")
    if record.get("inside") and layer is not None:
        return _inside(model, int(layer), str(record["inside"]), option)
    name = str(record.get("name") or "")
    if ":" in name:
        try:
            return resolve_hook(model, component=name)
        except HookPointError:
            if component is None:
                raise
    if layer is None or component is None:
        raise InputError(
            "The files name no place that a Hugging Face model has"
            + (f" ({name or 'layer ' + str(layer)})" if name or layer is not None else "")
            + ", so the SAE cannot be tried on a model.",
            hint=f"Say it: {option} residual, or {option} model.layers.8.mlp:out.",
        )
    return resolve_hook(model, layer=layer, component=component)


def _inside(model: LanguageModel, layer: int, inside: str, option: str) -> HookPoint:
    """The MLP module's own input or output: the module around the down projection, or where there is none, what adds to the stream.

    Raises:
        HookPointError: this model's block has no such module of its own, or no such layer.
    """
    from neuronmap.models import resolve_hook

    added = resolve_hook(model, layer=layer, component="mlp")  # also says which layers there are
    found = model.roles(layer).found
    path = found["mlp_hidden"][0].rpartition(".")[0] if "mlp_hidden" in found else found["mlp"][0]
    full = f"{model.blocks.prefix}.{layer}.{path}"
    record = model.blocks.records.get(full) if path else None
    if record is None or record.calls != 1 or record.widths.get("in") != model.blocks.hidden_size:
        raise HookPointError(
            f"Layer {layer} of {model.identity.name} has no module that is its whole MLP and nothing else (what it adds is {added.name}).",
            hint=f"Say the place: {option} PATH:in or PATH:out; `neuronmap models hooks MODEL` lists them.",
        )
    return resolve_hook(model, component=f"{full}:{inside.rpartition(':')[2]}")


def _check_widths(sae: SparseAutoencoder, places: Places) -> None:
    d_out = getattr(sae, "d_out", sae.d_in)
    for hooks, width, verb in ((places.into, sae.d_in, "reads"), (places.out, d_out, "reconstructs")):
        for one in hooks:
            if one.width != width:
                raise MismatchError(
                    f"The SAE {verb} activations of width {width}, but {one.name} has width {one.width}."
                )


def _contexts(model: LanguageModel, text: Any, tokens: int, progress: Progress | None) -> tuple[Tensor, Tensor]:
    """Whole contexts [C, T]: int64 ids, and where there is no padding."""
    import torch

    from neuronmap.corpora import open_corpus, tokenize

    if model.tokenizer is None:
        raise InputError(f"{model.identity.name} has no tokenizer, so no text can be run through it.")
    length = min(_CONTEXT, model.max_length or _CONTEXT)
    most = max(tokens, 2) + max(tokens // (length - 1), 1)
    found = tokenize(
        open_corpus(text), model.tokenizer, context_length=length, part="all", max_tokens=most,
        tokenizer_digest=model.identity.tokenizer_digest, progress=progress,
    )  # fmt: skip
    count = min(found.num_contexts, max(1, round(tokens / (length - 1))))
    batch = found.contexts(0, count)
    return torch.from_numpy(batch.input_ids), torch.from_numpy(batch.attention)


class _Sums:
    """Rows and errors, kept in float32 until the end: the variance is about the mean of all of them."""

    def __init__(self) -> None:
        self.rows, self._l0 = 0, 0.0
        self._parts: list[tuple[Tensor, Tensor]] = []

    def add(self, y_ND: Tensor, yhat_ND: Tensor, f_NF: Tensor) -> None:
        """Add a batch."""
        self._parts.append((y_ND, y_ND - yhat_ND))
        self.rows += len(y_ND)
        self._l0 += float((f_NF != 0).sum())

    def result(self) -> dict[str, float]:
        """The four figures."""
        import torch

        if self.rows < 2:
            raise InputError("The text is too short to measure a variance on.")
        y_ND, r_ND = (torch.cat([pair[side] for pair in self._parts]).double() for side in (0, 1))
        spread_N = (y_ND - y_ND.mean(dim=0)).square().sum(dim=1)
        error_N = r_ND.square().sum(dim=1)
        total = float(spread_N.sum())
        if total == 0:
            raise InputError("The activations at this hook are all the same, so there is no variance to explain.")
        centred = float((r_ND - r_ND.mean(dim=0)).square().sum())
        return {
            "explained_variance": 1 - float(error_N.sum()) / total,
            "residual_variance": 1 - centred / total,
            "row_variance": float((1 - error_N / spread_N.clamp_min(1e-30)).mean()),
            "l0": self._l0 / self.rows,
        }


def _other_text(metadata: BundleMetadata, text: Any) -> str:
    """A sentence where an SAE's figures were measured on another text than this proof; empty where it is the same, or unknown."""
    from neuronmap.corpora import open_corpus

    measured = str((metadata.corpus or {}).get("name") or "")
    last, here = PurePath(measured).name, open_corpus(text).name
    if not measured or measured in _NAMELESS or here in (measured, last, PurePath(last).stem):
        return ""
    return f" The file's figures are of other text ({last}; this is {here}), which alone can make such a difference."


def _warnings(found: dict[str, float], claims: dict[str, float], other_text: str) -> tuple[str, ...]:
    warnings = []
    if found["explained_variance"] < 0:
        warnings.append(
            "The explained variance is below 0: the reconstruction is worse than a constant. Model, hook point or scale is most "
            "likely not the one it was trained on."
        )
    said = claims.get("explained_variance")
    measured = [found[name] for name in ("explained_variance", "residual_variance", "row_variance")]
    if said is not None and min(abs(said - one) for one in measured) > _NEAR:
        shown = ", ".join(f"{one:.2f}" for one in measured)
        warnings.append(
            f"The file says an explained variance of {said:.2f}; none of the usual definitions gives that here ({shown}).{other_text}"
        )
    if "l0" in claims and claims["l0"] > 0 and not 1 / _L0_FACTOR < found["l0"] / claims["l0"] < _L0_FACTOR:
        warnings.append(
            f"The file says {claims['l0']:,.1f} active features for each token; here they are {found['l0']:,.1f}.{other_text}"
        )
    return tuple(warnings)
