// Interactive plots: Plotly is loaded when the first one is opened, see web/plotly.py.
"use strict";
let plotlyLoading = null;
function openPlotly() {
  plotlyLoading ||= new Promise((done, failed) => {
    // Plotly finds these and then adds no style of its own, which the policy would refuse
    const own = document.querySelector("link[href*='static/explorer.css']");
    const style = Object.assign(document.createElement("link"), {
      rel: "stylesheet", id: "plotly.js-style-global", className: "no-inline-styles", href: `${base}/static/plotly.css`,
    });
    own.after(style);
    const map = document.createElement("meta");
    map.id = "9f215cf04c5486422605d13261cb87401f4e7763b6296af81e98efbc0130da53"; // of MapLibre, which we do not use
    document.head.append(map);
    // colour bars and heat maps set styles as an attribute, which the policy refuses; by way of the object they are allowed
    const set = Element.prototype.setAttribute;
    Element.prototype.setAttribute = function (name, value) { if (name === "style") this.style.cssText = value; else set.call(this, name, value); };
    const script = document.createElement("script");
    script.src = document.querySelector("[data-plotly]").dataset.plotly;
    script.onload = () => done(window.Plotly);
    script.onerror = () => { plotlyLoading = null; failed(new Error("Plotly could not be loaded.")); };
    document.head.append(script);
  });
  return plotlyLoading;
}
/** A colour of the page as it is now: the property itself still names one for light and one for dark. */
function plotColour(name) {
  const probe = document.body.appendChild(document.createElement("i"));
  probe.style.color = `var(${name})`;
  const colour = getComputedStyle(probe).color;
  probe.remove();
  return colour;
}
/** A layout in the page's colours. */
function plotLook(more = {}) {
  const axis = () => ({ gridcolor: plotColour("--line"), linecolor: plotColour("--strong"), zerolinecolor: plotColour("--strong"), tickcolor: plotColour("--strong") });
  const { xaxis = {}, yaxis = {}, ...rest } = more;
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 60, r: 12, t: 34, b: 48 },
    font: { family: "system-ui, sans-serif", size: 13, color: plotColour("--ink") },
    hoverlabel: { bgcolor: plotColour("--ink"), font: { color: plotColour("--paper") } },
    xaxis: { ...axis(), ...xaxis }, yaxis: { ...axis(), ...yaxis }, ...rest,
  };
}
const plotBars = { displaylogo: false, responsive: true, modeBarButtonsToRemove: ["sendDataToCloud", "toImage", "autoScale2d", "lasso2d", "sendChartToCloud", "editInChartStudio"] };
