"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const matrix = document.getElementById("matrix");
  if (!matrix) return;
  const details = JSON.parse(document.getElementById("details").textContent);
  const panel = document.getElementById("panel");
  const filters = document.getElementById("filters");
  const tiles = all("button", matrix);
  const rows = all("tbody tr", matrix);
  const methods = all("thead .names", matrix)[0].children;

  // Filters. Nothing chosen shows everything.
  const chosen = (name) => new Set(all(`[name=${name}]:checked`, filters).map((box) => box.value));
  const out = (set, value) => set.size > 0 && !set.has(value);
  const seen = (tile) => !tile.hidden && !tile.closest("td").hidden && !tile.classList.contains("out");

  function filter() {
    const [verdicts, subjects, names] = ["verdict", "subject", "method"].map(chosen);
    for (const place of all("[data-s]", matrix)) place.hidden = out(subjects, place.dataset.s);
    for (const slot of all("[data-m]", matrix)) slot.hidden = out(names, slot.dataset.m);
    for (const tile of tiles) tile.classList.toggle("out", out(verdicts, tile.dataset.v));
    const shown = tiles.filter(seen);
    const busy = new Set(shown.map((tile) => tile.closest("tr")));
    for (const row of rows) row.hidden = !busy.has(row);
    const columns = [...methods].filter((name) => !name.hidden).length;
    matrix.style.setProperty("--n", columns);
    matrix.classList.toggle("one", columns === 1);
    document.getElementById("shown").textContent =
      shown.length === tiles.length ? `${tiles.length} cells` : `${shown.length} of ${tiles.length} cells`;
    document.getElementById("none").hidden = shown.length > 0;
    enter(shown.find((tile) => tile.tabIndex === 0) || shown[0]);
  }

  filters.addEventListener("change", filter);
  filters.addEventListener("reset", () => setTimeout(filter));

  // Keyboard: one tile is reached by Tab, the others from there by arrows.
  function enter(tile) {
    for (const other of tiles) if (other.tabIndex === 0) other.tabIndex = -1;
    if (tile) tile.tabIndex = 0;
  }

  const middle = (tile) => { const box = tile.getBoundingClientRect(); return box.left + box.width / 2; };

  function beside(tile, key) {
    const row = all("button", tile.closest("tr")).filter(seen);
    if (key === "Home") return row[0];
    if (key === "End") return row[row.length - 1];
    if (key === "ArrowLeft" || key === "ArrowRight") return row[row.indexOf(tile) + (key === "ArrowLeft" ? -1 : 1)];
    const step = key === "ArrowUp" ? -1 : 1;
    let k = rows.indexOf(tile.closest("tr")) + step;
    while (rows[k] && rows[k].hidden) k += step;
    if (!rows[k]) return undefined;
    const far = (other) => Math.abs(middle(other) - middle(tile));
    return all("button", rows[k]).filter(seen).reduce((a, b) => (far(b) < far(a) ? b : a));
  }

  matrix.addEventListener("keydown", (event) => {
    if (!["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End"].includes(event.key)) return;
    if (!event.target.matches("button")) return;
    event.preventDefault();
    const next = beside(event.target, event.key);
    if (!next) return;
    enter(next);
    next.focus();
    if (!panel.hidden) open(next);
  });
  matrix.addEventListener("mouseover", (event) => {
    if (event.target.matches("button")) event.target.title = event.target.getAttribute("aria-label");
  });

  // The panel. Text only ever becomes text.
  function make(tag, text, name) {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (name) element.className = name;
    return element;
  }

  function list(facts) {
    const dl = make("dl");
    for (const [name, value] of facts) dl.append(make("dt", name), make("dd", value));
    return dl;
  }

  function copier(text) {
    const button = make("button", "copy");
    button.onclick = async () => {
      try { await navigator.clipboard.writeText(text); button.textContent = "copied"; }
      catch { getSelection().selectAllChildren(button.previousSibling); }
    };
    return button;
  }

  let current = null;

  function open(tile) {
    close();
    current = tile;
    tile.setAttribute("aria-current", "true");
    enter(tile);
    const detail = details[tile.id.slice(1)];
    const head = tile.closest("tr").cells[0];
    const found = make("p", undefined, "found");
    found.append(make("i", tile.textContent, `tile ${tile.dataset.v}`), detail.finding);
    found.firstChild.style.cssText = tile.style.cssText;
    const shut = make("button", "✕", "close");
    shut.setAttribute("aria-label", "Close");
    shut.onclick = () => { close(); tile.focus(); };
    panel.append(make("h2", head.querySelector("b").textContent),
      make("p", head.querySelector("span").textContent, "quiet"), make("p", detail.place), found);
    if (detail.reason) panel.append(make("p", detail.reason));
    if (detail.replay) panel.append(make("h3", "see it again"), make("pre", detail.replay), copier(detail.replay));
    if (detail.case.length) panel.append(make("h3", "the worst case"), list(detail.case));
    panel.append(make("h3", "this cell"), list(detail.facts), shut);
    panel.hidden = false;
    // Beside the tile, not over it.
    panel.classList.toggle("left", middle(tile) > innerWidth / 2);
    tile.scrollIntoView({ block: "nearest", inline: "nearest" });
    history.replaceState(null, "", `#${tile.id}`);
  }

  function close() {
    if (!current) return;
    current.removeAttribute("aria-current");
    history.replaceState(null, "", location.pathname + location.search);
    current = null;
    panel.hidden = true;
    panel.replaceChildren();
  }

  matrix.addEventListener("click", (event) => {
    const tile = event.target.closest("button");
    if (tile) tile === current ? close() : open(tile);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !current) return;
    const tile = current;
    close();
    tile.focus();
  });

  // A link to a cell, from the list below or from another page.
  function follow() {
    const tile = /^#c\d+$/.test(location.hash) && document.getElementById(location.hash.slice(1));
    if (!tile) return;
    if (!seen(tile)) { filters.reset(); filter(); }
    tile.scrollIntoView({ block: "center", inline: "center" });
    tile.focus({ preventScroll: true });
    open(tile);
  }

  addEventListener("hashchange", follow);
  filter();
  follow();
})();
