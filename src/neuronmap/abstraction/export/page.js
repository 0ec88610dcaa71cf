"use strict";
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
function look(layout) {
  const axis = { gridcolor: colour("--line"), linecolor: colour("--line"), tickcolor: colour("--line") };
  const made = { ...layout, font: { family: "system-ui, sans-serif", size: 13, color: colour("--ink") }, modebar: { ...layout.modebar, color: colour("--soft"), activecolor: colour("--ink") }, hoverlabel: { bgcolor: colour("--box"), font: { color: colour("--ink") } } };
  for (const name of Object.keys(made)) if (/^[xy]axis\d*$/.test(name)) made[name] = { ...axis, ...made[name] };
  return made;
}
function draw(figure) {
  const box = figure.querySelector(".plot"), plot = JSON.parse(figure.querySelector("script").textContent);
  if (plot.layout.yaxis?.scaleanchor) plot.layout.width = Math.min(plot.layout.width, box.clientWidth); // squares shrink, wide plots scroll
  Plotly.react(box, plot.data, look(plot.layout), { displaylogo: false, responsive: !plot.layout.width, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "sendChartToCloud", "sendDataToCloud", "editInChartStudio"] });
  box.dataset.drawn = "";
}
const figures = [...document.querySelectorAll("figure[data-plot]")];
const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting) { watcher.unobserve(entry.target); draw(entry.target); }
}, { rootMargin: "400px" });
for (const figure of figures) watcher.observe(figure);
addEventListener("beforeprint", () => { for (const figure of figures) if (!("drawn" in figure.querySelector(".plot").dataset)) draw(figure); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { for (const figure of figures) if ("drawn" in figure.querySelector(".plot").dataset) draw(figure); });
for (const box of document.querySelectorAll("details[data-csv]")) {
  const button = Object.assign(document.createElement("button"), { type: "button", textContent: "Save as CSV" });
  button.addEventListener("click", () => {
    const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(new Blob([box.querySelector("pre").textContent], { type: "text/csv" })), download: box.dataset.csv });
    link.click();
    URL.revokeObjectURL(link.href);
  });
  box.querySelector("summary").after(button);
}
