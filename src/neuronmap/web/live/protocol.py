"""What the server may ask of the process that runs models, and what it answers: plain JSON, checked on both sides.

One JSON document a line. The server sends

    {"id": "...", "operation": "text", "request": {...}}        {"cancel": "..."}

and the child sends `{"ready": true}` once, then for each request any number of the first two and one of the others:

    {"id": "...", "state": "loading" | "running"}               {"id": "...", "progress": {"title", "done", "total", "unit"}}
    {"id": "...", "answer": {...}, "memory": bytes}             {"id": "...", "error": {"code", "message", "hint"}}

Anything else on the child's side goes to stderr.
"""

from __future__ import annotations

from neuronmap.web.live.answers import (
    ActivationAnswer,
    Answer,
    EffectsAnswer,
    EmbedAnswer,
    MeaningAnswer,
    PlanAnswer,
    SteerAnswer,
    TextAnswer,
    WarmAnswer,
)
from neuronmap.web.live.requests import (
    ActivationRequest,
    AnyRequest,
    EffectsRequest,
    EmbedRequest,
    LabelMeaningRequest,
    MeaningRequest,
    PlanRequest,
    SteerRequest,
    TextRequest,
    WarmRequest,
)

__all__ = ["ANSWERS", "REQUESTS"]

ANSWERS: dict[str, type[Answer]] = {
    "text": TextAnswer,
    "steer": SteerAnswer,
    "effects": EffectsAnswer,
    "warm": WarmAnswer,
    "activation": ActivationAnswer,
    "plan": PlanAnswer,
    "embed": EmbedAnswer,
    "meaning": MeaningAnswer,
    "label_meaning": MeaningAnswer,
}
REQUESTS: dict[str, type[AnyRequest]] = {
    request.operation: request
    for request in (
        TextRequest,
        SteerRequest,
        EffectsRequest,
        WarmRequest,
        ActivationRequest,
        PlanRequest,
        EmbedRequest,
        MeaningRequest,
        LabelMeaningRequest,
    )
}
