"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    if (!head.dataset.kind) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      const number = head.dataset.kind === "number";
      const key = row => {
        const cell = row.cells[column];
        const text = cell.dataset.sort ?? cell.textContent.trim();
        return number ? (text === "" || text === "–" ? null : Number(text.replace("−", "-"))) : text || null;
      };
      const rows = [...table.tBodies[0].rows].map(row => [key(row), row]);
      rows.sort(([a], [b]) => {
        if (a === null || b === null) return (a === null) - (b === null);
        const order = number ? a - b : a.localeCompare(b, "en", {numeric: true, sensitivity: "base"});
        return up ? order : -order;
      });
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      table.tBodies[0].append(...rows.map(([, row]) => row));
    });
  });
}
for (const tools of document.querySelectorAll(".tools[data-for]")) {
  const rows = [...document.getElementById(tools.dataset.for).tBodies[0].rows];
  const words = tools.querySelector("input[type=search]"), choices = [...tools.querySelectorAll("select")];
  const said = tools.querySelector("output");
  const show = () => {
    const asked = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      const fits = asked.every(word => text.includes(word))
        && choices.every(each => !each.value || (row.dataset[each.name] ?? "").split(" ").includes(each.value));
      row.hidden = !fits;
      count += fits;
    }
    said.textContent = `${count} of ${rows.length} shown`;
  };
  tools.hidden = false;
  tools.addEventListener("input", show);
  show();
}
for (const map of document.querySelectorAll(".map")) map.scrollLeft = (map.scrollWidth - map.clientWidth) / 2;
for (const link of document.querySelectorAll("a[data-zoom]")) {
  link.addEventListener("click", event => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    view(link);
  });
}
function view(link) {
  const dialog = document.createElement("dialog"), stage = document.createElement("div");
  const layers = link.querySelector(".layers").cloneNode(true), image = layers.querySelector("img");
  const [width, height] = [image.getAttribute("width"), image.getAttribute("height")].map(Number);
  let scale = 1, x = 0, y = 0, pinch = 0;
  const fingers = new Map();
  dialog.className = "viewer";
  dialog.setAttribute("aria-label", "Picture; plus and minus zoom, arrow keys move, Escape closes");
  stage.className = "stage";
  layers.style.width = width + "px";
  const put = () => { layers.style.transform = `translate(${x}px, ${y}px) scale(${scale})`; dialog.dataset.scale = scale; };
  const fit = () => {
    scale = Math.min(dialog.clientWidth / width, dialog.clientHeight / height);
    x = (dialog.clientWidth - width * scale) / 2;
    y = (dialog.clientHeight - height * scale) / 2;
    put();
  };
  const zoom = (factor, px = dialog.clientWidth / 2, py = dialog.clientHeight / 2) => {
    const to = Math.min(Math.max(scale * factor, .1), 24);
    x = px - (px - x) * to / scale;
    y = py - (py - y) * to / scale;
    scale = to;
    put();
  };
  const move = (dx, dy) => { x += dx; y += dy; put(); };
  const buttons = document.createElement("div");
  buttons.className = "buttons";
  for (const [sign, name, act] of [["+", "Zoom in", () => zoom(1.5)], ["−", "Zoom out", () => zoom(1 / 1.5)], ["⤢", "Fit", fit], ["✕", "Close", () => dialog.close()]]) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "button";
    button.textContent = sign;
    button.setAttribute("aria-label", name);
    button.addEventListener("click", act);
    buttons.append(button);
  }
  stage.addEventListener("wheel", event => { event.preventDefault(); zoom(Math.exp(-event.deltaY / 400), event.clientX, event.clientY); }, {passive: false});
  stage.addEventListener("pointerdown", event => { stage.setPointerCapture(event.pointerId); fingers.set(event.pointerId, [event.clientX, event.clientY]); pinch = 0; });
  stage.addEventListener("pointermove", event => {
    const before = fingers.get(event.pointerId);
    if (!before) return;
    fingers.set(event.pointerId, [event.clientX, event.clientY]);
    if (fingers.size === 1) return move(event.clientX - before[0], event.clientY - before[1]);
    const [[ax, ay], [bx, by]] = [...fingers.values()], apart = Math.hypot(ax - bx, ay - by);
    if (pinch) zoom(apart / pinch, (ax + bx) / 2, (ay + by) / 2);
    pinch = apart;
  });
  for (const end of ["pointerup", "pointercancel"]) stage.addEventListener(end, event => { fingers.delete(event.pointerId); pinch = 0; });
  dialog.addEventListener("keydown", event => {
    const act = {"+": () => zoom(1.5), "=": () => zoom(1.5), "-": () => zoom(1 / 1.5), "0": fit, ArrowLeft: () => move(80, 0), ArrowRight: () => move(-80, 0), ArrowUp: () => move(0, 80), ArrowDown: () => move(0, -80)}[event.key];
    if (act) { event.preventDefault(); act(); }
  });
  dialog.addEventListener("close", () => { dialog.remove(); link.focus(); });
  stage.append(layers);
  dialog.append(stage, buttons);
  document.body.append(dialog);
  dialog.showModal();
  fit();
}
