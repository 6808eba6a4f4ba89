//! Checks the links of the built book.

use std::fs;
use std::path::{Path, PathBuf};

/// What a check of a folder of pages found.
#[derive(Debug, Default)]
pub struct Links {
    /// Links and images that lead to something in the folder.
    pub good: usize,
    /// Those that lead nowhere, as `page: link`.
    pub broken: Vec<String>,
}

/// Follows every relative link and image of every page in `folder`, to the file and, where the
/// link has a `#fragment`, to the element with that id.
///
/// It reads the built pages and not the Markdown, because these are what a reader clicks on.
///
/// # Errors
/// Where a folder or a page cannot be read.
pub fn check(folder: &Path) -> std::io::Result<Links> {
    let mut found = Links::default();
    for page in pages(folder)? {
        let html = fs::read_to_string(&page)?;
        for link in relative_links(&html) {
            if leads_somewhere(&page, &html, link) {
                found.good += 1;
            } else {
                found.broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    Ok(found)
}

/// All `.html` files below `folder`.
fn pages(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(pages(&path)?);
        } else if path.extension().is_some_and(|kind| kind == "html") {
            found.push(path);
        }
    }
    Ok(found)
}

/// The values of `href` and `src` attributes that name no other site.
fn relative_links(html: &str) -> impl Iterator<Item = &str> {
    let values = |attribute| {
        html.split(attribute)
            .skip(1)
            .filter_map(|rest| rest.split('"').next())
    };
    let elsewhere = |link: &&str| link.contains("://") || link.starts_with("mailto:");
    values(" href=\"")
        .chain(values(" src=\""))
        .filter(move |link| !elsewhere(link))
}

fn leads_somewhere(page: &Path, html: &str, link: &str) -> bool {
    let (file, fragment) = link.split_once('#').unwrap_or((link, ""));
    let target = page.with_file_name(file);
    let has_id = |html: &str| fragment.is_empty() || html.contains(&format!("id=\"{fragment}\""));
    match file {
        "" => !link.is_empty() && has_id(html),
        _ if fragment.is_empty() => target.exists(),
        _ => fs::read_to_string(target).is_ok_and(|html| has_id(&html)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_missing_files_images_and_ids_are_found() {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("page.html");
        let html = r##"<h1 id="top"> <a href="#top"> <a href="#gone"> <a href="Cargo.toml">
            <a href="gone.html"> <img src="gone.png"> <a href="https://example.org/gone"> "##;
        let broken: Vec<&str> = relative_links(html)
            .filter(|link| !leads_somewhere(&page, html, link))
            .collect();
        assert_eq!(broken, ["#gone", "gone.html", "gone.png"]);
    }
}
