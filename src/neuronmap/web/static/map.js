// The map of features: Plotly comes when the map comes into view; a click goes to the feature.
"use strict";
const mapBox = document.getElementById("plot-map");
const mapState = mapBox?.querySelector("[data-state]");
const SHAPES = ["circle", "square", "diamond", "triangle-up", "cross", "x", "triangle-down", "pentagon", "star", "hexagon"];
const HUES = ["--s0", "--s1", "--s2", "--s3", "--s4", "--s5"];
let mapData = null, mapDrawn = false;

function mapTraces(data, colour) {
  const said = (at) => `${data.feature[at]}: ${escaped(data.label[at] || "no label")}<br>density ${(100 * data.density[at]).toPrecision(2)} %, ${data.classes[data.firing_class[at]]}`
    + (data.cluster[at] >= 0 ? `<br>group: ${escaped(data.clusters[data.cluster[at]] || String(data.cluster[at]))}` : "");
  const trace = (rows, marker, name) => ({
    type: "scatter", mode: "markers", name, x: rows.map((at) => data.x[at]), y: rows.map((at) => data.y[at]),
    customdata: rows.map((at) => data.feature[at]), text: rows.map(said), hovertemplate: "%{text}<extra></extra>",
    marker: { size: 6, opacity: .8, line: { width: 0 }, ...marker },
  });
  const all = data.feature.map((_, at) => at);
  if (colour === "class") {
    return data.classes.map((name, number) => trace(all.filter((at) => data.firing_class[at] === number),
      { color: plotColour(HUES[number % HUES.length]), symbol: SHAPES[number % SHAPES.length] }, name));
  }
  if (colour === "cluster") {
    return [
      trace(all.filter((at) => data.cluster[at] < 0), { color: plotColour("--never"), opacity: .35, size: 4 }, "in no group"),
      ...HUES.map((hue, number) => trace(all.filter((at) => data.cluster[at] >= 0 && data.cluster[at] % HUES.length === number),
        { color: plotColour(hue), symbol: SHAPES[number] }, "groups")),
    ];
  }
  // one trace a decade: a colour bar of Plotly's sets inline styles, which our policy refuses
  const ramp = isDark() ? ["#6b4720", "#95602a", "#c27a2f", "#f0943a", "#ffc07f", "#ffe9cf"] : ["#efc592", "#e3a25c", "#d58129", "#ad5a05", "#7e3f00", "#4a2300"];
  const decade = (at) => Math.max(-6, Math.min(-1, Math.ceil(Math.log10(data.density[at]) - 1e-9) - 1));
  const percent = (power) => `${+(100 * 10 ** power).toPrecision(1)} %`;
  return [-6, -5, -4, -3, -2, -1]
    .map((power, number) => trace(all.filter((at) => decade(at) === power), { color: ramp[number] }, power === -6 ? `up to ${percent(-5)}` : `over ${percent(power)}`))
    .filter((one) => one.x.length);
}

function escaped(text) { return text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;"); }

async function drawMap() {
  try {
    mapState.textContent = "Loading the map …";
    const [Plotly, answer] = await Promise.all([openPlotly(), mapData || fetch(mapBox.dataset.source)]);
    if (!mapData) {
      if (!answer.ok) throw new Error((await answer.json()).error.message);
      mapData = await answer.json();
    }
    const bare = { showgrid: false, zeroline: false, showline: false, showticklabels: false, ticks: "" };
    const layout = plotLook({
      xaxis: { ...bare }, yaxis: { ...bare, scaleanchor: "x" }, margin: { l: 8, r: 8, t: 34, b: 8 }, hovermode: "closest",
      showlegend: mapBox.dataset.colour !== "cluster", legend: { itemsizing: "constant", ...(mapBox.clientWidth < 600 ? { orientation: "h", x: 0, y: 0, yanchor: "top" } : {}) }, dragmode: "pan",
    });
    await Plotly.react(mapBox, mapTraces(mapData, mapBox.dataset.colour), layout, { ...plotBars, scrollZoom: false });
    if (!mapDrawn) {
      mapBox.on("plotly_click", (event) => {
        const end = mapBox.dataset.end ?? `?analysis=${encodeURIComponent(mapBox.dataset.analysis)}`; // a file's, in an exported site
        location.href = `${mapBox.dataset.feature}${event.points[0].customdata}${end}`;
      });
      mapDrawn = true;
    }
    const shown = mapData.feature.length;
    mapState.textContent = shown < mapData.total ? `${shown.toLocaleString()} of ${mapData.total.toLocaleString()} features, drawn at random.` : `${shown.toLocaleString()} features.`;
    mapBox.after(mapState);
  } catch (fault) {
    mapState.textContent = `The map cannot be shown: ${fault.message} The groups below lead to the same features.`;
  }
}

if (mapBox) {
  new IntersectionObserver((entries, watcher) => {
    if (entries.some((entry) => entry.isIntersecting)) { watcher.disconnect(); drawMap(); }
  }, { rootMargin: "200px" }).observe(mapBox);
  document.addEventListener("theme", () => { if (mapDrawn) drawMap(); });
  for (const chosen of document.querySelectorAll("a[data-colour]")) {
    chosen.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      mapBox.dataset.colour = chosen.dataset.colour;
      history.replaceState(null, "", chosen.href);
      for (const other of document.querySelectorAll("a[data-colour]")) other.removeAttribute("aria-current");
      chosen.setAttribute("aria-current", "true");
      drawMap();
    });
  }
}
