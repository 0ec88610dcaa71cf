// A job's page while it moves: events say that something is new, and the moving part is fetched. The browser reconnects by itself and
// says from which event on (Last-Event-ID).
"use strict";
(() => {
  const state = document.getElementById("link"), live = document.getElementById("live");
  if (!state) return;
  let due = false, busy = false, over = false;
  const fetchLive = async () => {
    if (busy) { due = true; return; }
    busy = true; due = false;
    try {
      const answer = await fetch(state.dataset.live + location.search, { headers: { "X-Requested-With": "monitor" } });
      if (answer.ok) {
        const open = [...live.querySelectorAll("details")].map((part) => part.open);
        const focused = live.contains(document.activeElement);
        const page = new DOMParser().parseFromString(await answer.text(), "text/html");
        if (!focused || !live.querySelector("form:focus-within")) live.replaceChildren(...page.body.childNodes);
        live.querySelectorAll("details").forEach((part, at) => { part.open = open[at] || false; });
        const now = live.querySelector("[data-state]")?.dataset.state;
        if (!["queued", "running", "cancelling"].includes(now)) { over = true; source.close(); state.textContent = `It is ${now}.`; }
      }
    } catch { /* the stream says so */ }
    busy = false;
    setTimeout(() => { if (due) fetchLive(); }, 700);
  };
  const source = new EventSource(state.dataset.events);
  source.onopen = () => { state.textContent = "Live."; fetchLive(); };
  source.onerror = () => { if (!over) state.textContent = "The server does not answer; trying again. The job itself goes on."; };
  for (const kind of ["state", "progress", "note"]) source.addEventListener(kind, fetchLive);
})();
