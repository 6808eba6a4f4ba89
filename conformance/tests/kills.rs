//! Which checks see which planted bug: the strength of the laws, measured.

use std::collections::{BTreeMap, BTreeSet};

use lora_pro_conformance::differential::{self, compare};
use lora_pro_conformance::laws::{Applies, LAWS, Law};
use lora_pro_conformance::planted::{Bug, bugs};
use lora_pro_conformance::residual::holds;
use lora_pro_conformance::sample::{CaseSpec, any_rank, early, full_rank};
use lora_pro_conformance::subject::Subject;
use lora_pro_core::DType;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRng, TestRunner};

#[path = "common/cases.rs"]
mod generated;

/// Random cases per law and bug.
const CASES: usize = 12;

/// Random cases of the comparison with the reference.
const COMPARED: usize = 120;

/// The comparison with the reference, as a check beside the laws.
const DIFFERENTIAL: &str = "D";

/// Bugs that fewer than two checks see, each with what is missing. It may only become shorter.
const WEAK: [(&str, &str); 25] = [
    ("sylvester-damped", NO_DAMPING),
    ("damping-ignored", NO_DAMPING),
    ("damping-in-sb-only", NO_DAMPING),
    ("damping-squared", NO_DAMPING),
    ("relative-damping-absolute", NO_DAMPING),
    ("cutoff-shifts", NO_DAMPING),
    ("transport-undamped", NO_DAMPING),
    ("schedule-ignored", "no check has a schedule"),
    ("hyper-of-the-first-adapter", "no check has groups"),
    ("moments-shared-by-shape", NO_TWINS),
    ("gradients-of-the-first-by-shape", NO_TWINS),
    ("counter-shared", ONE_ADAPTER),
    ("moments-of-a-shared", ONE_ADAPTER),
    ("scale-of-the-first-adapter", ONE_ADAPTER),
    ("gradients-of-the-neighbour", ONE_ADAPTER),
    ("rounding-by-position", ONE_ADAPTER),
    ("rounding-by-batch-size", ONE_ADAPTER),
    (
        "base-decays-unasked",
        "D hands W0 in only where it is to decay",
    ),
    ("second-moments-not-loaded", "D does not reload the subject"),
    (
        "report-of-squared-equivalent",
        "no law is about the norm of E in the report",
    ),
    ("skip-counts", "D has no gradient that is not finite"),
    ("skip-ignored", "D has no gradient that is not finite"),
    (
        "unpaired-maximize-ignored",
        "law 22 has no parameter without a pair",
    ),
    (
        "unpaired-amsgrad-ignored",
        "law 24 has no parameter without a pair",
    ),
    (
        "unpaired-checked-last",
        "D has no gradient that is not finite",
    ),
];

const NO_DAMPING: &str = "no law is about damping";
const NO_TWINS: &str = "law 13 has no two adapters of one shape";
const ONE_ADAPTER: &str = "D steps one adapter alone";

/// The first cases of a strategy, the same ones in every run.
fn sampled<T: std::fmt::Debug>(cases: impl Strategy<Value = T>, count: usize) -> Vec<T> {
    let rng = TestRng::deterministic_rng(Default::default());
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let mut next = || cases.new_tree(&mut runner).expect("a case").current();
    (0..count).map(|_| next()).collect()
}

/// What all checks run on.
struct Cases {
    full_rank: Vec<CaseSpec>,
    any_rank: Vec<CaseSpec>,
    early: Vec<CaseSpec>,
    compared: Vec<differential::Case>,
}

impl Cases {
    /// Condition numbers up to 1e6, where f64 leaves digits to see a bug by.
    fn new() -> Self {
        let mut compared = sampled(generated::cases(DType::F64), COMPARED);
        // Bugs show in small matrices and few steps.
        compared.retain(|case| case.adapter.m * case.adapter.n * case.adapter.r <= 10_000);
        for case in &mut compared {
            case.steps = case.steps.min(3);
        }
        Cases {
            full_rank: sampled(full_rank(6.0), CASES),
            any_rank: sampled(any_rank(6.0), CASES),
            early: sampled(early(2.0), CASES),
            compared,
        }
    }

