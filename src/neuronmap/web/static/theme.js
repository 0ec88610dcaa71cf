// Before anything is drawn: scripts are on, and the theme that was chosen last.
document.documentElement.className = "script";
try {
  const chosen = localStorage.getItem("theme");
  if (chosen) document.documentElement.dataset.theme = chosen;
} catch { /* storage may be off */ }
