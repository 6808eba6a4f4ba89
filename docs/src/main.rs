//! Builds the book into `target/book` and checks its links. With the argument `api`, also the
//! API pages of all crates into `target/doc`, with rendered formulas and warnings as errors.

use std::env;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use lora_pro_docs::links;
use mdbook_driver::MDBook;
use mdbook_driver::errors::{Error, Result};

const DOCS: &str = env!("CARGO_MANIFEST_DIR");

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let result = match arguments.as_slice() {
        [] => book(),
        [what] if what == "api" => book().and_then(|()| api()),
        _ => Err(Error::msg("the only argument is `api`")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn book() -> Result<()> {
    let book = MDBook::load(DOCS)?;
    book.build()?;
    let folder = book.build_dir_for("html");
    let links = links::check(&folder)?;
    if !links.broken.is_empty() {
        return Err(Error::msg(format!(
            "broken links:\n{}",
            links.broken.join("\n")
        )));
    }
    println!("{} links checked, none broken", links.good);
    println!("{}", folder.join("index.html").canonicalize()?.display());
    Ok(())
}

/// Runs `cargo doc`. Its pages load KaTeX from `target/doc/katex`, so that the folder can be
/// moved as a whole. (A header set in `.cargo/config.toml` would break `cargo doc` for the
/// dependencies, which are documented from folders of their own.)
fn api() -> Result<()> {
    let docs = Path::new(DOCS);
    let target = docs.with_file_name("target");
    let header = docs.join("katex/header.html").display().to_string();
    let status = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args([
            "doc",
            "--release",
            "--no-deps",
            "--workspace",
            "--target-dir",
        ])
        .arg(&target)
        .current_dir(docs)
        .env(
            "CARGO_ENCODED_RUSTDOCFLAGS",
            ["-Dwarnings", "--html-in-header", &header].join("\x1f"),
        )
        .status()?;
    if !status.success() {
        return Err(Error::msg("cargo doc failed"));
    }
    let katex = target.join("doc/katex");
    fs::create_dir_all(&katex)?;
    for name in ["katex.min.js", "render.js", "LICENSE"] {
        fs::copy(docs.join("katex").join(name), katex.join(name))?;
    }
    let page = target.join("doc/lora_pro_reference/index.html");
    println!("{}", page.display());
    Ok(())
}
