// The threshold's number moves with the slider; a server that chose another one moves the slider.
"use strict";
document.addEventListener("input", (event) => {
  const shows = event.target.dataset?.shows;
  if (shows) document.getElementById(shows).textContent = Number(event.target.value).toFixed(2);
});
