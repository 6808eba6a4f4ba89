// Renders formulas in GitHub's syntax: a code span between dollar signs, and blocks of `math`.
// MathML needs no fonts of ours and no style sheet. Without KaTeX the TeX source stays as it is.
function renderFormulas() {
  if (typeof katex === "undefined") return;
  const mathml = (tex, displayMode) => {
    const holder = document.createElement(displayMode ? "div" : "span");
    // Not `katex.render`: it makes bare text nodes of thin spaces, and MathML drops them.
    const options = { displayMode, output: "mathml", throwOnError: false };
    holder.innerHTML = katex.renderToString(tex, options);
    return holder;
  };
  const style = document.createElement("style");
  style.textContent = `math { font-family: "Cambria Math", "STIX Two Math", "Latin Modern Math",
    "DejaVu Math TeX Gyre", math; }
    math[display=block] { margin: 0.75em 0; }`;
  document.head.append(style);
  const blocks = "code.language-math, pre.language-math > code";
  for (const code of document.querySelectorAll(blocks)) {
    (code.closest(".example-wrap") ?? code.closest("pre")).replaceWith(mathml(code.textContent, true));
  }
  for (const code of document.querySelectorAll("code")) {
    const [before, after] = [code.previousSibling, code.nextSibling];
    if (before?.data?.endsWith("$") && after?.data?.startsWith("$")) {
      before.data = before.data.slice(0, -1);
      after.data = after.data.slice(1);
      code.replaceWith(mathml(code.textContent, false));
    }
  }
}

if (document.readyState === "loading") {
  document.addEventListener("DOMContentLoaded", renderFormulas);
} else {
  renderFormulas();
}
