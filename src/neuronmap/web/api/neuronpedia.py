"""Neuronpedia's routes for reading and inference, with its shapes, on the SAEs of this machine.

A script that talks to Neuronpedia works here with another address. How SAEs are called: :mod:`neuronmap.web.api.neuronpedia_names`.
What is not the same is said in ``notes`` of the answer: masked tokens (the first of a text, special tokens) have no activations and
are not steered, and there is no frequency penalty.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path
from starlette.concurrency import run_in_threadpool

from neuronmap.errors import ConfigError, NotInLibraryError
from neuronmap.features.export.neuronpedia import feature_document
from neuronmap.hub import LibraryEntry
from neuronmap.web.api.neuronpedia_bodies import (
    MOST_SOURCES,
    ActivationNew,
    ActivationSource,
    ExplanationSearch,
    ExplanationSearchAll,
    ExplanationSearchModel,
    ExplanationSearchRelease,
    SearchAll,
    SearchTopk,
    Steer,
)
from neuronmap.web.api.neuronpedia_names import entries_of, entry_of, names_of
from neuronmap.web.errors import WebError, responses
from neuronmap.web.explorer import Analysed, Explorer
from neuronmap.web.live.requests import ActivationRequest, Change, LiveRequest, SteerRequest, TextRequest
from neuronmap.web.routing import ExplorerOf

__all__ = ["router"]

router = APIRouter(
    prefix="/api/neuronpedia-compatible/api", tags=["Neuronpedia"], responses=responses(404, 409, 422, 429, 503, 504)
)

_PER_PAGE = 20
_MOST_LISTED = 256


@router.get("/feature/{model}/{source:path}/{index}", summary="Everything of a feature")
def feature(
    explorer: ExplorerOf,
    model: Annotated[str, Path(max_length=300)],
    source: Annotated[str, Path(max_length=600)],
    index: Annotated[int, Path(ge=0, lt=2**31)],
) -> dict[str, Any]:
    """A feature with its histograms, logits, neighbours, activations and explanations, from the newest analysis of the SAE.

    `model` is the last part of the model's name in small letters, everything else a hyphen. `source` is `<layer>-<set>`, the set
    being the SAE's id with everything but letters, digits, dots and hyphens as a hyphen (`15-demo`); or the SAE's id itself.
    """
    entry = entry_of(explorer, model, source)
    return feature_document(explorer.analysed(entry.id).store, index, names_of(entry))


@router.post("/activation/new", summary="One feature on a text")
async def activation_new(explorer: ExplorerOf, body: ActivationNew) -> dict[str, Any]:
    """Tokens and the activation on each."""
    name = body.feature or body.neuron
    if name is None or (name.source or name.layer) is None:
        raise ConfigError("`feature` needs modelId, source and index.")
    entry = await _entry(explorer, name.modelId, str(name.source or name.layer))
    found = await _answer(explorer, ActivationRequest(sae=entry.id, feature=name.index, text=body.customText))
    first = 1 if body.ignoreBos and found["masked"][:1] == ["special"] else 0
    values = found["values"][first:]
    peak = max(range(len(values)), key=values.__getitem__, default=0)
    return {
        "tokens": found["tokens"][first:],
        "values": values,
        "maxValue": values[peak] if values else 0.0,
        "maxValueIndex": peak,
    }


@router.post("/activation/source", summary="All features on texts")
async def activation_source(explorer: ExplorerOf, body: ActivationSource) -> dict[str, Any]:
    """For each text its tokens, and for each feature that fires the places and activations."""
    entry = await _entry(explorer, body.modelId, body.source)
    results = []
    for text in [body.customText] if isinstance(body.customText, str) else body.customText:
        asked = TextRequest(sae=entry.id, text=text, top=_MOST_LISTED, ranking=0, order="activation")
        found = await _answer(explorer, asked)
        active: dict[str, list[list[float]]] = {}
        for at, listed in enumerate(found["top"]):
            for number, activation, _ in listed:
                active.setdefault(str(number), []).append([at, activation])
        cut = any(count > _MOST_LISTED for count in found["active"])
        notes = [f"Of each token the {_MOST_LISTED} strongest features are listed."] if cut else []
        results.append({"tokens": _tokens(found), "activeFeatures": active, "notes": found["notes"] + notes})
    return {"results": results}


@router.post("/search-all", summary="The strongest features of a text")
async def search_all(explorer: ExplorerOf, body: SearchAll) -> dict[str, Any]:
    """Features by their largest activation, or by the sum over chosen tokens, with the activation on every token."""
    if body.selectedLayers:
        entries = [await _entry(explorer, body.modelId, source) for source in body.selectedLayers]
    else:
        entries = await run_in_threadpool(entries_of, explorer, body.modelId, body.sourceSet)
    if not entries:
        raise NotInLibraryError(f"There is no source set {body.modelId}/{body.sourceSet} here.")
    tokens: list[str] = []
    rows: list[tuple[float, dict[str, Any]]] = []
    for entry in entries[:MOST_SOURCES]:
        density = body.densityThreshold if body.densityThreshold > 0 else None
        asked = TextRequest(
            sae=entry.id, text=body.text, top=_MOST_LISTED if body.sortIndexes else 0, ranking=body.numResults,
            order="activation", max_density=density,
        )  # fmt: skip
        found = await _answer(explorer, asked)
        chosen = _strongest(found, body.sortIndexes, body.numResults)
        traced = await _answer(explorer, asked.updated(features=tuple(chosen), top=0, ranking=0))
        tokens = _tokens(found)
        names = names_of(entry)
        beside = await run_in_threadpool(_neurons, explorer, entry, list(chosen))
        for trace in traced["traces"]:
            values = [value or 0.0 for value in trace["activations"]]
            peak = max(range(len(values)), key=values.__getitem__)
            row = {
                "modelId": names.model, "layer": names.source, "index": str(trace["feature"]), "values": values,
                "maxValue": values[peak], "maxValueIndex": peak, "neuron": beside.get(trace["feature"]),
            }  # fmt: skip
            rows.append((chosen[trace["feature"]], row))
    rows.sort(key=lambda pair: -pair[0])
    result = [row for _, row in rows[: body.numResults]]
    return {"tokens": tokens, "result": result, "counts": [], "sortIndexes": body.sortIndexes}


@router.post("/search-topk-by-token", summary="The strongest features of each token")
async def search_topk(explorer: ExplorerOf, body: SearchTopk) -> dict[str, Any]:
    """Tokens with their features. The threshold holds where the SAE has an analysis."""
    entry = await _entry(explorer, body.modelId, body.source)
    analysed = bool(await run_in_threadpool(explorer.analyses, entry))
    density = body.densityThreshold if body.densityThreshold > 0 and analysed else None
    asked = TextRequest(
        sae=entry.id, text=body.text, top=body.numResults, ranking=0, order="activation", max_density=density
    )
    found = await _answer(explorer, asked)
    numbers = sorted({number for listed in found["top"] for number, _, _ in listed})
    neurons = await run_in_threadpool(_neurons, explorer, entry, numbers)
    texts = _tokens(found)
    results = [
        {
            "position": at,
            "token": texts[at],
            "isSpecial": found["masked"][at] == "special",
            "topFeatures": [
                {"activationValue": activation, "featureIndex": number, "feature": neurons.get(number)}
                for number, activation, _ in listed
            ],
        }
        for at, listed in enumerate(found["top"])
        if not (body.ignoreBos and found["masked"][at] == "special")
    ]
    return {"source": names_of(entry).source, "results": results}


@router.post("/explanation/search", summary="Features by words of their labels")
def explanation_search(explorer: ExplorerOf, body: ExplanationSearch) -> dict[str, Any]:
    """Twenty a page, by the newest analysis of each SAE."""
    entries = (
        [entry_of(explorer, body.modelId, source) for source in body.layers]
        if body.layers
        else entries_of(explorer, body.modelId)
    )
    return _explanations(explorer, entries, body)


@router.post("/explanation/search-model", summary="Features of a model by words of their labels")
def explanation_search_model(explorer: ExplorerOf, body: ExplanationSearchModel) -> dict[str, Any]:
    """The same over all SAEs of a model."""
    return _explanations(explorer, entries_of(explorer, body.modelId), body)


@router.post("/explanation/search-release", summary="Features of a release by words of their labels")
def explanation_search_release(explorer: ExplorerOf, body: ExplanationSearchRelease) -> dict[str, Any]:
    """The same over all SAEs with a tag: the library has no releases, and `releaseName` is taken as one of its tags."""
    tagged = [entry for entry in explorer.entries() if not entry.problem and body.releaseName in entry.tags]
    if not tagged:
        raise WebError(404, "not_found", f"No SAE here has the tag {body.releaseName!r}.")
    return _explanations(explorer, tagged, body)


@router.post("/explanation/search-all", summary="Features of all SAEs by words of their labels")
def explanation_search_all(explorer: ExplorerOf, body: ExplanationSearchAll) -> dict[str, Any]:
    """The same over the whole library."""
    return _explanations(explorer, [entry for entry in explorer.entries() if not entry.problem], body)


def _explanations(explorer: Explorer, entries: list[LibraryEntry], body: ExplanationSearchAll) -> dict[str, Any]:
    results: list[dict[str, Any]] = []
    last = body.offset + _PER_PAGE
    for entry in entries:
        if len(results) > last or not explorer.analyses(entry):
            continue
        analysed = explorer.analysed(entry.id)
        rows = analysed.store.queries.search_labels(body.query, last + 1)
        results += [_explained(entry, row) for row in rows]
    page = results[body.offset : last]
    more = len(results) > last
    return {
        "request": body.model_dump(),
        "results": page,
        "resultsCount": len(page),
        "hasMore": more,
        "nextOffset": last if more else None,
    }


@router.post("/steer", summary="Continue a prompt with and without features added")
async def steer(explorer: ExplorerOf, body: Steer) -> dict[str, Any]:
    """The prompt with each continuation. All features must be of one source."""
    sources = {(one.modelId, one.layer) for one in body.features}
    if len(sources) > 1:
        raise ConfigError("All features must be of one source.", hint="Steer with the features of one SAE at a time.")
    entry = await _entry(explorer, *sources.pop())
    changes = tuple(
        Change(feature=one.index, kind="add", value=one.strength * body.strength_multiplier) for one in body.features
    )
    asked = SteerRequest(
        sae=entry.id, prompt=body.prompt, changes=changes, max_tokens=body.n_tokens, temperature=body.temperature,
        seed=abs(body.seed), controls=0,
    )  # fmt: skip
    found = await _answer(explorer, asked)
    runs = {run["name"]: run for run in found["runs"]}
    notes = list(found["notes"])
    if body.freq_penalty:
        notes.append("There is no frequency penalty here: freq_penalty was not applied.")
    return {
        "STEERED": body.prompt + runs["steered"]["text"],
        "DEFAULT": body.prompt + runs["clean"]["text"],
        "steeredLogProbs": None,  # what is known of these tokens is what the unsteered model makes of them
        "defaultLogProbs": None,
        "id": None,
        "shareUrl": None,
        "limit": None,
        "notes": notes,
    }


# --- parts -----------------------------------------------------------------------------------------------------------


async def _entry(explorer: Explorer, model: str, source: str) -> LibraryEntry:
    return await run_in_threadpool(entry_of, explorer, model, source)


async def _answer(explorer: Explorer, asked: LiveRequest) -> dict[str, Any]:
    """The answer, however long it takes within the limits: these routes have no second address.

    Raises:
        WebError: it failed, or is still being loaded after the longest time of a request.
    """
    call = explorer.live.submit(asked)
    if not await call.wait(explorer.settings.inference_seconds):
        hint = f"Ask /api/sae/calls/{call.id}, or again in a moment."
        raise WebError(504, "time_limit", f"The request is still {call.state}.", hint=hint)
    return call.result()


def _tokens(found: dict[str, Any]) -> list[str]:
    """Text of each token: of its piece at the first token of the piece, empty at the others, so that joined they are the text."""
    texts = [""] * len(found["token_ids"])
    for piece in found["pieces"]:
        texts[piece["start"]] = piece["text"]
    return texts


def _strongest(found: dict[str, Any], places: list[int], most: int) -> dict[int, float]:
    """Features with what they are sorted by: their largest activation, or the sum over chosen places."""
    if not places:
        return {one["feature"]: one["max"] for one in found["ranking"]}
    sums: dict[int, float] = {}
    for at in set(places):
        if at >= len(found["top"]):
            raise ConfigError(f"sortIndexes: there is no token {at}; the text has {len(found['top'])}.")
        for number, activation, _ in found["top"][at]:
            sums[number] = sums.get(number, 0.0) + activation
    return dict(sorted(sums.items(), key=lambda pair: -pair[1])[:most])


def _neurons(explorer: Explorer, entry: LibraryEntry, numbers: list[int]) -> dict[int, dict[str, Any]]:
    """What is known of features, short; nothing for an SAE without an analysis."""
    if not numbers or not explorer.analyses(entry):
        return {}
    analysed = explorer.analysed(entry.id)
    return {number: _neuron(entry, analysed, number) for number in numbers}


def _neuron(entry: LibraryEntry, analysed: Analysed, number: int) -> dict[str, Any]:
    record, names = analysed.store.feature(number), names_of(entry)
    return {
        "modelId": names.model,
        "layer": names.source,
        "index": str(number),
        "sourceSetName": names.source_set,
        "maxActApprox": float(record.row["max"] or 0.0),
        "frac_nonzero": float(record.row["density"]),
        "explanations": [{"description": record.label, "explanationModelName": None}] if record.label else [],
    }


def _explained(entry: LibraryEntry, row: dict[str, Any]) -> dict[str, Any]:
    names = names_of(entry)
    return {
        "modelId": names.model,
        "layer": names.source,
        "index": str(row["feature"]),
        "description": row["label"] or row["top_token_text"] or "",
        "explanationModelName": None,
        "typeName": None,
        "neuron": {
            "modelId": names.model,
            "layer": names.source,
            "index": str(row["feature"]),
            "maxActApprox": float(row["max"] or 0.0),
            "frac_nonzero": float(row["density"]),
        },
    }