    fn of(&self, law: &Law) -> &[CaseSpec] {
        match law.applies {
            Applies::FullRank => &self.full_rank,
            Applies::AnyRank => &self.any_rank,
            Applies::Trajectory => &self.early,
        }
    }

    /// The checks that see a bug: laws that do not hold, or are refused what they should not be.
    fn kills(&self, bug: &Bug) -> BTreeSet<String> {
        let bug = *bug;
        let subject = Subject {
            name: bug.id,
            make: Box::leak(Box::new(move || bug.make())),
            dtype: DType::F64,
        };
        let seen = |law: &&Law| {
            let fails = |case| !law.ratio(&subject, case).is_ok_and(holds);
            self.of(law).iter().any(fails)
        };
        let mut by: BTreeSet<_> = LAWS.iter().filter(seen).map(id).collect();
        let differs = |case: &differential::Case| {
            !compare(subject.make, case).is_ok_and(|found| holds(found.ratio))
        };
        if self.compared.iter().any(differs) {
            by.insert(DIFFERENTIAL.into());
        }
        by
    }
}

fn id(law: &Law) -> String {
    format!("{:02}", law.number)
}

/// Every bug is seen by two checks at least, and nothing is seen where there is no bug.
#[test]
fn every_bug_is_seen_twice() {
    let cases = Cases::new();
    let none = Bug {
        id: "no bug",
        what: "the reference",
        plant: |_| {},
    };
    assert_eq!(cases.kills(&none), BTreeSet::new());

    let found = all_kills(&cases);
    println!("{}", matrix(&found));
    for most in [1, 2] {
        let laws = without(&found, most).join(", ");
        println!("Laws that are among the checks of no bug that {most} or fewer see: {laws}");
    }
    let few = found.iter().filter(|(_, by)| by.len() < 2);
    let weak: BTreeSet<&str> = few.map(|(id, _)| *id).collect();
    assert_eq!(weak, WEAK.map(|(id, _)| id).into());
}

/// Every bug's checks, computed on all cores.
fn all_kills(cases: &Cases) -> BTreeMap<&'static str, BTreeSet<String>> {
    let all: Vec<&Bug> = bugs().collect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|k| {
                let mine = all.iter().skip(k).step_by(threads);
                scope.spawn(move || {
                    mine.map(|bug| (bug.id, cases.kills(bug)))
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        let joined = workers.into_iter().map(|worker| worker.join());
        joined.flat_map(|kills| kills.expect("no panic")).collect()
    })
}

/// A table: bugs down, checks across.
fn matrix(found: &BTreeMap<&str, BTreeSet<String>>) -> String {
    let mut checks: Vec<String> = LAWS.iter().map(id).collect();
    checks.push(DIFFERENTIAL.into());
    let mut table = format!("| bug | {} |\n", checks.join(" | "));
    table += &format!("|---{}|\n", "|---".repeat(checks.len()));
    for bug in bugs() {
        let mark = |check| {
            if found[bug.id].contains(check) {
                "x"
            } else {
                ""
            }
        };
        let marks: Vec<_> = checks.iter().map(mark).collect();
        table += &format!("| {} | {} |\n", bug.id, marks.join(" | "));
    }
    table
}

/// Laws without which no bug that so few checks see would lose one.
fn without(found: &BTreeMap<&str, BTreeSet<String>>, most: usize) -> Vec<String> {
    let few = found.values().filter(|by| by.len() <= most);
    let needed: BTreeSet<_> = few.flatten().collect();
    let laws = LAWS.iter().map(id);
    laws.filter(|law| !needed.contains(law)).collect()
}

/// Ids are kebab-case and stand once.
#[test]
fn ids_are_unique() {
    let all: Vec<&str> = bugs().map(|bug| bug.id).collect();
    let unique: BTreeSet<&str> = all.iter().copied().collect();
    assert_eq!(unique.len(), all.len());
    let kebab = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    assert!(all.iter().all(|id| id.chars().all(kebab)));
    println!("{} bugs", all.len());
}
