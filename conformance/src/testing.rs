//! The suite as tests of another crate: one for each check, storage type and method.
//!
//! `tests/conformance.rs` of a backend:
//!
//! ```no_run
//! use lora_pro_conformance::testing::{Suite, run};
//! use lora_pro_reference::ReferenceBackend;
//!
//! fn main() {
//!     run(&[Suite::new("mine", || Box::new(ReferenceBackend::new()))]);
//! }
//! ```
//!
//! and in its `Cargo.toml`, since the kit itself lists the tests:
//!
//! ```toml
//! [[test]]
//! name = "conformance"
//! harness = false
//! ```
//!
//! makes `mine::f64::law-01-orthogonality::sgd` and some three hundred others, which `cargo test`
//! filters and reports as usual.

use libtest_mimic::{Arguments, Failed, Trial};
use lora_pro_core::{Backend, DType, Method};

use crate::check::Check;
use crate::record::Stability;
use crate::regression::Regression;
use crate::subject::Subject;
use crate::suite::{Implementation, Plan};
use crate::verdict::Verdict;

/// Random cases per test, unless the suite or the environment says otherwise (`LORA_PRO_CASES`,
/// thousands for a thorough run).
pub const CASES: u32 = 48;

/// All checks of one backend.
#[derive(Clone)]
pub struct Suite {
    name: &'static str,
    make: fn() -> Box<dyn Backend>,
    dtypes: Vec<DType>,
    cases: u32,
}

impl Suite {
    /// In f64 and f32, 48 random cases in each test.
    pub fn new(name: &'static str, make: fn() -> Box<dyn Backend>) -> Self {
        Suite {
            name,
            make,
            dtypes: vec![DType::F64, DType::F32],
            cases: CASES,
        }
    }

    /// In these storage types.
    pub fn dtypes(mut self, dtypes: &[DType]) -> Self {
        self.dtypes = dtypes.to_vec();
        self
    }

    /// So many random cases in each test: fewer for a backend that is slow.
    pub fn cases(mut self, cases: u32) -> Self {
        self.cases = cases;
        self
    }

    fn trials(&self) -> Vec<Trial> {
        let mut trials = Vec::new();
        for &dtype in &self.dtypes {
            for check in Check::all().into_iter().filter(|check| check.takes(dtype)) {
                for &method in check.methods() {
                    let suite = self.clone();
                    let name = format!("{}::{dtype}::{}::{method}", self.name, check.id());
                    let test = move || suite.verify(check, dtype, method);
                    trials.push(Trial::test(name, test));
                }
            }
        }
        trials
    }

    /// Runs one check; fails with the smallest failing case where it does not hold.
    fn verify(&self, check: Check, dtype: DType, method: Method) -> Result<(), Failed> {
        let subject = Subject::new(self.name, dtype, self.make);
        let implementation = Implementation {
            name: subject.name,
            command: None,
            make: subject.make,
            stability: Stability::KappaSquared,
        };
        let mut plan = Plan::new(0, wanted_cases(self.cases));
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/regressions");
        // Where the kit's sources are not there, neither are its regressions.
        plan.regressions = Regression::load_all(folder.as_ref())?;
        let cell = plan.cell(&implementation, check, dtype, method);
        if cell.verdict == Verdict::Unsupported {
            println!("unsupported: {}", cell.reason.unwrap_or_default());
            return Ok(());
        }
        if cell.verdict.is_fine() {
            return Ok(());
        }
        Err(Failed::from(format!(
            "{} ({}) in {dtype}, {method}: {}, ratio {:e} {}\nsmallest case: {}",
            cell.check,
            cell.title,
            cell.verdict.name(),
            cell.ratio,
            cell.reason.unwrap_or_default(),
            serde_json::to_string(&cell.worst).unwrap_or_default(),
        )))
    }
}

/// Cases per test: `usual`, or what `LORA_PRO_CASES` says.
pub fn wanted_cases(usual: u32) -> u32 {
    let wanted = std::env::var("LORA_PRO_CASES");
    wanted.ok().and_then(|n| n.parse().ok()).unwrap_or(usual)
}

/// Runs the tests that the command line asks for, and ends the program.
pub fn run(suites: &[Suite]) -> ! {
    let trials = suites.iter().flat_map(Suite::trials).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit()
}
