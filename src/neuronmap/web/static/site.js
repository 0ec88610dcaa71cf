// The list of an exported site: a search box over all exported features. The rows in the page are there without it.
"use strict";
(() => {
  const box = document.getElementById("find"), rows = document.getElementById("rows");
  const found = document.getElementById("found"), pages = document.getElementById("pages");
  const first = [...rows.children];
  let all = null;
  const percent = (share) => (share === 0 ? "0 %" : `${Number((100 * share).toPrecision(3))} %`);
  const cell = (text, kind) => { const made = document.createElement("td"); made.textContent = text; if (kind) made.className = kind; return made; };
  const row = ([number, label, kind, density, largest, token]) => {
    const made = document.createElement("tr"), link = document.createElement("a"), at = cell("", "num");
    link.href = `feature/${number}.html`;
    link.textContent = number;
    at.append(link);
    made.append(at, cell(label || "no label"), cell(kind), cell(percent(density), "num"), cell(largest === null ? "–" : largest.toPrecision(3), "num"), cell(token));
    return made;
  };
  box.addEventListener("input", async () => {
    all ??= await (await fetch("features.json")).json();
    const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    if (!words.length) { rows.replaceChildren(...first); found.textContent = ""; if (pages) pages.hidden = false; return; }
    const hits = all.filter(([number, label, kind, , , token]) => words.every((word) => String(number) === word || `${label}\n${kind}\n${token}`.toLowerCase().includes(word)));
    rows.replaceChildren(...hits.slice(0, 400).map(row));
    found.textContent = `${hits.length} features${hits.length > 400 ? ", the first 400 are shown" : ""}`;
    if (pages) pages.hidden = true;
  });
})();
