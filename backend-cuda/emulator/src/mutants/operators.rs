//! What may be wrong with a kernel, one small edit at a time.

use std::ops::Range;

use super::tokens::{Token, tokens};

/// Some bytes of a text, and what stands in their place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Edit {
    pub(super) operator: &'static str,
    pub(super) bytes: Range<usize>,
    pub(super) to: String,
}

type Operator = fn(&Source<'_>, usize) -> Option<(Range<usize>, String)>;

/// Each looks at one token, and says what it makes of it and its neighbours.
const OPERATORS: [(&str, Operator); 10] = [
    ("arithmetic", arithmetic),
    ("comparison", comparison),
    ("logic", logic),
    ("always", always),
    ("never", never),
    ("sign", sign),
    ("constant", constant),
    ("name", name),
    ("arguments", arguments),
    ("statement", statement),
];

/// Names of the same type, of which one may stand where the other should.
const NAMES: [[&str; 2]; 30] = [
    ["i", "j"],
    ["x", "y"],
    ["f", "g"],
    ["a", "b"],
    ["m", "n"],
    ["p", "q"],
    ["row", "col"],
    ["rows", "cols"],
    ["rows", "columns"],
    ["row", "column"],
    ["first", "second"],
    ["start", "end"],
    ["side", "other"],
    ["lane", "warp"],
    ["left", "right"],
    ["down", "across"],
    ["hg", "hf"],
    ["t1", "t2"],
    ["old", "fresh"],
    ["beta1", "beta2"],
    ["c1", "c2"],
    ["of", "turned"],
    ["by_rows", "by_columns"],
    ["BY_ROWS", "BY_COLUMNS"],
    ["FF", "GG"],
    ["FH", "HH"],
    ["LEFT", "BOTH"],
    ["ROOT", "VECTORS"],
    ["RA", "RB"],
    ["X", "Q"],
];

/// Functions of which two neighbouring arguments may change places, and the comma between them.
const COMMUTATIVE: [(&str, usize); 5] =
    [("fma", 1), ("min", 1), ("max", 1), ("fmax", 1), ("dot", 2)];

/// What is no declaration although a word follows a word, and no call although a parenthesis does.
const KEYWORDS: [&str; 12] = [
    "return", "break", "continue", "case", "default", "if", "else", "for", "switch", "struct",
    "template", "typedef",
];

/// All edits, in the order of the text; on a line none is there twice.
pub(super) fn edits(text: &str) -> Vec<Edit> {
    let source = Source {
        text,
        tokens: tokens(text),
    };
    let mut edits: Vec<Edit> = Vec::new();
    for at in (0..source.tokens.len()).filter(|at| !source.is_stride_of_a_loop(*at)) {
        for (operator, apply) in OPERATORS {
            let Some((bytes, to)) = apply(&source, at) else {
                continue;
            };
            let same = |edit: &&Edit| {
                edit.operator == operator
                    && text[edit.bytes.clone()] == text[bytes.clone()]
                    && edit.to == to
            };
            let line = text[..bytes.start].rfind('\n').unwrap_or(0);
            let on_line = |edit: &&Edit| edit.bytes.start > line;
            let repeats = matches!(operator, "constant" | "name");
            if !(repeats
                && edits
                    .iter()
                    .rev()
                    .take_while(on_line)
                    .any(|edit| same(&edit)))
            {
                edits.push(Edit {
                    operator,
                    bytes,
                    to,
                });
            }
        }
    }
    edits
}

struct Source<'t> {
    text: &'t str,
    tokens: Vec<Token<'t>>,
}

