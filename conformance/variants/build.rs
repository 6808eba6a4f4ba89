//! Copies the reference's source and writes every fault into the copy: an edited expression becomes
//! `match crate::active() { 7 => { faulty } _ => { exact } }`. All faults are compiled at once, and
//! one is switched on when it is wanted (mutation testing calls this mutant schemata).
//!
//! `faults/*.diff` holds them, each as
//!
//! ```text
//! # its name, never used again for another
//! what is wrong, and what a user would see of it
//! @ module::function
//! - an expression or statement that stands once in the function, white space aside
//! + what replaces it; it may call whatever is in `src/wrong.rs`
//! ```
//!
//! with more edits where one is not enough. Lines that begin alike are one text; `;` is a comment.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The files of faults, in the order of the kill matrix.
const FAULTS: [&str; 10] = [
    "closed_form",
    "x",
    "inverses",
    "adam",
    "factored",
    "options",
    "gradients",
    "batch",
    "storage",
    "unpaired",
];

/// Adam of an unpaired parameter has faults of its own. Those of the adapters stay out of it, so
/// that a check of unpaired parameters does not see them.
const EXACT: (&str, &str, &str) = (
    "contract::param::compute",
    "adam(hyper, &old, &(gradient * sign), t)",
    "crate::without_fault(|| adam(hyper, &old, &(gradient * sign), t))",
);

#[derive(Default)]
struct Fault {
    id: String,
    what: String,
    /// Function, old text, new text.
    edits: Vec<[String; 3]>,
}

/// A text that replaces a range of a file, and the number of its fault; 0 is what stands there
/// where no fault of that range is active.
struct Replacement {
    range: Range<usize>,
    fault: usize,
    text: String,
}

type Edits = Vec<Replacement>;

fn main() {
    println!("cargo::rerun-if-changed=faults");
    let variable = |name: &str| PathBuf::from(std::env::var_os(name).expect("set by cargo"));
    let source = variable("DEP_LORA_PRO_REFERENCE_SRC");
    let out = variable("OUT_DIR");
    println!("cargo::rerun-if-changed={}", source.display());

    let faults: Vec<Fault> = FAULTS.iter().flat_map(|name| read_faults(name)).collect();
    let small = read_faults("small");
    let mut generated = listed(
        "FAULTS",
        "Faults that ports have had, or could well have.",
        &faults,
    ) + &listed(
        "SMALL_FAULTS",
        "Errors in a digit or an entry, and noise.",
        &small,
    );

    let numbered = faults.iter().chain(&small);
    let mut files = BTreeMap::new();
    read_source(&source, Path::new(""), &mut files);
    let (edits, lost) = locate(&files, numbered);
    for (name, text) in &files {
        let path = out.join(if name == "lib.rs" { "mod.rs" } else { name });
        fs::create_dir_all(path.parent().expect("below OUT_DIR")).expect("OUT_DIR is ours");
        let none = Vec::new();
        fs::write(path, edited(text, edits.get(name).unwrap_or(&none))).expect("OUT_DIR is ours");
    }
    generated += &format!(
        "/// Edits whose text is not in the reference.\n\
         pub const LOST: &[&str] = &{lost:?};\n\
         #[allow(clippy::all, dead_code, missing_docs, rustdoc::all, unused, unused_parens)]\n\
         #[path = {:?}]\nmod reference;\n",
        out.join("mod.rs")
    );
    fs::write(out.join("faults.rs"), generated).expect("OUT_DIR is ours");
}

/// The faults of a file.
fn read_faults(name: &str) -> Vec<Fault> {
    let path = format!("faults/{name}.diff");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let mut faults: Vec<Fault> = Vec::new();
    for line in text.lines() {
        let (mark, rest) = line.split_at(line.len().min(1));
        let rest = rest.trim();
        match (mark, faults.last_mut()) {
            ("" | ";", _) => {}
            ("#", _) => faults.push(Fault {
                id: rest.into(),
                ..Fault::default()
            }),
            ("@", Some(fault)) => fault.edits.push([rest.into(), "".into(), "".into()]),
            ("-" | "+", Some(fault)) => {
                let edit = fault.edits.last_mut();
                let edit = edit.unwrap_or_else(|| panic!("{path}: no `@` before `{line}`"));
                append(&mut edit[if mark == "-" { 1 } else { 2 }], rest);
            }
            (_, Some(fault)) => append(&mut fault.what, line),
            (_, None) => panic!("{path}: no `#` before `{line}`"),
        }
    }
    faults
}

fn append(text: &mut String, line: &str) {
    if !text.is_empty() {
        text.push(' ');
    }
    text.push_str(line);
}

/// The library's list of these faults.
fn listed(name: &str, doc: &str, faults: &[Fault]) -> String {
    let each = |fault: &Fault| format!("Fault {{ id: {:?}, what: {:?} }},\n", fault.id, fault.what);
    let list: String = faults.iter().map(each).collect();
    format!(
        "/// {doc}\npub static {name}: [Fault; {}] = [\n{list}];\n",
        faults.len()
    )
}

