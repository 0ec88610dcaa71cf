"""What the SAE of the journeys has in it, asked of its server, and the addresses of its pages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from tests.e2e.explorer.serving import SAE, Server

TEXT = "My fellow citizens, the state of our union is strong, and the war is over."


@dataclass(frozen=True)
class Known:
    """Features to look at.

    Attributes:
        token: the record of a feature that fires on one token.
        other: another one, whose label few share.
        dead: number of a feature that never fired.
        job: id of the training.
        run: its run.
    """

    token: dict[str, Any]
    other: dict[str, Any]
    dead: int
    job: str
    run: str

    @property
    def feature(self) -> int:
        return int(self.token["feature"])

    @property
    def near(self) -> int:
        return int(self.other["feature"])

    def pages(self) -> dict[str, str]:
        """Address of every page, by name."""
        sae, text = f"/sae/{SAE}/-", {"sae": SAE, "text": TEXT}
        steer = {"feature": self.feature, "prompt": "I think that", "max_tokens": 8, "value": "1"}
        return {
            "home": "/",
            "SAE": f"/sae/{SAE}",
            "features": f"{sae}/features?class=token&density_min=0.0001",
            "cards": f"{sae}/cards",
            "feature": f"{sae}/feature/{self.feature}",
            "similarity": f"{sae}/similarity?feature={self.feature}&min=0.1",
            "compare features": f"{sae}/compare?f={self.feature}&f={self.near}",
            "compare SAEs": f"/compare?a={SAE}",
            "leaderboard": "/leaderboard",
            "examples": "/examples?text=war",
            "search": "/search?q=war",
            "text": f"/text?{urlencode({**text, 'token': 3})}",
            "steer": f"{sae}/steer?{urlencode(steer)}",
            "labels": f"{sae}/labels",
            "lists": "/labels/lists",
            "blind": f"{sae}/labels/blind",
            "judged": f"{sae}/labels/results",
            "analyse": f"{sae}/analyze",
            "concepts": "/concepts",
            "train": "/train",
            "jobs": "/jobs",
            "job": f"/jobs/{self.job}",
            "runs": f"/runs?run={quote(self.run)}",
            "dead feature": f"{sae}/feature/{self.dead}",
            "about": "/about",
            "api": "/api",
        }


def known_of(server: Server) -> Known:
    """Ask the server."""

    def features(**query: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = server.get(f"/api/sae/features?{urlencode({'sae': SAE, **query})}")["features"]
        return found

    first, *others = features(where="class=token", sort="-density", limit=100)
    labels = [one["label"] for one in (first, *others)]
    second = min(others, key=lambda one: sum(one["label"] in label for label in labels))
    (dead,) = features(where="status=never", limit=1)
    (training,) = [job for job in server.get("/api/jobs")["jobs"] if job["kind"] == "train"]
    return Known(first, second, dead["feature"], training["id"], training["run"])