impl Source<'_> {
    fn word(&self, at: usize) -> &str {
        self.tokens.get(at).map_or("", |token| token.text)
    }

    fn before(&self, at: usize) -> &str {
        at.checked_sub(1).map_or("", |at| self.word(at))
    }

    /// Between operands: there is space on both sides.
    fn is_binary(&self, at: usize) -> bool {
        let token = self.tokens[at];
        let spaced = |c: Option<char>| c.is_some_and(char::is_whitespace);
        spaced(self.text[..token.at].chars().next_back())
            && spaced(self.text[token.end()..].chars().next())
    }

    fn replaced(&self, at: usize, to: &str) -> Option<(Range<usize>, String)> {
        let token = self.tokens[at];
        Some((token.at..token.end(), to.into()))
    }

    /// The condition of an `if` whose parenthesis is at `open`, and where that is closed.
    fn condition(&self, open: usize) -> Option<(Range<usize>, usize)> {
        let close = self.closing(open).filter(|_| self.before(open) == "if")?;
        Some((self.tokens[open].end()..self.tokens[close].at, close))
    }

    /// The parenthesis that closes the one at `open`.
    fn closing(&self, open: usize) -> Option<usize> {
        let mut depth = 0;
        (open..self.tokens.len()).find(|at| {
            depth += match self.word(*at) {
                "(" | "[" | "{" => 1,
                ")" | "]" | "}" => -1,
                _ => 0,
            };
            depth == 0
        })
    }

    /// The parenthesis, bracket or brace around a token.
    fn opening(&self, inside: usize) -> Option<usize> {
        let mut depth = 0;
        (0..inside).rev().find(|at| {
            depth += match self.word(*at) {
                "(" | "[" | "{" => 1,
                ")" | "]" | "}" => -1,
                _ => 0,
            };
            depth == 1
        })
    }

    /// In the last part of a loop's head: a change there would make loops that do not end.
    fn is_stride_of_a_loop(&self, at: usize) -> bool {
        let Some(open) = self.opening(at) else {
            return false;
        };
        if self.before(open) != "for" {
            return self.word(open) != "{" && self.is_stride_of_a_loop(open);
        }
        (open..at).filter(|k| self.word(*k) == ";").count() == 2
    }

    /// The tokens from one brace at the start of a line to the next.
    fn function_around(&self, at: usize) -> &[Token<'_>] {
        let at = self.tokens[at].at;
        let start = self.text[..at].rfind("\n}").unwrap_or(0);
        let end = self.text[at..]
            .find("\n}")
            .map_or(self.text.len(), |end| at + end);
        let first = self.tokens.partition_point(|token| token.at < start);
        let last = self.tokens.partition_point(|token| token.at < end);
        &self.tokens[first..last]
    }

    /// A statement can start here.
    fn starts_statement(&self, at: usize) -> bool {
        if self.opening(at).is_some_and(|open| self.word(open) == "(") {
            return false;
        }
        match self.before(at) {
            "" | ";" | "{" | "}" | "else" => true,
            ":" => self.before(at - 1) == "default" || self.before(at - 2) == "case",
            ")" => (0..at)
                .rev()
                .find(|open| self.closing(*open) == Some(at - 1))
                .is_some_and(|open| {
                    matches!(self.before(open), "if" | "for") && self.word(open) == "("
                }),
            _ => false,
        }
    }
}

fn arithmetic(source: &Source<'_>, at: usize) -> Option<(Range<usize>, String)> {
    let to = match source.word(at) {
        "+" => "-",
        "-" => "+",
        "*" => "/",
        "/" | "%" => "*",
        "+=" => "-=",
        "*=" => "=",
        "|" => "&",
        "^" => "|",
        "<<" => ">>",
        ">>" => "<<",
        _ => return None,
    };
    source.is_binary(at).then(|| source.replaced(at, to))?
}

fn comparison(source: &Source<'_>, at: usize) -> Option<(Range<usize>, String)> {
    let to = match source.word(at) {
        "<" => "<=",
        "<=" => "<",
        ">" => ">=",
        ">=" => ">",
        "==" => "!=",
        "!=" => "==",
        _ => return None,
    };
    source.is_binary(at).then(|| source.replaced(at, to))?
}

fn logic(source: &Source<'_>, at: usize) -> Option<(Range<usize>, String)> {
    let to = match source.word(at) {
        "&&" => "||",
        "||" => "&&",
        _ => return None,
    };
    source.is_binary(at).then(|| source.replaced(at, to))?
}

/// A condition that always holds. (That it never holds is seen where what it guards is left out.)
fn always(source: &Source<'_>, at: usize) -> Option<(Range<usize>, String)> {
    if source.word(at) == "?" {
        return source.replaced(at, "|| true ?");
    }
    let (bytes, close) = source.condition(at)?;
    let jumps = matches!(source.word(close + 1), "return" | "continue" | "break");
    (!jumps).then(|| (bytes, "true".into()))
}

/// A condition that never holds, of more than a statement.
fn never(source: &Source<'_>, at: usize) -> Option<(Range<usize>, String)> {
    if source.word(at) == "?" {
        return source.replaced(at, "&& false ?");
    }
    let (bytes, close) = source.condition(at)?;
    let guards_more = matches!(source.word(close + 1), "{" | "for");
    guards_more.then(|| (bytes, "false".into()))
}

