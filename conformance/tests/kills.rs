//! Which checks see which seeded fault: the strength of the suite, measured with the cases that the
//! suite itself tries. The matrix is kept in `conformance/kills.md`; with `LORA_PRO_WRITE=1` it is
//! written anew.

use std::collections::{BTreeMap, BTreeSet};

use lora_pro_conformance::check::Check;
use lora_pro_conformance::record::Stability;
use lora_pro_conformance::subject::Subject;
use lora_pro_conformance::suite::{Implementation, Plan};
use lora_pro_core::{Backend, DType};
use lora_pro_variants::{FAULTS, Fault, VariantBackend};

/// Random cases per check, method and fault.
const CASES: u32 = 6;

/// Why a check stays that sees no fault alone (the comparison with the reference left out).
const STAY: [(&str, &str); 27] = [
    ("smoke-answers", SMOKE),
    ("smoke-moves", SMOKE),
    ("smoke-listens", SMOKE),
    (
        "law-01-orthogonality",
        "with law 15 it fixes (dA, dB) altogether; the plainest to read",
    ),
    (
        "law-02-optimality",
        "it is the definition; needs no B'B or AA' to be stated",
    ),
    (
        "law-03-x-invariance",
        "tells an error in X from one in U and V",
    ),
    (
        "law-04-descent",
        "the one promise that users rely on: a step goes down",
    ),
    (
        "law-05-sylvester",
        "tells which equation X solves, where law 15 only says that one fails",
    ),
    (
        "law-06-nearness",
        "says why X is chosen so; sees an X by its purpose",
    ),
    (
        "law-07-reparametrisation",
        "needs no reference at all: two answers of the subject",
    ),
    (
        "law-08-rotation",
        "needs no reference at all; sees element-wise shortcuts",
    ),
    (
        "law-09-scale",
        "names the fault: a power of s, an absolute damping",
    ),
    (
        "law-10-exactness",
        "the claim of the paper: full fine-tuning where the rank allows it",
    ),
    (
        "law-13-independence",
        "any order and size of batch; law 29 has two adapters",
    ),
    ("law-15-balance", "with law 1 it fixes (dA, dB) altogether"),
    (
        "law-17-rotation-of-factors",
        "whole trajectories of subjects that show no state",
    ),
    (
        "law-18-rejection",
        "shapes, ranks and hyper-parameters, which the front refuses",
    ),
    (
        "law-26-zero-gradient",
        "0 / 0, which is seen by chance elsewhere",
    ),
    (
        "law-27-units",
        "hidden constants, in subjects that show no state",
    ),
    (
        "law-28-fresh-start",
        "an adapter that is initialised again, in every mode",
    ),
    (
        "law-29-neighbours",
        "adapters that are not listed, and groups",
    ),
    (
        "vectors",
        "numbers to the last digit, for programs that only want to read files",
    ),
    (
        "differential",
        "sees almost everything, and says nothing of why",
    ),
    (
        "law-30-schedule",
        "adapters; law 25 has a schedule for unpaired parameters",
    ),
    // Seen alone on one processor and not on another.
    ("law-11-rank-deficient", "how every adapter starts"),
    (
        "law-16-transpose",
        "needs no reference at all; code for A that differs from that for B",
    ),
    ("law-14-resume", "state that is lost"),
];

const SMOKE: &str = "tells a broken harness from a wrong implementation";

/// Checks that see a fault need not be asked again with another method.
fn kills(fault: &'static str) -> BTreeSet<String> {
    let mut plan = Plan::new(0, CASES);
    plan.shrink = false;
    let make = move || -> Box<dyn Backend> { Box::new(VariantBackend::new(fault)) };
    let subject = Subject::new(fault, DType::F64, make);
    let implementation = Implementation {
        name: subject.name,
        command: None,
        make: subject.make,
        stability: Stability::Kappa,
    };
    let laws = Check::all();
    let seen = |check: &&Check| {
        let mut methods = check.methods().iter();
        methods.any(|method| {
            let cell = plan.cell(&implementation, **check, DType::F64, *method);
            !cell.verdict.is_fine()
        })
    };
    laws.iter().filter(seen).map(Check::id).collect()
}

