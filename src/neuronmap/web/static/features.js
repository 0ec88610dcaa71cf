// Feature table, cards and feature page: shorter addresses, the scatter, the tray of features to compare.
"use strict";

// --- the form over the table: what is empty or usual does not stand in the address
document.querySelector("[data-filters]")?.addEventListener("submit", (event) => {
  const form = event.target, boxes = [...form.querySelectorAll("[name=columns]")];
  const usual = boxes.every((box) => box.checked === box.hasAttribute("data-default"));
  const idle = [...form.elements].filter((field) => field.name && field.value === "");
  if (!form.elements.column.value || !form.elements.value.value) idle.push(form.elements.column, form.elements.op, form.elements.value);
  if (form.elements.sort.value === "feature") idle.push(form.elements.sort);
  if (usual) idle.push(...boxes);
  for (const field of idle) field.disabled = true;
  setTimeout(() => { for (const field of idle) field.disabled = false; });
});
addEventListener("pageshow", () => { for (const field of document.querySelectorAll("[data-filters] :disabled")) field.disabled = false; });

// --- density against largest activation
const scatterPanel = document.querySelector("[data-scatter]");
scatterPanel?.addEventListener("toggle", async () => {
  if (!scatterPanel.open || scatterPanel.dataset.drawn) return;
  scatterPanel.dataset.drawn = "1";
  const place = scatterPanel.querySelector(".plotly"), said = scatterPanel.querySelector("[data-said]");
  said.textContent = "Loading…";
  try {
    const [Plotly, data] = await Promise.all([openPlotly(), fetch(scatterPanel.dataset.scatter).then((answer) => answer.ok ? answer.json() : Promise.reject(new Error("The points could not be loaded.")))]);
    await drawScatter(Plotly, place, data);
    const points = data.features.length.toLocaleString("en");
    said.textContent = data.sampled ? `${points} points, a sample of the ${data.total.toLocaleString("en")} features that fired; a box keeps all features inside it, also those not drawn.` : `${points} features that fired.`;
  } catch (error) {
    delete scatterPanel.dataset.drawn;
    said.textContent = `${error.message} Close and open the panel to try again.`;
  }
});
const bounds = () => new URLSearchParams(location.search);
async function drawScatter(Plotly, place, data) {
  const colours = ["--s1", "--s0", "--s3", "--never"], symbols = ["circle", "diamond", "square", "x"];
  const look = () => plotLook({
    dragmode: "select", showlegend: true, legend: { orientation: "h", y: 1.12, font: { size: 12 } },
    xaxis: { type: "log", title: { text: "density, share of tokens" }, tickformat: "~g", nticks: 8 },
    yaxis: { type: "log", title: { text: "largest activation" }, tickformat: "~g", dtick: "D2" }, selections: boxed(data),
  });
  const traces = data.statuses.map((name, number) => {
    const own = data.features.map((_, at) => at).filter((at) => data.status[at] === number);
    return {
      type: "scatter", mode: "markers", name, x: own.map((at) => data.density[at]), y: own.map((at) => data.max[at]), customdata: own.map((at) => data.features[at]),
      marker: { size: 5, symbol: symbols[number], opacity: .65, color: plotColour(colours[number]) }, hovertemplate: "feature %{customdata}<br>density %{x:.3g}<br>largest %{y:.3g}<extra></extra>",
    };
  }).filter((trace) => trace.x.length);
  await Plotly.newPlot(place, traces, look(), plotBars);
  place.on("plotly_click", (event) => { location.href = `${scatterPanel.dataset.feature}/${event.points[0].customdata}`; });
  place.on("plotly_selected", (event) => {
    if (!event?.range) return;
    const query = bounds(), [x, y] = [event.range.x, event.range.y].map((ends) => ends.slice().sort((a, b) => a - b));
    const set = (name, value) => query.set(name, String(Number(value.toPrecision(3))));
    set("density_min", x[0]); set("density_max", x[1]); set("max_min", y[0]); set("max_max", y[1]);
    query.delete("after");
    location.search = query;
  });
  document.addEventListener("theme", () => Plotly.relayout(place, look()));
}
/** The box of the filters that hold, to be seen and moved. */
function boxed(data) {
  const query = bounds(), given = ["density_min", "density_max", "max_min", "max_max"].map((name) => parseFloat(query.get(name)));
  if (given.every(Number.isNaN) || !data.density.length) return [];
  const whole = [Math.min(...data.density), Math.max(...data.density), Math.min(...data.max), Math.max(...data.max)];
  const [x0, x1, y0, y1] = given.map((value, at) => Number.isNaN(value) ? whole[at] : value);
  return [{ type: "rect", xref: "x", yref: "y", x0, x1, y0, y1, line: { color: plotColour("--ink"), width: 1, dash: "dot" } }];
}
if (scatterPanel && ["density_min", "density_max", "max_min", "max_max"].some((name) => bounds().get(name)) && bounds().get("brush") !== null) scatterPanel.open = true;

// --- features to compare: at most four of one SAE, kept in this browser
const MOST_COMPARED = 4;
const trayOf = (sae) => { try { return JSON.parse(localStorage.getItem(`compare:${sae}`)) || []; } catch { return []; } };
function keepTray(sae, features) { try { localStorage.setItem(`compare:${sae}`, JSON.stringify(features)); } catch { /* off */ } }
function showTray(sae) {
  let tray = document.getElementById("tray");
  const features = trayOf(sae);
  if (!features.length) { tray?.remove(); return; }
  if (!tray) {
    tray = Object.assign(document.createElement("div"), { id: "tray" });
    tray.setAttribute("role", "region");
    tray.setAttribute("aria-label", "Features to compare");
    document.querySelector("main").append(tray);
  }
  const path = `${base}/sae/${sae.split("/").map(encodeURIComponent).join("/")}/-`;
  const button = (text, act, label) => { const made = Object.assign(document.createElement("button"), { type: "button", className: "quiet", textContent: text }); made.setAttribute("aria-label", label); made.addEventListener("click", act); return made; };
  const open = Object.assign(document.createElement("a"), { className: "button", textContent: `Compare ${features.length}`, href: `${path}/compare?${features.map((feature) => `f=${feature}`).join("&")}` });
  tray.replaceChildren("To compare: ", ...features.map((feature) => button(`${feature} ×`, () => { keepTray(sae, features.filter((one) => one !== feature)); showTray(sae); }, `Take feature ${feature} out`)), open, button("Clear", () => { keepTray(sae, []); showTray(sae); }, "Clear the comparison"));
}
const comparing = document.querySelector("[data-compare]");
if (comparing) {
  const { compare, sae } = comparing.dataset;
  showTray(sae);
  comparing.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    const feature = Number(compare), features = trayOf(sae).filter((one) => one !== feature);
    keepTray(sae, [...features, feature].slice(-MOST_COMPARED));
    showTray(sae);
    say(`Feature ${feature} is in the comparison`);
  });
}
