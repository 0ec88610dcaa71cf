// What pages do beyond reading: theme, keyboard, one tooltip for tokens. Pages that need more bring a file of their own.
"use strict";
const base = document.body.dataset.base || "";
const say = (text) => { document.getElementById("said").textContent = text; };
const link = (rel) => document.querySelector(`a[data-key="${rel}"], link[rel="${rel}"]`)?.href;

// --- theme
const isDark = () => document.documentElement.dataset.theme
  ? document.documentElement.dataset.theme === "dark"
  : matchMedia("(prefers-color-scheme: dark)").matches;
document.getElementById("theme")?.addEventListener("click", () => {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  try { localStorage.setItem("theme", document.documentElement.dataset.theme); } catch { /* off */ }
  document.dispatchEvent(new CustomEvent("theme"));
});

// --- one tooltip: mouse, keyboard and touch
const tip = document.getElementById("tip");
function show(target) {
  const { v, s } = target.dataset;
  tip.textContent = target.dataset.tip || `activation ${v}\n${Math.round(1000 * s) / 10} % of the largest`;
  tip.hidden = false;
  const box = target.getBoundingClientRect(), own = tip.getBoundingClientRect();
  const left = Math.min(Math.max(4, box.left), innerWidth - own.width - 4);
  const above = box.top - own.height - 6;
  tip.style.left = `${left}px`;
  tip.style.top = `${above > 4 ? above : box.bottom + 6}px`;
}
const tipped = (event) => event.target.closest?.("[data-v], [data-tip]");
const enter = (event) => {
  const target = tipped(event);
  if (!target) { tip.hidden = true; return; }
  if (target.title) { target.dataset.title = target.title; target.removeAttribute("title"); } // ours is shown instead
  show(target);
};
for (const kind of ["mouseover", "focusin", "click"]) document.addEventListener(kind, enter);
document.addEventListener("focusout", () => { tip.hidden = true; });
document.addEventListener("scroll", () => { tip.hidden = true; }, { passive: true, capture: true });

// --- keyboard
const help = document.getElementById("help");
document.getElementById("keys")?.addEventListener("click", () => help.showModal());
let waiting = "";
const rows = () => [...document.querySelectorAll("[data-row]")].filter((row) => row.offsetParent !== null);
function step(by) {
  const all = rows();
  if (!all.length) return;
  const at = all.findIndex((row) => row === document.activeElement || row.contains(document.activeElement));
  const next = all[Math.max(0, Math.min(all.length - 1, at < 0 ? (by > 0 ? 0 : all.length - 1) : at + by))];
  const target = next.matches("a, button, [tabindex]") ? next : next.querySelector("a, button") || next;
  target.focus();
  next.scrollIntoView({ block: "nearest" });
}
const keys = {
  "/": () => document.getElementById("q")?.focus(),
  "?": () => help.showModal(),
  ArrowLeft: () => { const to = link("prev"); if (to) location.href = to; },
  ArrowRight: () => { const to = link("next"); if (to) location.href = to; },
  r: () => { const to = link("random"); if (to) location.href = to; },
  t: () => document.querySelector("[data-test-box]")?.focus(),
  c: () => document.querySelector("[data-compare]")?.click(),
  j: () => step(1),
  k: () => step(-1),
  g: () => { waiting = "g"; setTimeout(() => { waiting = ""; }, 1200); },
};
const afterG = { h: () => { location.href = `${base}/`; }, i: () => document.querySelector("[data-go]")?.focus() };
document.addEventListener("keydown", (event) => {
  const field = event.target.matches("input, textarea, select, [contenteditable]");
  if (event.key === "Escape") { tip.hidden = true; if (field) event.target.blur(); return; }
  if (field || event.ctrlKey || event.metaKey || event.altKey || help.open) return;
  if (document.activeElement?.closest(".js-plotly-plot")) return;
  const action = waiting === "g" ? afterG[event.key] : keys[event.key];
  waiting = "";
  if (action) { event.preventDefault(); action(); }
});

// --- small things
document.addEventListener("change", (event) => { if (event.target.matches("[data-submit]")) event.target.form.requestSubmit(); });
document.addEventListener("click", (event) => {
  for (const open of document.querySelectorAll("details.about[open]")) if (!open.contains(event.target)) open.open = false;
  const copy = event.target.closest("[data-copy]");
  if (copy) navigator.clipboard.writeText(copy.dataset.copy).then(() => say("Copied"));
});
document.addEventListener("htmx:responseError", (event) => {
  let said = "The server did not answer as expected.";
  try { said = JSON.parse(event.detail.xhr.responseText).error.message; } catch { /* a page */ }
  say(said);
  const at = event.detail.target?.querySelector?.("[data-fault]") || document.querySelector("[data-fault]");
  if (at) { at.textContent = said; at.hidden = false; }
});