/// Every fault is seen by two checks at least, and nothing is seen where there is none.
#[test]
fn every_fault_is_seen_twice() {
    assert_eq!(kills("the reference"), BTreeSet::new());

    let found = all_kills();
    let text = matrix(&found);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/kills.md");
    if std::env::var_os("LORA_PRO_WRITE").is_some() {
        std::fs::write(path, &text).expect("it can be written");
    }
    let few: Vec<_> = found.iter().filter(|(_, by)| by.len() < 2).collect();
    assert!(few.is_empty(), "seen by fewer than two: {few:#?}");

    // Rounding differs between processors, and a fault that is barely seen may be missed on one.
    let kept = std::fs::read_to_string(path).expect("the matrix is checked in");
    let differing = kept.lines().zip(text.lines()).filter(|(x, y)| x != y);
    let differing: Vec<_> = differing.collect();
    for (x, y) in &differing {
        println!("kept:  {x}\nfound: {y}");
    }
    assert_eq!(kept.lines().count(), text.lines().count(), "write it anew");
    assert!(differing.len() * 10 <= found.len(), "write it anew");
}

/// Every fault's checks, computed on all cores.
fn all_kills() -> BTreeMap<&'static str, BTreeSet<String>> {
    let all: Vec<&Fault> = FAULTS.iter().collect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|k| {
                let mine = all.iter().skip(k).step_by(threads);
                scope.spawn(move || {
                    mine.map(|fault| (fault.id, kills(fault.id)))
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        let joined = workers.into_iter().map(|worker| worker.join());
        joined.flat_map(|kills| kills.expect("no panic")).collect()
    })
}

/// A table of faults and checks, and which checks are needed.
fn matrix(found: &BTreeMap<&str, BTreeSet<String>>) -> String {
    let short = |id: &str| match id.strip_prefix("law-") {
        Some(rest) => rest[..2].to_string(),
        None => id
            .replace("smoke-", "s-")
            .replace("differential", "D")
            .replace("vectors", "V"),
    };
    let checks: Vec<String> = Check::all().iter().map(Check::id).collect();
    let heads: Vec<String> = checks.iter().map(|id| short(id)).collect();
    let mut text = format!(
        "# Which checks see which seeded fault\n\n\
         {} faults, {} checks, {CASES} random cases for each check and method in f64. Numbers are \
         laws, `s-` is the smoke set, D the comparison with the reference, V the recorded trajectories.\n\n",
        found.len(),
        checks.len()
    );
    text += &format!("| fault | {} |\n", heads.join(" | "));
    text += &format!("|---{}|\n", "|---".repeat(checks.len()));
    for fault in &FAULTS {
        let by = &found[fault.id];
        let mark = |check: &String| if by.contains(check) { "x" } else { "" };
        let marks: Vec<_> = checks.iter().map(mark).collect();
        text += &format!("| {} | {} |\n", fault.id, marks.join(" | "));
    }
    text += "\nWithout D and V, which see most and say least:\n\n";
    for check in &checks {
        let alone = found.iter().filter(|(_, by)| {
            let mut laws = by
                .iter()
                .filter(|id| *id != "differential" && *id != "vectors");
            laws.next() == Some(check) && laws.next().is_none()
        });
        let alone: Vec<_> = alone.map(|(id, _)| *id).collect();
        let seen = found.values().filter(|by| by.contains(check)).count();
        text += &format!("- {check} sees {seen}; it alone sees {}", alone.len());
        let stays = STAY.iter().find(|(id, _)| id == check);
        assert!(
            !alone.is_empty() || stays.is_some(),
            "{check} sees no fault alone: why does it stay?"
        );
        text += &match alone.as_slice() {
            [] => format!("; it stays: {}.\n", stays.map_or("", |(_, why)| why)),
            ids => format!(": {}.\n", ids.join(", ")),
        };
    }
    text
}
