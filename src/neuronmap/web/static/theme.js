// Before anything is drawn: scripts are on, and the theme that was chosen last.
document.documentElement.className = "script";
try {
  const chosen = localStorage.getItem("theme");
  if (chosen) document.documentElement.dataset.theme = chosen;
} catch { /* storage may be off */ }

// What a reader does before the other scripts have come waits for them: a button, a key, a panel opened, a field changed.
{
  const kinds = ["click", "keydown", "toggle", "change", "input"], early = [];
  const keep = (event) => {
    if (event.type === "click" && !event.target.closest?.("button[type=button]")) return;
    event.stopImmediatePropagation();
    early.push(event);
  };
  for (const kind of kinds) addEventListener(kind, keep, true);
  addEventListener("DOMContentLoaded", () => setTimeout(() => {
    for (const kind of kinds) removeEventListener(kind, keep, true);
    for (const event of early) if (event.target.isConnected) event.target.dispatchEvent(new event.constructor(event.type, event));
  }));
}
