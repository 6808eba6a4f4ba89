//! A page in one file that loads nothing.

use crate::escape::markup;

/// A page: its title, its style sheet, more elements of its head, and its body.
pub fn page(title: &str, style: &str, head: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n{head}\
         <title>{}</title>\n<style>\n{style}</style>\n</head>\n<body>\n{body}</body>\n</html>\n",
        markup(title)
    )
}

/// A definition list.
pub fn definitions<N: AsRef<str>>(entries: impl IntoIterator<Item = (N, String)>) -> String {
    let entry = |(name, value): (N, String)| {
        format!(
            "<dt>{}</dt><dd>{}</dd>\n",
            markup(name.as_ref()),
            markup(&value)
        )
    };
    let entries: String = entries.into_iter().map(entry).collect();
    format!("<dl>\n{entries}</dl>")
}
