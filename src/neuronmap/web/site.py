"""The explorer of one SAE as plain files: the same pages, with links between files, for any web server that knows nothing of us.

    <folder>/index.html              the SAE
            features.html            all exported features, a few hundred a page: features-2.html, ...
            feature/N.html           one feature; N.json has its numbers; N-quantile.html ... the other tabs
            plot/NAME.csv            data of the plots
            static/...               style and scripts
            map.json                 the map of the exported features
            features.json            what the search box of the pages looks through

What needs a server (texts, steering, jobs, other SAEs) is not in it: forms and links that lead there are taken out of the pages.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

from starlette.applications import Starlette

from neuronmap import paths
from neuronmap.errors import AlreadyExistsError, InputError
from neuronmap.progress import Progress
from neuronmap.web.explorer import Analysed
from neuronmap.web.fetch import Fetched, fetch
from neuronmap.web.rendering import sae_path

__all__ = ["SiteChoice", "export_site"]

_PAGE_BYTES = 120_000
"""Of a feature's page with its numbers, on the high side; to refuse a full disk early."""
_ROWS = 400
"""Features on one page of the list."""
_KEPT_PLOTS = ("density", "l0", "l0-position", "explained-position")
_VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
_SCRIPT = "site.js"


@dataclass(frozen=True)
class SiteChoice:
    """What is exported.

    Attributes:
        features: numbers, in the order of the list.
        tabs: kinds of examples that get a page beside the strongest ones.
    """

    features: Sequence[int]
    tabs: Sequence[str] = ()


@dataclass
class _Map:
    """Addresses of the server and the files that they become."""

    sae: str
    choice: SiteChoice
    analysis: str
    known: set[int] = field(init=False)

    def __post_init__(self) -> None:
        self.known = set(self.choice.features)

    def file_of(self, address: str) -> str | None:
        """The file of an address; None for what is not exported."""
        parts = urlsplit(address)
        if parts.scheme or parts.netloc:
            return address if parts.scheme == "https" else None
        path, query = unquote(parts.path), parse_qs(parts.query)
        tail = f"#{parts.fragment}" if parts.fragment else ""
        if not path:
            return tail or None
        found = self._file(path, query)
        return None if found is None else found + tail

    def _file(self, path: str, query: dict[str, list[str]]) -> str | None:
        if path.startswith("/static/"):
            return f"static/{PurePosixPath(path).name}"
        start = f"/sae/{self.sae}"
        if query.pop("analysis", [self.analysis]) != [self.analysis]:
            return None
        if path == start:
            return "index.html"
        if path == "/":
            return "index.html"
        if not path.startswith(f"{start}/-/"):
            return None
        rest = path.removeprefix(f"{start}/-/").split("/")
        if rest == ["features"] and not query:
            return "features.html"
        if rest[0] == "plot" and len(rest) == 2 and rest[1].removesuffix(".csv") in _KEPT_PLOTS:
            return f"plot/{rest[1]}"
        if rest[0] == "feature" and len(rest) == 2:
            return self._feature(rest[1], query)
        return None

    def _feature(self, name: str, query: dict[str, list[str]]) -> str | None:
        number = name.removesuffix(".json")
        if not number.isdecimal() or int(number) not in self.known:
            return None
        if name.endswith(".json"):
            return f"feature/{name}" if not query else None
        tab = query.pop("tab", [""])[0]
        if query or (tab and tab not in self.choice.tabs):
            return None
        return f"feature/{number}-{tab}.html" if tab else f"feature/{number}.html"


async def export_site(
    app: Starlette,
    analysed: Analysed,
    choice: SiteChoice,
    folder: Path,
    *,
    replace: bool = False,
    progress: Progress,
) -> int:
    """Write the site; the folder is whole or not there.

    Args:
        app: the application that makes the pages.
        analysed: the SAE and its analysis.
        choice: what is exported.
        folder: where to; must not exist, unless ``replace``.
        replace: take the place of a site that lies there.
        progress: where the bar goes.

    Returns:
        Bytes written.

    Raises:
        AlreadyExistsError: the folder is there; with ``replace``, it is there and no site of ours.
        InputError: no feature was chosen.
        UnwritablePathError, DiskSpaceError.
    """
    if not choice.features:
        raise InputError("No feature fits the choice, so there is nothing to export.", hint="Loosen the conditions.")
    if folder.exists() and (not replace or not (folder / "features.json").is_file()):
        raise AlreadyExistsError(
            f"{folder} exists{' and is no site of ours' if replace else ''}.",
            hint="Choose another folder." if replace else "Choose another folder, or give --replace.",
        )
    target = folder.resolve()
    pages = len(choice.features) * (1 + len(choice.tabs))
    paths.check_disk_space(target.parent, pages * _PAGE_BYTES, "the site")
    made = target.with_name(f".{target.name}.{uuid.uuid4().hex}") if target.exists() else target
    with paths.staging_folder(made) as staging:
        written = await _Writer(app, analysed, choice, staging, progress).write()
    if made != target:
        paths.replace_folder(made, target)
    return written


