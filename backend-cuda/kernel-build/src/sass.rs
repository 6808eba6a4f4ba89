//! What the machine code holds: instructions that must be there, and those that must not.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::Result;
use crate::compile::{Built, TARGETS};
use crate::toolkit::{Toolkit, output};

/// The rules, among the kernels. A line names kernels, targets and instructions; `*` stands for any
/// letters, `!` for none of them.
const FILE: &str = "sass.txt";

struct Rule {
    kernels: String,
    targets: String,
    instructions: Vec<String>,
}

/// A kernel, with every instruction that is in it.
struct Code {
    kernel: String,
    instructions: BTreeSet<String>,
}

/// Disassembles the machine code and holds the rules against it.
pub fn check(toolkit: &Toolkit, built: &Built, kernels: &Path) -> Result<()> {
    let file = kernels.join(FILE);
    let text = fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    let rules = parse(&text)?;
    let mut broken = aimless(&rules);
    for (target, (_, image)) in TARGETS.iter().zip(&built.images) {
        if target.is_machine() {
            broken.extend(judge(&rules, target.arch, &disassemble(toolkit, image)?));
        }
    }
    if broken.is_empty() {
        return Ok(());
    }
    Err(format!("{} is broken:\n  {}", FILE, broken.join("\n  ")))
}

/// Rules for targets that there are not.
fn aimless(rules: &[Rule]) -> Vec<String> {
    let known = |rule: &&Rule| {
        TARGETS
            .iter()
            .any(|target| matches(&rule.targets, target.arch))
    };
    let unknown = rules.iter().filter(|rule| !known(rule));
    unknown
        .map(|rule| format!("there is no target {}", rule.targets))
        .collect()
}

fn disassemble(toolkit: &Toolkit, image: &[u8]) -> Result<Vec<Code>> {
    let file = tempfile::NamedTempFile::new().map_err(|error| error.to_string())?;
    fs::write(&file, image).map_err(|error| error.to_string())?;
    let mut command = toolkit.program("cuobjdump");
    Ok(functions(&output(command.arg("-sass").arg(file.path()))?.0))
}

/// The functions of a listing.
fn functions(listing: &str) -> Vec<Code> {
    let mut code: Vec<Code> = Vec::new();
    for line in listing.lines() {
        if let Some((_, name)) = line.split_once("Function : ") {
            code.push(Code {
                kernel: name.trim().into(),
                instructions: BTreeSet::new(),
            });
        } else if let (Some(last), Some(name)) = (code.last_mut(), instruction(line)) {
            last.instructions.insert(name.into());
        }
    }
    code
}

/// `/*00e0*/  @P0 LDG.E.128 R8, ... ;` holds `LDG.E.128`.
fn instruction(line: &str) -> Option<&str> {
    let (address, rest) = line.trim().strip_prefix("/*")?.split_once("*/")?;
    let mut words = rest
        .split_whitespace()
        .filter(|word| !word.starts_with('@'));
    let word = words.next()?.trim_end_matches(';');
    // The second half of an instruction stands alone, without an address.
    (address.len() <= 8 && word.starts_with(|c: char| c.is_ascii_uppercase())).then_some(word)
}

fn parse(text: &str) -> Result<Vec<Rule>> {
    let lines = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or(""));
    lines
        .filter(|line| !line.trim().is_empty())
        .map(|line| {
            let mut words = line.split_whitespace().map(String::from);
            match (words.next(), words.next(), words.collect::<Vec<_>>()) {
                (Some(kernels), Some(targets), instructions) if !instructions.is_empty() => {
                    Ok(Rule {
                        kernels,
                        targets,
                        instructions,
                    })
                }
                _ => Err(format!(
                    "{FILE}: `{line}` does not name kernels, targets and instructions"
                )),
            }
        })
        .collect()
}

/// Every rule that does not hold, in words.
fn judge(rules: &[Rule], target: &str, code: &[Code]) -> Vec<String> {
    let mut broken = Vec::new();
    for rule in rules.iter().filter(|rule| matches(&rule.targets, target)) {
        let meant = code
            .iter()
            .filter(|code| matches(&rule.kernels, &code.kernel));
        let meant: Vec<&Code> = meant.collect();
        if meant.is_empty() {
            broken.push(format!("there is no kernel {} on {target}", rule.kernels));
        }
        for code in meant {
            let broke = rule
                .instructions
                .iter()
                .filter_map(|pattern| code.breaks(pattern));
            let broke: Vec<String> = broke.collect();
            if !broke.is_empty() {
                broken.push(format!(
                    "{} on {target} has {}",
                    code.kernel,
                    broke.join(", ")
                ));
            }
        }
    }
    broken
}

impl Code {
    fn breaks(&self, pattern: &str) -> Option<String> {
        let found = |pattern: &str| {
            let is =
                |name: &&String| matches(pattern, name) || matches(&format!("{pattern}.*"), name);
            self.instructions.iter().find(is)
        };
        match pattern.strip_prefix('!') {
            Some(pattern) => found(pattern).cloned(),
            None => found(pattern).is_none().then(|| format!("no {pattern}")),
        }
    }
}

/// Whether a text is what a pattern with `*` stands for.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, tail)) => text.strip_prefix(head).is_some_and(|rest| {
            (0..=rest.len()).any(|skip| rest.is_char_boundary(skip) && matches(tail, &rest[skip..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = "
	code for sm_90
		Function : sum
	.headerflags	@\"EF_CUDA_SM90\"
        /*0000*/                   LDC R1, c[0x0][0x28] ;             /* 0x00000a00ff017b82 */
                                                                      /* 0x000fe20000000800 */
        /*00e0*/               @P0 LDG.E.128.CONSTANT R8, [R26.64] ;  /* 0x000000061a080981 */
        /*00f0*/                   EXIT ;                             /* 0x000000061a080981 */
		Function : spill
        /*0010*/                   STL [R1], R2 ;                     /* 0x00000a00ff017b82 */
";

    #[test]
    fn a_listing_becomes_functions() {
        let code = functions(LISTING);
        assert_eq!(code.len(), 2);
        let names: Vec<&str> = code[0].instructions.iter().map(|name| &name[..]).collect();
        assert_eq!(names, ["EXIT", "LDC", "LDG.E.128.CONSTANT"]);
        assert!(code[1].instructions.contains("STL"));
    }

    #[test]
    fn broken_rules_are_told() {
        let rules =
            parse("# rules\n* * !STL !LDL\nsum sm_9* LDG.E.128 LDG*CONSTANT DMMA\nnone * A\n");
        let broken = judge(&rules.unwrap(), "sm_90", &functions(LISTING));
        assert_eq!(
            broken,
            [
                "spill on sm_90 has STL",
                "sum on sm_90 has no DMMA",
                "there is no kernel none on sm_90",
            ]
        );
        assert!(parse("sum sm_90").is_err());
        let aimless = aimless(&parse("* sm_70 A").unwrap());
        assert_eq!(aimless, ["there is no target sm_70"]);
    }

    #[test]
    fn patterns() {
        assert!(matches("a*c*", "abcd") && matches("*", "") && matches("ab", "ab"));
        assert!(!matches("a*c", "abcd") && !matches("ab", "abc"));
    }
}
