"""Sweeps over HTTP: many SAEs on one stream, as one job."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from neuronmap.training.config import SAEConfig
from neuronmap.training.sweeping.config import SweepConfig
from neuronmap.web.api.jobs import SUBMITTED, Key, submitted
from neuronmap.web.errors import faults_inside, field_fault
from neuronmap.web.places import place_fault
from neuronmap.web.routing import ExplorerOf
from neuronmap.web.sources import named_model, named_text

__all__ = ["router"]

router = APIRouter(prefix="/api", tags=["jobs"])

_Settings = dict[str, Any]


class SweepRequest(BaseModel):
    """A sweep, as in a sweep file: settings of ``SAEConfig`` for all, lists to combine, SAEs written out."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "base": {
                        "model_name": "smollm2-135m",
                        "layer": 15,
                        "corpus": "sotu",
                        "hidden_dim": 4096,
                        "max_tokens": 200_000,
                        "name": "many-{architecture}-{k}",
                    },
                    "grid": {"architecture": ["topk", "batchtopk"], "k": [16, 32]},
                }
            ]
        }
    )

    base: _Settings = Field(
        description="Settings that are the same for all. `model_name` and `corpus` are names, never paths; `name` may hold other settings "
        "in braces.",
        max_length=100,
    )
    grid: dict[str, list[Any]] = Field(
        default_factory=dict, description="Lists of values by setting: every combination is an SAE.", max_length=50
    )
    member: list[_Settings] = Field(default_factory=list, description="Further SAEs, written out.", max_length=1000)
    evaluate: bool = Field(default=True, description="Evaluate each in the model when it is finished.")
    replace: bool = Field(default=False, description="Take the place of SAEs with the same names.")


@router.post(
    "/sae/sweep",
    status_code=202,
    response_class=JSONResponse,
    responses=SUBMITTED,
    summary="Train many SAEs on one stream",
)
def sweep(request: Request, explorer: ExplorerOf, body: SweepRequest, key: Key = None) -> Response:
    """Queue a sweep; each SAE lands in the library, evaluated. The page of the job, and its JSON, show how far each is."""
    base = dict(body.base)
    for table, fields in (("grid", body.grid), *(("member", one) for one in body.member)):
        for name in ("model_name", "corpus"):
            if name in fields:
                raise field_fault(
                    "body", table, name, message="it is the same for all SAEs of a sweep", hint="Give it in base."
                )
    if isinstance(base.get("model_name"), str):
        base["model_name"] = named_model(explorer, base["model_name"])
    if isinstance(base.get("corpus"), str):
        base["corpus"] = named_text(explorer, base["corpus"])
    with faults_inside("body"):
        config = SweepConfig(
            base=base, grid={name: tuple(values) for name, values in body.grid.items()}, member=tuple(body.member)
        )
    for member in config.members():
        _require_place(member)
    args = {"base": base, "grid": body.grid, "member": body.member, "evaluate": body.evaluate, "replace": body.replace}
    with faults_inside("body"):
        return submitted(explorer, request, "sweep", args, key)


def _require_place(member: SAEConfig) -> None:
    if (fault := place_fault(member.model_dump())) is not None:
        raise field_fault("body", "base", fault.field, message=fault.message, hint=fault.hint)