class _Writer:
    def __init__(
        self, app: Starlette, analysed: Analysed, choice: SiteChoice, folder: Path, progress: Progress
    ) -> None:
        self.app, self.analysed, self.choice, self.folder, self.progress = app, analysed, choice, folder, progress
        self.sae, self.analysis = analysed.entry.id, analysed.analysis.name
        self.map = _Map(self.sae, choice, self.analysis)
        self.written = 0

    async def write(self) -> int:
        for name in ("static", "feature", "plot"):
            (self.folder / name).mkdir(parents=True)
        self._static()
        await self._page("index.html", sae_path(self.sae, analysis=self.analysis))
        for name in _KEPT_PLOTS:
            address = sae_path(self.sae, "plot", f"{name}.csv", analysis=self.analysis)
            answer = await fetch(self.app, address, exported=True)
            if answer.status == 200:
                self._put(f"plot/{name}.csv", answer.body)
        await self._map_of_features()
        self._list()
        with self.progress.task("Writing pages", len(self.choice.features), "features") as task:
            for feature in self.choice.features:
                await self._feature(feature)
                task.advance(1)
        return self.written

    async def _feature(self, feature: int) -> None:
        address = sae_path(self.sae, "feature", feature, analysis=self.analysis)
        await self._page(f"feature/{feature}.html", address)
        document = await self._get(sae_path(self.sae, "feature", f"{feature}.json", analysis=self.analysis))
        self._put(f"feature/{feature}.json", document.body)
        for tab in self.choice.tabs:
            address = sae_path(self.sae, "feature", feature, analysis=self.analysis, tab=tab)
            await self._page(f"feature/{feature}-{tab}.html", address)

    async def _page(self, name: str, address: str) -> None:
        answer = await self._get(address)
        self._put(name, _rewritten(answer.body.decode(), name, self.map).encode())

    async def _get(self, address: str) -> Fetched:
        answer = await fetch(self.app, address, exported=True)
        if answer.status != 200:
            raise InputError(f"{address} was answered with status {answer.status}.")
        return answer

    async def _map_of_features(self) -> None:
        """The map's data, of the exported features, and Plotly's script."""
        answer = await fetch(self.app, f"/api/sae/map?{urlencode({'sae': self.sae, 'analysis': self.analysis})}")
        if answer.status != 200:
            return
        found: dict[str, Any] = json.loads(answer.body)
        kept = [at for at, feature in enumerate(found["feature"]) if feature in self.map.known]
        rows = len(found["feature"])
        own = {name: [values[at] for at in kept] for name, values in found.items() if _is_column(name, values, rows)}
        self._put("map.json", json.dumps({**found, **own, "total": len(kept)}, ensure_ascii=False).encode())
        self._put("static/plotly.js", (files("plotly") / "package_data" / "plotly.min.js").read_bytes())

    def _static(self) -> None:
        for file in (files("neuronmap.web") / "static").iterdir():
            if file.is_file():
                self._put(f"static/{file.name}", file.read_bytes())

    def _list(self) -> None:
        """The list of features: pages of a few hundred, and the same as data for the search box."""
        from neuronmap.web.rendering import environment

        columns = ["label", "class", "status", "density", "max", "top_token_text"]
        rows = list(self.analysed.store.queries.take(self.choice.features, columns))
        pages = -(-len(rows) // _ROWS)
        template = environment().get_template("site_features.html")
        for page in range(pages):
            name = "features.html" if page == 0 else f"features-{page + 1}.html"
            shown = rows[page * _ROWS : (page + 1) * _ROWS]
            text = template.render(sae=self.sae, rows=shown, page=page, pages=pages, total=len(rows))
            self._put(name, text.encode())
        short = [
            [
                row["feature"],
                row["label"] or "",
                row["class"] or "",
                row["density"],
                row["max"],
                row["top_token_text"] or "",
            ]
            for row in rows
        ]
        self._put("features.json", json.dumps(short, ensure_ascii=False).encode())

    def _put(self, name: str, content: bytes) -> None:
        (self.folder / name).write_bytes(content)
        self.written += len(content)


def _is_column(name: str, values: Any, rows: int) -> bool:
    """Whether a part of the map's data has an entry for each feature."""
    return name not in ("classes", "clusters") and isinstance(values, list) and len(values) == rows


def _rewritten(page: str, name: str, found: _Map) -> str:
    up = "../" * name.count("/")
    rewriter = _Rewriter(found, up)
    rewriter.feed(page)
    rewriter.close()
    return "".join(rewriter.out)


class _Rewriter(HTMLParser):
    """Copies a page: addresses become files, and what would need a server goes."""

    def __init__(self, found: _Map, up: str) -> None:
        super().__init__(convert_charrefs=False)
        self._map, self._up = found, up
        self.out: list[str] = []
        self._gone = 0  # depth inside an element that is left out
        self._links: list[str] = []  # what each open <a> became
        self._drawing = 0  # depth inside svg
        self._menus = 0  # depth inside the head of the page, tabs and the like

    def _address(self, value: str) -> str | None:
        file = self._map.file_of(value)
        if file is None or file.startswith(("#", "https:")):
            return file
        return self._up + file

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if self._gone:
            self._gone += tag not in _VOID
            return
        if tag == "form" or "hx-get" in given or "hx-post" in given or "data-server" in given:
            self._gone = int(tag not in _VOID)
            return
        if tag == "script" and "htmx" in (given.get("src") or ""):
            self._gone = 1
            return
        if "data-source" in given:  # the map of features
            given |= {
                "data-source": "map.json",
                "data-plotly": "static/plotly.js",
                "data-feature": "feature/",
                "data-end": ".html",
            }
            attrs = list(given.items())
        if tag == "a" and "data-colour" in given:
            given["href"] = "#map"
        if tag == "a":
            address = self._address(given.get("href") or "")
            if address is None:
                self._unlinked(given)
                return
            self._links.append("a")
            given["href"] = address
        self._drawing += tag == "svg"
        if self._menus or {"tabs", "switch"} & set((given.get("class") or "").split()) or tag == "header":
            self._menus += tag not in _VOID
        for key in ("href", "src"):
            if tag in ("link", "script", "img") and given.get(key):
                given[key] = self._address(str(given[key])) or ""
        if given.get("data-base") is not None:
            given["data-base"] = self._up or "."
        self._write(tag, [(key, given[key]) for key, _ in attrs if not key.startswith("hx-")])

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if not self._gone:
            self._write(tag, attrs, "/")

    def handle_endtag(self, tag: str) -> None:
        if self._gone:
            self._gone -= tag not in _VOID
            return
        self._drawing -= tag == "svg"
        if self._menus:
            self._menus -= 1
        if tag == "a" and self._links:
            tag = self._links.pop()
        self.out.append(f"</{tag}>")

    def _unlinked(self, given: dict[str, str | None]) -> None:
        """A link that leads to the server: its text stays, unless it is a button or an entry of a menu."""
        kind = set((given.get("class") or "").split())
        if self._drawing:
            self._links.append("g")
            self._write("g", [])
        elif kind & {"button", "csv", "chip"} or self._menus:
            self._gone = 1
        else:
            self._links.append("span")
            self._write("span", [(key, given[key]) for key in ("class", "title", "data-tip") if key in given])

    def _write(self, tag: str, attrs: Iterable[tuple[str, Any]], end: str = "") -> None:
        text = "".join(f" {key}" if value is None else f' {key}="{escape(str(value))}"' for key, value in attrs)
        self.out.append(f"<{tag}{text}{end}>")

    def handle_data(self, data: str) -> None:
        if not self._gone:
            self.out.append(data)

    def handle_entityref(self, name: str) -> None:
        self.handle_data(f"&{name};")

    def handle_charref(self, name: str) -> None:
        self.handle_data(f"&#{name};")

    def handle_decl(self, decl: str) -> None:
        self.out.append(f"<!{decl}>")
