//! What the machine code holds: instructions that must be there, and those that must not.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::compile::{Built, TARGETS};
use crate::result::Result;
use crate::toolkit::{Toolkit, output};

/// The rules, among the kernels. A line names kernels, targets and instructions; a name may end in `*`,
/// `!` stands before an instruction that must not be there.
const FILE: &str = "sass.txt";

/// Every instruction of each kernel.
type Code = BTreeMap<String, BTreeSet<String>>;

/// Disassembles the machine code and holds the rules against it.
pub fn check(toolkit: &Toolkit, built: &Built, kernels: &Path) -> Result<()> {
    let file = kernels.join(FILE);
    let rules =
        fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    let mut code = BTreeMap::new();
    for (target, (_, image)) in TARGETS.iter().zip(&built.images) {
        if target.is_machine() {
            code.insert(target.arch, disassemble(toolkit, image)?);
        }
    }
    let broken = broken(&rules, &code);
    match broken.is_empty() {
        true => Ok(()),
        false => Err(format!("{FILE} is broken:\n  {}", broken.join("\n  "))),
    }
}

fn disassemble(toolkit: &Toolkit, image: &[u8]) -> Result<Code> {
    let file = tempfile::NamedTempFile::new().map_err(|error| error.to_string())?;
    fs::write(&file, image).map_err(|error| error.to_string())?;
    let mut command = toolkit.program("cuobjdump");
    Ok(functions(&output(command.arg("-sass").arg(file.path()))?.0))
}

/// The functions of a listing. `/*00e0*/  @P0 LDG.E.128 R8, ... ;` holds `LDG.E.128`; the second half of an
/// instruction stands alone, without an address.
fn functions(listing: &str) -> Code {
    let (mut code, mut kernel) = (Code::new(), String::new());
    for line in listing.lines() {
        if let Some((_, name)) = line.split_once("Function : ") {
            kernel = name.trim().into();
            code.entry(kernel.clone()).or_default();
        }
        let (_, words) = line.split_once("*/").unwrap_or_default();
        let mut words = words
            .split_whitespace()
            .filter(|word| !word.starts_with('@'));
        let word = words.next().unwrap_or_default().trim_end_matches(';');
        if let (true, Some(code)) = (
            word.starts_with(|c: char| c.is_ascii_uppercase()),
            code.get_mut(&kernel),
        ) {
            code.insert(word.into());
        }
    }
    code
}

/// Every rule that does not hold, in words; `code` is by target.
fn broken(rules: &str, code: &BTreeMap<&str, Code>) -> Vec<String> {
    let mut broken = Vec::new();
    for line in rules
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default())
    {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [kernels, targets, instructions @ ..] = &words[..] else {
            continue;
        };
        let targets = code.iter().filter(|(target, _)| is(targets, target));
        let meant = targets
            .flat_map(|(target, code)| code.iter().map(move |(name, code)| (target, name, code)));
        let meant: Vec<_> = meant.filter(|(_, name, _)| is(kernels, name)).collect();
        if meant.is_empty() || instructions.is_empty() {
            broken.push(format!("`{}` is about nothing", line.trim()));
        }
        for (target, name, code) in meant {
            let has = |pattern: &str| {
                code.iter()
                    .any(|x| is(pattern, x) || x.starts_with(&format!("{pattern}.")))
            };
            let wrong = instructions
                .iter()
                .filter(|pattern| match pattern.strip_prefix('!') {
                    Some(pattern) => has(pattern),
                    None => !has(pattern),
                });
            broken.extend(wrong.map(|pattern| format!("{name} on {target}: {pattern}")));
        }
    }
    broken
}

/// Whether a name is what a pattern stands for.
fn is(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == pattern,
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
        let names: Vec<&str> = code["sum"].iter().map(String::as_str).collect();
        assert_eq!(names, ["EXIT", "LDC", "LDG.E.128.CONSTANT"]);
        assert!(code["spill"].contains("STL") && code.len() == 2);
    }

    #[test]
    fn broken_rules_are_told() {
        let code = BTreeMap::from([("sm_90", functions(LISTING))]);
        let rules = "# rules\n* * !STL !LDL\nsum sm_9* LDG.E.128 LDG* DMMA\nnone * A\nsum sm_70 A\nsum sm_90\n";
        assert_eq!(
            broken(rules, &code),
            [
                "spill on sm_90: !STL",
                "sum on sm_90: DMMA",
                "`none * A` is about nothing",
                "`sum sm_70 A` is about nothing",
                "`sum sm_90` is about nothing",
            ]
        );
    }
}
