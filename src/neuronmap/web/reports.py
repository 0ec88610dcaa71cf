"""Reports of the abstraction tracker that are open: the record, and the plots of it that were asked for."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import TYPE_CHECKING

from neuronmap.errors import NotInLibraryError
from neuronmap.hub.reports import list_reports, open_report
from neuronmap.paths import public_name
from neuronmap.web.errors import WebError

if TYPE_CHECKING:
    from neuronmap.abstraction.plots import PlotData
    from neuronmap.abstraction.record import ConceptResult, LayerSimilarity, TrackingReport, Trajectory

__all__ = ["OpenReport", "OpenReports"]

_OPEN_AT_MOST = 6


class OpenReport:
    """One report.

    Attributes:
        name: its name.
        report: the record.
    """

    def __init__(self, name: str, report: TrackingReport) -> None:
        self.name, self.report = name, report
        self._plots: dict[str, list[PlotData]] = {}

    def concept(self, name: str) -> ConceptResult:
        """One of its concepts.

        Raises:
            WebError: 404, with the names that are there.
        """
        for one in self.report.concepts:
            if one.concept["name"] == name:
                return one
        names = ", ".join(str(one.concept["name"]) for one in self.report.concepts) or "none"
        raise WebError(404, "not_found", f"Report '{self.name}' has no concept '{name}'.", hint=f"It has {names}.")

    def prompt(self, number: int) -> Trajectory:
        """One of its prompts, counted from 0.

        Raises:
            WebError: 404, with how many there are.
        """
        there = len(self.report.trajectories)
        if not 0 <= number < there:
            has = f"It has {there}, counted from 0." if there else "It follows none."
            raise WebError(404, "not_found", f"Report '{self.name}' has no prompt {number}.", hint=has)
        return self.report.trajectories[number]

    def plots(self, part: str, which: str = "") -> list[PlotData]:
        """The plots of one part; made once.

        Args:
            part: concept, prompt, layers, between, flow or complexity.
            which: name of the concept, or number of the prompt.
        """
        key = f"{part} {which}"
        if key not in self._plots:
            self._plots[key] = self._made(part, which)
        return self._plots[key]

    def plot(self, name: str) -> PlotData:
        """A plot by its name.

        Raises:
            WebError: 404, with the names that are there.
        """
        known = []
        for part, which in self._parts():
            for one in self.plots(part, which):
                if one.name == name:
                    return one
                known.append(one.name)
        some = ", ".join(known[:20]) or "none"
        raise WebError(404, "not_found", f"Report '{self.name}' has no plot '{name}'.", hint=f"It has {some}.")

    def _parts(self) -> Iterator[tuple[str, str]]:
        yield from (("concept", str(one.concept["name"])) for one in self.report.concepts)
        yield from (("prompt", str(number)) for number in range(len(self.report.trajectories)))
        yield from ((part, "") for part in ("layers", "between", "complexity", "flow"))

    def _made(self, part: str, which: str) -> list[PlotData]:
        from neuronmap.abstraction import plots

        report, seed = self.report, self.report.settings.get("seed")
        if part == "concept":
            return plots.concept_plots(report, which)
        if part == "prompt":
            return plots.trajectory_plots(self.prompt(int(which)), report, int(which))
        compared = {"layers": report.similarity, "between": report.between}.get(part)
        if compared is not None:
            return plots.similarity_plots(compared, seed=seed, model=str(report.model["name"]))
        if part == "flow" and report.flow is not None:
            return [plots.flow_plot(report.flow, seed=seed)]
        return [plots.complexity_plot(report)] if part == "complexity" and report.concepts else []


class OpenReports:
    """The reports that were looked at last; one that was replaced is read again. May be used by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: OrderedDict[tuple[str, int, int], OpenReport] = OrderedDict()

    def get(self, name: str) -> OpenReport:
        """A report by its name.

        Raises:
            NotInLibraryError: there is none of that name.
            DamagedError: it cannot be read.
        """
        entry = next((one for one in list_reports() if one.name == name), None)
        if entry is None:
            raise NotInLibraryError(f"There is no report '{name}'.", hint="The page of concepts lists the reports.")
        try:
            about = (entry.path / "report.json").stat()
        except FileNotFoundError:
            return OpenReport(name, _public(open_report(name)))  # says what is wrong with it
        key = (name, about.st_mtime_ns, about.st_size)
        with self._lock:
            if key in self._open:
                self._open.move_to_end(key)
                return self._open[key]
        made = OpenReport(name, _public(open_report(name)))
        with self._lock:
            self._open[key] = made
            while len(self._open) > _OPEN_AT_MOST:
                self._open.popitem(last=False)
        return made


def _public(report: TrackingReport) -> TrackingReport:
    """As others may read it: a path on this machine is its last part."""
    changes: dict[str, object] = {"model": {**report.model, "name": public_name(report.model.get("name"))}}
    for name in ("similarity", "between"):
        found: LayerSimilarity | None = getattr(report, name)
        if found is not None:
            other = public_name(found.other_model) if found.other_model is not None else None
            changes[name] = found.model_copy(update={"text": public_name(found.text), "other_model": other})
    return report.model_copy(update=changes)
