const cells = JSON.parse(document.getElementById("cells").textContent);
const panel = document.getElementById("open");
let pressed = null;
const show = button => {
  const cell = cells[button.dataset.k];
  if (pressed) pressed.setAttribute("aria-pressed", "false");
  pressed = button;
  button.setAttribute("aria-pressed", "true");
  const lines = [cell.title];
  if (cell.reason) lines.push(cell.reason);
  lines.push(`largest ratio ${cell.ratio} in ${cell.cases} cases, ${cell.seconds.toFixed(2)} s` +
    (cell.attained ? `; error grows like ${cell.attained.replace("kappa_squared", "kappa squared")}` : ""));
  if (cell.worst) lines.push("case: " + Object.entries(cell.worst).map(([k, v]) => `${k} ${v}`).join(", "));
  if (cell.replay) lines.push(`lora-pro conform replay ${cell.replay}`);
  panel.hidden = false;
  panel.querySelector("strong").textContent =
    `${cell.verdict}: ${cell.subject}, ${cell.check}, ${cell.dtype}, ${cell.method ?? "all methods"}`;
  panel.querySelector("pre").textContent = lines.join("\n");
};
document.querySelectorAll("button.cell").forEach(b => b.addEventListener("click", () => show(b)));
const filter = () => {
  const on = kind => new Set([...document.querySelectorAll(`input[name=${kind}]:checked`)].map(i => i.value));
  const subjects = on("subject"), methods = on("method"), bad = document.getElementById("bad").checked;
  document.querySelectorAll("[data-subject]").forEach(e => e.hidden = !subjects.has(e.dataset.subject));
  document.querySelectorAll("button.cell").forEach(b => b.hidden = !methods.has(b.dataset.method));
  document.querySelectorAll("#matrix tbody tr").forEach(row => {
    const seen = [...row.querySelectorAll("button.cell")].filter(b => !b.hidden && !b.parentElement.hidden);
    row.hidden = bad && !seen.some(b => "bad" in b.dataset);
  });
};
document.querySelectorAll("input").forEach(i => i.addEventListener("change", filter));