/// All Rust files of a folder by their path in it.
fn read_source(root: &Path, under: &Path, files: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(root.join(under)).expect("the reference's source") {
        let entry = entry.expect("a file of the reference");
        let name = under.join(entry.file_name());
        if entry.path().is_dir() {
            read_source(root, &name, files);
        } else if name.extension().is_some_and(|end| end == "rs") {
            let text = fs::read_to_string(entry.path()).expect("Rust is UTF-8");
            files.insert(name.to_string_lossy().replace('\\', "/"), text);
        }
    }
}

/// Where each edit applies, by file, and the edits whose text is nowhere.
fn locate<'a>(
    files: &BTreeMap<String, String>,
    faults: impl Iterator<Item = &'a Fault>,
) -> (BTreeMap<String, Edits>, Vec<String>) {
    let (mut found, mut lost) = (BTreeMap::<String, Edits>::new(), Vec::new());
    let mut add = |fault: usize, id: &str, [within, find, text]: [&str; 3]| match place(
        files, within, find,
    ) {
        Ok((file, range)) => found.entry(file).or_default().push(Replacement {
            range,
            fault,
            text: text.into(),
        }),
        Err(why) => lost.push(format!("{id}: {within}: `{find}`: {why}")),
    };
    for (k, fault) in faults.enumerate() {
        for [within, find, replace] in &fault.edits {
            let text = format!("use crate::wrong::*; {replace}");
            add(k + 1, &fault.id, [within, find, &text]);
        }
    }
    add(0, "exact", EXACT.into());
    (found, lost)
}

/// The file and the range of `find` in the function `module::function`, where it must stand once.
fn place(
    files: &BTreeMap<String, String>,
    within: &str,
    find: &str,
) -> Result<(String, Range<usize>), &'static str> {
    let (module, function) = within.rsplit_once("::").ok_or("no module")?;
    let file = format!("{}.rs", module.replace("::", "/"));
    let text = files.get(&file).ok_or("no such file")?;
    let head = [format!("fn {function}("), format!("fn {function}<")];
    let start = head.iter().find_map(|head| text.find(head.as_str()));
    let start = start.ok_or("no such function")?;
    let line = text[..start].rfind('\n').map_or(0, |end| end + 1);
    let indent = text[line..].len() - text[line..].trim_start().len();
    let end = format!("\n{}}}\n", " ".repeat(indent));
    let end = start + text[start..].find(&end).ok_or("no end of the function")?;
    let mut places = (start..end).filter_map(|at| {
        let length = matched(text.get(at..end)?, find)?;
        Some(at..at + length)
    });
    match (places.next(), places.next()) {
        (Some(range), None) => Ok((file, range)),
        (None, _) => Err("not found"),
        (Some(_), Some(_)) => Err("found more than once"),
    }
}

/// How much of the text's start is `find`, white space and trailing commas aside.
fn matched(text: &str, find: &str) -> Option<usize> {
    let mut wanted = find.chars().filter(|c| !c.is_whitespace()).peekable();
    let mut chars = text.char_indices().peekable();
    if chars.peek()?.1.is_whitespace() {
        return None;
    }
    while let Some(&next) = wanted.peek() {
        let (_, c) = chars.find(|(_, c)| !c.is_whitespace())?;
        if c == next {
            wanted.next();
        } else if c != ',' || !")]}".contains(next) {
            return None;
        }
    }
    Some(chars.peek().map_or(text.len(), |(at, _)| *at))
}

/// The file with its edits, as a module of this crate.
fn edited(text: &str, edits: &Edits) -> String {
    let mut by_range = BTreeMap::<(usize, usize), Vec<&Replacement>>::new();
    for edit in edits {
        let at = by_range.entry((edit.range.start, edit.range.end));
        at.or_default().push(edit);
    }
    let (mut out, mut done) = (String::new(), 0);
    for ((start, end), edits) in by_range {
        assert!(done <= start, "edits overlap: {}", &text[start..end]);
        out += &as_module(&text[done..start]);
        let is_statement = text[start..end].ends_with(';');
        out += if is_statement { "match" } else { "(match" };
        out += " crate::active() {";
        let mut exact = as_module(&text[start..end]);
        for Replacement { fault, text, .. } in edits {
            match fault {
                0 => exact = text.clone(),
                fault => out += &format!(" {fault} => {{ {text} }}"),
            }
        }
        out += &format!(" _ => {{ {exact} }} }}");
        out += if is_statement { "" } else { ")" };
        done = end;
    }
    out + &as_module(&text[done..])
}

/// Text of the reference's root, one level deeper.
fn as_module(text: &str) -> String {
    let of_crate = |line: &&str| !line.trim_start().starts_with("#![");
    let lines: Vec<&str> = text.split('\n').filter(of_crate).collect();
    lines.join("\n").replace("crate::", "crate::reference::")
}