/// A sign or a negation that is lost.
fn sign(source: &Source<'_>, at: usize) -> Option<(Range<usize>, String)> {
    let unary = matches!(source.word(at), "-" | "!") && !source.is_binary(at);
    unary.then(|| source.replaced(at, ""))?
}

fn constant(source: &Source<'_>, at: usize) -> Option<(Range<usize>, String)> {
    let token = source.tokens[at];
    // Room for blocks, and all lanes of a warp.
    if !token.is_number() || source.before(at - 1) == "KERNEL_OF" || token.text == "0xffffffffu" {
        return None;
    }
    let to = match token.text {
        "0" => "1".into(),
        "1" => "0".into(),
        "0.0" => "1.0".into(),
        "1.0" => "0.0".into(),
        "0.0f" => "1.0f".into(),
        text if text.contains('.') || text.contains("e-") => format!("(1e3f * {text})"),
        text => format!("({text} + 1)"),
    };
    source.replaced(at, &to)
}

/// A name for another one, where it is read.
fn name(source: &Source<'_>, at: usize) -> Option<(Range<usize>, String)> {
    if !source.tokens[at].is_word() {
        return None;
    }
    let is_declared = at > 0 && {
        let previous = source.tokens[at - 1];
        let points = matches!(previous.text, "*" | "&") && !source.is_binary(at - 1);
        (previous.is_word() && !KEYWORDS.contains(&previous.text)) || points
    };
    let written = source.word(at + 1) == "=" || source.word(at + 1) == "(" && is_declared;
    if is_declared || written {
        return None;
    }
    let here = source.function_around(at);
    let is_known = |name: &str| here.iter().any(|token| token.text == name);
    let pairs = NAMES.iter().filter(|pair| pair.contains(&source.word(at)));
    let mut others = pairs.map(|pair| pair[usize::from(pair[0] == source.word(at))]);
    source.replaced(at, others.find(|other| is_known(other))?)
}

/// Two neighbouring arguments of a call, of the same form, change places.
fn arguments(source: &Source<'_>, at: usize) -> Option<(Range<usize>, String)> {
    if source.word(at) != "," {
        return None;
    }
    let open = source
        .opening(at)
        .filter(|open| source.word(*open) == "(")?;
    let close = source.closing(open)?;
    let mut commas = vec![open];
    commas.extend(
        (open + 1..close).filter(|k| source.word(*k) == "," && source.opening(*k) == Some(open)),
    );
    commas.push(close);
    let this = commas.iter().position(|comma| *comma == at)?;
    let commutes = COMMUTATIVE
        .iter()
        .find(|(name, _)| *name == source.before(open));
    if commutes.is_some_and(|(_, comma)| *comma == this) {
        return None;
    }
    let form = |from: usize, to: usize| match to - from - 1 {
        1 => source.tokens[from + 1].is_word().then_some("a name"),
        _ => matches!(source.word(from + 1), "of" | "turned").then_some("a matrix"),
    };
    let (left, right) = ((commas[this - 1], at), (at, commas[this + 1]));
    let alike = form(left.0, left.1).is_some_and(|one| form(right.0, right.1) == Some(one));
    let argument =
        |(from, to): (usize, usize)| source.tokens[from + 1].at..source.tokens[to - 1].end();
    let (left, right) = (argument(left), argument(right));
    let text = |range: &Range<usize>| &source.text[range.clone()];
    let to = format!("{}, {}", text(&right), text(&left));
    (alike && text(&left) != text(&right)).then_some((left.start..right.end, to))
}

/// An assignment, a call, a `return;` and the like, left out.
fn statement(source: &Source<'_>, at: usize) -> Option<(Range<usize>, String)> {
    if !source.starts_statement(at) {
        return None;
    }
    let end = (at..source.tokens.len()).find(|end| {
        source.word(*end) == ";" && source.opening(*end) == source.opening(at)
            || source.word(*end) == "{"
    })?;
    let words = |k: usize| source.word(at + k);
    let jumps = matches!(words(0), "return" | "continue" | "break") && words(1) == ";";
    let acts = match words(1) {
        "(" | "." | "->" | "[" | "=" | "+=" | "*=" | "|=" | "<" => true,
        _ => matches!(words(0), "*" | "++"),
    };
    let keyword = KEYWORDS.contains(&words(0));
    let declares = words(1) == "<" && source.tokens[at..end].iter().any(|token| token.text == "=");
    let can_go = jumps || (acts && !keyword && !declares);
    if source.word(end) != ";" || !can_go {
        return None;
    }
    Some((source.tokens[at].at..source.tokens[end].end(), ";".into()))
}
