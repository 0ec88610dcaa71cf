// Figures of the abstraction tracker: fetched and drawn by Plotly when they come into view, or when a button asks for it. In a Sankey diagram
// a click goes to the page of the feature.
"use strict";
const NARROW = 560;
const figureLook = (layout, wide) => {
  const own = plotLook();
  const made = { ...layout, paper_bgcolor: own.paper_bgcolor, plot_bgcolor: own.plot_bgcolor, font: { ...own.font, ...layout.font }, hoverlabel: own.hoverlabel };
  for (const name of Object.keys(layout).filter((one) => /^[xy]axis\d*$/.test(one))) made[name] = { ...own.xaxis, ...layout[name] };
  const buttons = { bgcolor: plotColour("--raised"), bordercolor: plotColour("--strong"), font: { color: plotColour("--ink"), size: 13 } };
  if (layout.updatemenus) made.updatemenus = layout.updatemenus.map((one) => ({ ...buttons, ...one }));
  if (wide < NARROW) {
    made.margin = { ...layout.margin, l: Math.min(layout.margin?.l ?? 60, 48), r: 8 };
    if (layout.yaxis?.scaleanchor) { delete made.width; made.height = wide + 60; } // a square fits; other plots may be wider than the page, and scroll
  }
  return made;
};

// Plotly takes a press on a node for the begin of a drag, and then tells of no click.
function leadToFeatures(box) {
  let pressed = null;
  box.addEventListener("pointerdown", (event) => {
    pressed = { x: event.clientX, y: event.clientY, feature: event.target.closest(".sankey-node")?.__data__?.node?.customdata };
  }, true);
  box.addEventListener("pointerup", (event) => {
    if (pressed?.feature?.sae === undefined || Math.hypot(event.clientX - pressed.x, event.clientY - pressed.y) > 5) return;
    location.href = `${base}/sae/${pressed.feature.sae.split("/").map(encodeURIComponent).join("/")}/-/feature/${pressed.feature.feature}`;
  });
}

async function drawFigure(box) {
  const said = box.querySelector("[data-state]");
  try {
    const [Plotly, answer] = await Promise.all([openPlotly(), box.figure || fetch(box.dataset.figure)]);
    if (!box.figure) {
      const document = await answer.json();
      if (!answer.ok) throw new Error(document.error.message);
      box.figure = document.figure;
    }
    const wide = box.clientWidth;
    const data = box.figure.data.map((one) => (wide < NARROW && one.type === "heatmap" && one.showscale !== false
      ? { ...one, colorbar: { ...one.colorbar, thickness: 9, title: { text: "" } } } : one));
    const first = box.dataset.trace; // of pictures that lie over each other, the one that is seen first
    if (first && !box.drawn) {
      const places = data.map((one) => (one.type === "heatmap" ? one.name === first : one.visible ?? true));
      for (const [at, seen] of places.entries()) data[at] = { ...data[at], visible: seen };
      for (const menu of box.figure.layout.updatemenus ?? []) menu.active = menu.buttons.findIndex((one) => one.label === first);
    }
    if (!box.drawn) box.replaceChildren();
    box.classList.add("drawn-figure");
    await Plotly.react(box, data, figureLook(structuredClone(box.figure.layout), wide), plotBars);
    // the axes of the legend's points would lie over the diagram and take its clicks
    if (data.some((one) => one.type === "sankey")) for (const layer of box.querySelectorAll(".draglayer")) layer.style.display = "none";
    if (!box.drawn) leadToFeatures(box);
    box.drawn = true;
  } catch (fault) {
    if (said) said.textContent = `The picture cannot be shown: ${fault.message}`;
    else say(`The plot cannot be shown: ${fault.message}`);
  }
}

const figureSeen = new IntersectionObserver((entries, watcher) => {
  for (const entry of entries) if (entry.isIntersecting) { watcher.unobserve(entry.target); drawFigure(entry.target); }
}, { rootMargin: "150px" });
for (const box of document.querySelectorAll("[data-figure][data-when=seen]")) figureSeen.observe(box);
document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-interactive]");
  if (!button) return;
  button.disabled = true;
  drawFigure(button.closest("figure").querySelector("[data-figure]")).then(() => button.parentElement.remove());
});
document.addEventListener("theme", () => { for (const box of document.querySelectorAll("[data-figure]")) if (box.drawn) drawFigure(box); });
