//! The book as a crate: its chapters are in `docs/chapters`, every Rust code block in them is a
//! doctest of this crate, and its program builds the pages.
//!
//! The derivation is the front page of the reference, too. Its text is in that crate, which tests its
//! code; the chapter includes it.

#![cfg_attr(doctest, doc = include_str!("../chapters/introduction.md"))]
#![cfg_attr(doctest, doc = include_str!("../chapters/derivation.md"))]
#![cfg_attr(doctest, doc = include_str!("../chapters/algorithms.md"))]
#![cfg_attr(doctest, doc = include_str!("../chapters/numerics.md"))]
#![cfg_attr(doctest, doc = include_str!("../chapters/laws.md"))]
#![cfg_attr(doctest, doc = include_str!("../chapters/conformance.md"))]
#![cfg_attr(doctest, doc = include_str!("../chapters/protocol.md"))]
#![cfg_attr(doctest, doc = include_str!("../chapters/third_party.md"))]
#![cfg_attr(doctest, doc = include_str!("../chapters/pytorch.md"))]
#![cfg_attr(doctest, doc = include_str!("../chapters/experiments.md"))]
#![cfg_attr(doctest, doc = include_str!("../chapters/experiments_text.md"))]
#![cfg_attr(doctest, doc = include_str!("../chapters/cpu.md"))]
#![cfg_attr(doctest, doc = include_str!("../chapters/cuda.md"))]
#![cfg_attr(doctest, doc = include_str!("../chapters/performance.md"))]
#![cfg_attr(doctest, doc = include_str!("../chapters/gpu.md"))]
#![cfg_attr(doctest, doc = include_str!("../chapters/quirks.md"))]
#![cfg_attr(doctest, doc = include_str!("../chapters/architecture.md"))]
#![cfg_attr(doctest, doc = include_str!("../chapters/configuration.md"))]
#![cfg_attr(doctest, doc = include_str!("../chapters/glossary.md"))]

pub mod links;
pub mod second_step;
pub mod toy;

#[cfg(test)]
mod tests {
    #[test]
    fn no_chapter_is_left_out_of_the_doctests() {
        let chapters = include_str!("../chapters/SUMMARY.md").split("](").skip(1);
        for chapter in chapters.filter_map(|rest| rest.split(')').next()) {
            let line = format!("include_str!(\"../chapters/{chapter}\")");
            assert!(include_str!("lib.rs").contains(&line), "{chapter}");
        }
    }

    /// The reference shows this chapter as its own front page, where links to others lead nowhere.
    #[test]
    fn the_derivation_has_no_links() {
        assert!(!include_str!("../../reference/docs/derivation.md").contains("]("));
    }

    /// Above each algorithm of the reference stands the chapter's pseudo-code.
    #[test]
    fn the_reference_has_the_pseudo_code_of_the_chapter() {
        let chapter = include_str!("../chapters/algorithms.md");
        for source in [
            include_str!("../../reference/src/lora.rs"),
            include_str!("../../reference/src/sgd.rs"),
            include_str!("../../reference/src/efficient.rs"),
            include_str!("../../reference/src/full.rs"),
            include_str!("../../reference/src/factored.rs"),
        ] {
            let lines = source.lines().filter_map(|line| line.strip_prefix("///"));
            let docs: String = lines
                .map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(line)))
                .collect();
            let start = docs.find("```text\n").unwrap();
            let end = start + docs[start..].find("\n```\n").unwrap();
            assert!(chapter.contains(&docs[start..end]), "{}", &docs[start..end]);
        }
    }

    /// docs.rs shows one crate at a time and has no files of ours beside the pages.
    #[test]
    fn the_reference_renders_formulas_as_the_book_does() {
        let header = include_str!("../../reference/docs/katex-header.html");
        assert!(header.contains(include_str!("../katex/render.js")));
    }
}
