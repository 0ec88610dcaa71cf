// Dropping files or a folder on the import form. Without scripts the form's own file field does.
"use strict";
{
  const form = document.querySelector("[data-drop]");
  const files = form.querySelector("[data-files]"), folder = form.querySelector("[data-folder]");
  const chosen = form.querySelector("[data-chosen]"), zone = form.querySelector(".drop");
  let dropped = []; // {file, path}
  const shown = (count, bytes) => {
    const size = bytes > 1 << 30 ? `${(bytes / (1 << 30)).toFixed(1)} GiB` : `${(bytes / (1 << 20)).toFixed(1)} MiB`;
    chosen.textContent = count ? `${count} file${count === 1 ? "" : "s"}, ${size}` : "";
  };
  const count = () => {
    const all = [...files.files, ...folder.files, ...dropped.map((one) => one.file)];
    shown(all.length, all.reduce((sum, file) => sum + file.size, 0));
  };
  files.addEventListener("change", count);
  folder.addEventListener("change", count);

  async function read(entry, path) {
    if (entry.isFile) {
      const file = await new Promise((done, failed) => entry.file(done, failed));
      dropped.push({ file, path: path + file.name });
      return;
    }
    const reader = entry.createReader();
    for (;;) {
      const some = await new Promise((done, failed) => reader.readEntries(done, failed));
      if (!some.length) return;
      for (const inner of some) if (!inner.name.startsWith(".")) await read(inner, `${path}${entry.name}/`);
    }
  }
  for (const kind of ["dragover", "dragleave", "drop"]) {
    zone.addEventListener(kind, (event) => {
      event.preventDefault();
      zone.classList.toggle("over", kind === "dragover");
    });
  }
  zone.addEventListener("drop", async (event) => {
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
    const plain = [...event.dataTransfer.files];
    dropped = [];
    if (entries.length) for (const entry of entries) await read(entry, "");
    else dropped = plain.map((file) => ({ file, path: file.name }));
    count();
  });

  form.addEventListener("submit", (event) => {
    if (!dropped.length && !folder.files.length) return;
    event.preventDefault();
    const body = new FormData(form);
    body.delete("files");
    for (const file of files.files) body.append("files", file, file.name);
    for (const file of folder.files) body.append("files", file, file.webkitRelativePath || file.name);
    for (const one of dropped) body.append("files", one.file, one.path);
    const request = new XMLHttpRequest();
    request.open("POST", form.action);
    request.setRequestHeader("Accept", "text/html");
    request.upload.addEventListener("progress", (step) => {
      if (step.lengthComputable) chosen.textContent = `${Math.round((100 * step.loaded) / step.total)} % sent`;
    });
    request.addEventListener("load", () => {
      if (request.status < 300 && request.responseURL !== form.action) { location.href = request.responseURL; return; }
      document.open();
      document.write(request.responseText);
      document.close();
    });
    request.addEventListener("error", () => { chosen.textContent = "The server did not answer; nothing was imported."; });
    request.send(body);
  });
}
