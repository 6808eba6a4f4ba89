//! The order that people expect of names with numbers: `law-2` before `law-15`, `1e2` before
//! `1e10`.

use std::cmp::Ordering;

/// Compares runs of digits as numbers and everything else as text.
pub fn compare(a: &str, b: &str) -> Ordering {
    pieces(a).cmp(&pieces(b)).then_with(|| a.cmp(b))
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Piece<'t> {
    Number(u64),
    Text(&'t str),
}

fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut rest = text;
    let mut pieces = Vec::new();
    while let Some(first) = rest.chars().next() {
        let digits = first.is_ascii_digit();
        let end = rest.find(|c: char| c.is_ascii_digit() != digits);
        let (piece, after) = rest.split_at(end.unwrap_or(rest.len()));
        pieces.push(match piece.parse() {
            Ok(number) if digits => Piece::Number(number),
            _ => Piece::Text(piece),
        });
        rest = after;
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_compared_as_numbers() {
        let mut names = [
            "law-15",
            "κ/1e10",
            "law-2",
            "κ/1e2",
            "differential",
            "law-02",
        ];
        names.sort_by(|a, b| compare(a, b));
        let sorted = [
            "differential",
            "law-02",
            "law-2",
            "law-15",
            "κ/1e2",
            "κ/1e10",
        ];
        assert_eq!(names, sorted);
    }
}
