"""Take the pictures of the explorer again: ``python docs/screenshots.py`` (``make screenshots``).

Needs chromium, and the demo's SAE analysed in the library: ``neuronmap demo``, then ``neuronmap sae analyze demo``.
A copy of that SAE is served from a home of its own. There concepts are tracked first, and a small training runs meanwhile; nothing of the
user's is changed.

build/screenshots/       the main pages, wide and phone, light and dark, and a sheet of each kind to look at
docs/images/explorer/    those that the documentation shows
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from neuronmap import SAEModelHub, paths
from neuronmap.errors import NotInLibraryError

ROOT = Path(__file__).resolve().parents[1]
ALL, SHOWN = ROOT / "build" / "screenshots", ROOT / "docs" / "images" / "explorer"
SAE = "demo"
TEXT = (
    "Fellow citizens: the treaty with the Indian tribes was signed in 1826, and the same report of the Secretary of War "
    "will be laid before Congress. Great Britain has never been a better friend of our commerce."
)
WIDE: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}, "device_scale_factor": 1.5}
PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "is_mobile": True, "has_touch": True,
}  # fmt: skip
TALL = {"feature": 1260, "concept": 1000}
"""Heights of wide windows other than the usual."""
IN_DOCS = (
    "sae-wide-light", "features-wide-light", "feature-wide-light", "text-wide-light", "similarity-wide-dark", "training-wide-light",
    "cards-phone-light", "feature-phone-dark", "report-wide-light", "concept-wide-light", "prompt-wide-light", "layers-wide-dark",
)  # fmt: skip
LARGEST_BYTES = 400_000
TRAINING = {
    "model_name": "smollm2-135m", "layer": "15", "hidden_dim": "1024", "k": "16", "corpus": "sotu", "max_tokens": "20000",
    "context_length": "128", "num_epochs": "1000", "eval_every_steps": "100", "heldout_tokens": "2048", "name": "first-look",
    "skip_special": "on",
}  # fmt: skip

TRACKING = {
    "model": "smollm2-135m", "concepts": ["grammatical_number", "syntactic_role", "tense"], "preset": "quick", "name": "first-look",
    "prompts": ["People say the keys near the cabinet probably"],
}  # fmt: skip


def main() -> None:
    try:
        entry = SAEModelHub().get(SAE)
    except NotInLibraryError:
        sys.exit(f"The library has no SAE '{SAE}'. Type: neuronmap demo")
    if not any((entry.path / "analyses").glob("*")):
        sys.exit(f"'{SAE}' has not been analysed. Type: neuronmap sae analyze {SAE}")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("chromium is needed.")
    shutil.rmtree(ALL, ignore_errors=True)
    ALL.mkdir(parents=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(Path(folder), entry.path) as address,
        sync_playwright() as player,
    ):
        track_concepts(address)
        job = start_training(address)
        browser = player.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name, path in pages(address, job).items():
            for kind in ("wide", "phone"):
                for scheme in ("light", "dark"):
                    take(browser, address, path, f"{name}-{kind}-{scheme}")
            sys.stdout.write(f"{name}\n")
        browser.close()
    sheets()
    shutil.rmtree(SHOWN, ignore_errors=True)
    SHOWN.mkdir(parents=True)
    for name in IN_DOCS:
        shutil.copy(ALL / f"{name}.png", SHOWN / f"{name}.png")
    sys.stdout.write(
        f"{len(IN_DOCS)} in docs/images/explorer, {sum(file.stat().st_size for file in SHOWN.iterdir()):,} bytes\n"
    )


@contextmanager
def serving(home: Path, bundle: Path) -> Iterator[str]:
    """A server whose home has a copy of the demo's SAE; what is cached is shared."""
    shutil.copytree(bundle, home / "library" / SAE)
    paths.home().joinpath("cache").mkdir(exist_ok=True)
    (home / "cache").symlink_to(paths.home() / "cache", target_is_directory=True)
    command = [sys.executable, "-m", "neuronmap", "serve", "--port", "0"]
    log = home / "server.log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env={**os.environ, "NEURONMAP_HOME": str(home)})
    try:
        while not (found := re.search(r"http://localhost:\d+", log.read_text())):
            if process.poll() is not None:
                sys.exit(f"The server ended:\n{log.read_text()}")
            time.sleep(0.1)
        yield found[0]
    finally:
        process.terminate()
        process.wait(60)


