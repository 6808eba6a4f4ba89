//! The words of a kernel's source, without comments and preprocessor lines.

/// Operators of more than one character, the longest first.
const LONG: [&str; 21] = [
    "<<=", ">>=", "&&", "||", "==", "!=", "<=", ">=", "+=", "-=", "*=", "/=", "|=", "&=", "^=",
    "++", "--", "->", "::", "<<", ">>",
];

#[derive(Clone, Copy, Debug)]
pub(super) struct Token<'t> {
    /// Its first byte in the text.
    pub(super) at: usize,
    pub(super) text: &'t str,
}

impl Token<'_> {
    pub(super) fn end(&self) -> usize {
        self.at + self.text.len()
    }

    pub(super) fn is_word(&self) -> bool {
        self.text
            .starts_with(|c: char| c.is_alphabetic() || c == '_')
    }

    pub(super) fn is_number(&self) -> bool {
        self.text.starts_with(|c: char| c.is_ascii_digit())
    }
}

pub(super) fn tokens(text: &str) -> Vec<Token<'_>> {
    let (mut tokens, mut at) = (Vec::new(), 0);
    while let Some(next) = text[at..].chars().next() {
        let rest = &text[at..];
        let len = if next.is_whitespace() {
            next.len_utf8()
        } else if rest.starts_with("//") || next == '#' {
            rest.find('\n').unwrap_or(rest.len())
        } else {
            let len = length(rest);
            tokens.push(Token {
                at,
                text: &rest[..len],
            });
            len
        };
        at += len;
    }
    tokens
}

/// The length of the token that a text starts with.
fn length(rest: &str) -> usize {
    let first = rest.chars().next().map_or(0, char::len_utf8);
    if let Some(text) = rest.strip_prefix('"') {
        return text.find('"').map_or(rest.len(), |end| end + 2);
    }
    if rest.starts_with(|c: char| c.is_ascii_digit()) {
        let (mut previous, decimal) = (' ', !rest.starts_with("0x"));
        let ends = |c: char| {
            let signed = decimal && (c == '-' || c == '+') && (previous == 'e' || previous == 'E');
            previous = c;
            !(c.is_alphanumeric() || c == '.' || signed)
        };
        return rest.find(ends).unwrap_or(rest.len());
    }
    if rest.starts_with(|c: char| c.is_alphabetic() || c == '_') {
        let ends = |c: char| !(c.is_alphanumeric() || c == '_');
        return rest.find(ends).unwrap_or(rest.len());
    }
    let long = LONG.iter().find(|long| rest.starts_with(**long));
    long.map_or(first, |long| long.len())
}
