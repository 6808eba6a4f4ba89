//! Text inside of markup. Names, reasons and manifests come from the program under test: none of it may
//! turn into markup.

/// For text and quoted attributes of HTML and XML. What XML cannot hold becomes a replacement
/// character.
pub fn markup(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' | '\t' => escaped.push(c),
            '\u{FFFE}' | '\u{FFFF}' => escaped.push('\u{FFFD}'),
            c if c.is_control() => escaped.push('\u{FFFD}'),
            c => escaped.push(c),
        }
    }
    escaped
}

/// For JSON inside of a `script` element, which `</script>` or `<!--` would end.
pub fn json(text: &str) -> String {
    text.replace('<', "\\u003c")
}

/// A word of a shell's command line.
pub fn shell(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.into();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_turns_into_markup() {
        assert_eq!(
            markup("<a b=\"c\" d='e'>&\u{1}"),
            "&lt;a b=&quot;c&quot; d=&#39;e&#39;&gt;&amp;\u{FFFD}"
        );
        assert_eq!(json("</script>"), "\\u003c/script>");
        assert_eq!(shell("it's"), r"'it'\''s'");
        assert_eq!(shell("a/b.json"), "a/b.json");
    }
}