def track_concepts(address: str) -> None:
    """Track some concepts and wait for the report; what is measured stays in the cache for the next time."""
    request = urllib.request.Request(
        f"{address}/api/sae/track_abstractions", json.dumps(TRACKING).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        job = json.load(answer)["id"]
    until = time.monotonic() + 1200
    while time.monotonic() < until:
        found = get(f"{address}/api/jobs/{job}")
        if found["state"] == "finished":
            return
        if found["state"] not in ("queued", "running"):
            sys.exit(f"The tracking ended: {found['error']}")
        time.sleep(1)
    sys.exit("The tracking did not end within twenty minutes.")


def start_training(address: str) -> str:
    """Start a training, and wait until its curves can be seen.

    Returns:
        The address of its page.
    """
    body = urllib.parse.urlencode(TRAINING).encode()
    with urllib.request.urlopen(f"{address}/train", body) as answer:
        path = urllib.parse.urlsplit(answer.url).path
    until = time.monotonic() + 600
    while time.monotonic() < until:
        page = get(f"{address}{path}.json")
        if page["job"]["state"] not in ("queued", "running"):
            sys.exit(f"The training ended: {page['job']['error']}")
        if page["monitor"] and page["monitor"]["step"] > 500:
            return path
        time.sleep(1)
    sys.exit("The training did not begin within ten minutes.")


def pages(address: str, job: str) -> dict[str, str]:
    """The main pages."""
    asked = {"sae": SAE, "where": ["class=tokens", "density>=0.0005"], "sort": "-f1", "limit": 1}
    found = get(f"{address}/api/sae/features?{urllib.parse.urlencode(asked, doseq=True)}")["features"]
    feature = found[0]["feature"]
    sae = f"/sae/{SAE}/-"
    strongest = get(f"{address}/api/sae/features?sae={SAE}&sort=-nearest_cosine&where=density%3E=0.001&limit=1")[
        "features"
    ]
    text = urllib.parse.urlencode({"sae": SAE, "text": TEXT, "feature": feature, "token": 8})
    steer = urllib.parse.urlencode(
        {"feature": feature, "prompt": "The president spoke about the", "value": 1.5, "max_tokens": 32}
    )
    return {
        "home": "/",
        "sae": f"/sae/{SAE}",
        "features": f"{sae}/features?class=tokens&density_min=0.0005&sort=-f1",
        "cards": f"{sae}/cards?class=tokens&density_min=0.0005&sort=-f1",
        "feature": f"{sae}/feature/{feature}",
        "similarity": f"{sae}/similarity?feature={strongest[0]['feature']}",
        "examples": "/examples?text=treaty&kind=top",
        "text": f"/text?{text}",
        "steer": f"{sae}/steer?{steer}",
        "training": job,
        "report": "/concepts/first-look",
        "concept": "/concepts/first-look/concept/grammatical_number:subject",
        "prompt": "/concepts/first-look/prompt/0?concept=grammatical_number:subject",
        "layers": "/concepts/first-look/layers",
    }


def take(browser: Browser, address: str, path: str, name: str) -> None:
    """One picture of what is first seen of a page."""
    what, kind, scheme = name.rsplit("-", 2)
    context = browser.new_context(**(WIDE if kind == "wide" else PHONE), color_scheme=scheme, base_url=address)
    page = context.new_page()
    if kind == "wide" and what in TALL:
        page.set_viewport_size({"width": WIDE["viewport"]["width"], "height": TALL[what]})
    page.goto(path)
    settle(page)
    file = ALL / f"{name}.png"
    page.screenshot(path=file)
    context.close()
    with Image.open(file) as picture:
        picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(file, optimize=True)
    if file.stat().st_size > LARGEST_BYTES:
        sys.exit(f"{name} has {file.stat().st_size:,} bytes; at most {LARGEST_BYTES:,} are allowed.")


def settle(page: Page) -> None:
    """Until what is asked of a model, or read in, is there."""
    expect(page.locator("[aria-busy=true], .note[hx-get]")).to_have_count(0, timeout=180_000)
    for picture in page.locator("[data-when=seen]").all():
        if picture.is_visible():
            picture.scroll_into_view_if_needed()
            expect(picture.locator(".main-svg").first).to_be_visible()
    page.evaluate("() => scrollTo(0, 0)")
    if page.locator("#link").count():
        expect(page.locator("#link")).to_have_text("Live.", timeout=60_000)
        page.wait_for_timeout(1500)


def sheets() -> None:
    """All pictures of a kind beside each other, to be looked at."""
    for kind, wide in (("wide", 960), ("phone", 390)):
        for scheme in ("light", "dark"):
            files = sorted(ALL.glob(f"*-{kind}-{scheme}.png"))
            shown = [Image.open(file).convert("RGB") for file in files]
            shown = [one.resize((wide, wide * one.height // one.width)) for one in shown]
            across = 2 if kind == "wide" else 5
            tall = max(one.height for one in shown)
            sheet = Image.new("RGB", (across * (wide + 8), -(-len(shown) // across) * (tall + 8)), "#888")
            for at, one in enumerate(shown):
                sheet.paste(one, (at % across * (wide + 8), at // across * (tall + 8)))
            sheet.save(ALL / f"sheet-{kind}-{scheme}.png")


def get(address: str) -> Any:
    with urllib.request.urlopen(address, timeout=60) as answer:
        return json.load(answer)


if __name__ == "__main__":
    main()
