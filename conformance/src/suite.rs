//! Runs checks on subjects and writes down what they find.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use lora_pro_core::{DType, Error, Method};
use proptest::strategy::BoxedStrategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use crate::check::Check;
use crate::record::{Cell, Stability};
use crate::regression::Regression;
use crate::sample::CaseSpec;
use crate::shrink::shrink;
use crate::subject::{BackendFactory, Subject};
use crate::verdict::Verdict;

/// An implementation under test.
#[derive(Clone)]
pub struct Implementation {
    /// Its name in the matrix.
    pub name: String,
    /// The command that starts it; none for what is built in.
    pub command: Option<String>,
    /// Makes its backend.
    pub make: BackendFactory,
    /// How its error grows with the condition number, as it declares.
    pub stability: Stability,
}

/// A cell that is left out on purpose. What is left open matches everything.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Skip {
    /// The subject's name.
    pub subject: Option<String>,
    /// The check.
    pub check: Option<String>,
    /// The method.
    pub method: Option<Method>,
    /// The storage type.
    pub dtype: Option<DType>,
    /// Why; required.
    pub reason: String,
}

/// What is to be run.
#[derive(Clone)]
pub struct Plan {
    /// The checks.
    pub checks: Vec<Check>,
    /// Storage types, where a subject has them.
    pub dtypes: Vec<DType>,
    /// Methods; all where empty.
    pub methods: Vec<Method>,
    /// What all random numbers follow from.
    pub seed: u64,
    /// Random cases for each cell.
    pub cases: u32,
    /// What is left out.
    pub skips: Vec<Skip>,
    /// Failures of the past, tried first.
    pub regressions: Vec<Regression>,
    /// Where new ones are stored.
    pub failures: Option<PathBuf>,
    /// Whether a failing case is made plainer.
    pub shrink: bool,
    /// A cell that takes longer ends with the cases that it had.
    pub limit: Duration,
}

impl Plan {
    /// All checks in f64 and f32.
    pub fn new(seed: u64, cases: u32) -> Self {
        Plan {
            checks: Check::all(),
            dtypes: vec![DType::F64, DType::F32],
            methods: vec![],
            seed,
            cases,
            skips: vec![],
            regressions: vec![],
            failures: None,
            shrink: true,
            limit: Duration::from_secs(60),
        }
    }

    /// Every cell of a subject: the check, the storage type and the method.
    pub fn cells(&self, implementation: &Implementation) -> Vec<(Check, DType, Method)> {
        let manifest = (implementation.make)().manifest();
        let mut all = Vec::new();
        for &check in &self.checks {
            for &dtype in &self.dtypes {
                if !check.takes(dtype) || !manifest.dtypes.contains(&dtype) {
                    continue;
                }
                let methods = check.methods().iter().copied();
                let wanted =
                    methods.filter(|m| self.methods.is_empty() || self.methods.contains(m));
                all.extend(wanted.map(|method| (check, dtype, method)));
            }
        }
        all
    }

    /// The first skip that matches a cell.
    pub fn skip(&self, subject: &str, check: &str, dtype: DType, method: Method) -> Option<usize> {
        self.skips.iter().position(|skip| {
            skip.subject.as_deref().is_none_or(|name| name == subject)
                && skip.check.as_deref().is_none_or(|id| id == check)
                && skip.dtype.is_none_or(|wanted| wanted == dtype)
                && skip.method.is_none_or(|wanted| wanted == method)
        })
    }

    /// One cell of the matrix.
    pub fn cell(
        &self,
        implementation: &Implementation,
        check: Check,
        dtype: DType,
        method: Method,
    ) -> Cell {
        let started = Instant::now();
        let mut cell = Cell {
            subject: implementation.name.clone(),
            check: check.id(),
            title: check.title().into(),
            dtype,
            method: Some(method),
            verdict: Verdict::Pass,
            reason: None,
            required: true,
            cases: 0,
            ratio: 0.0,
            worst: None,
            replay: None,
            measured_stability: None,
            coverage: BTreeMap::new(),
            seconds: 0.0,
        };
        if let Some(skip) = self.skip(&implementation.name, &cell.check, dtype, method) {
            cell.verdict = Verdict::Skipped;
            cell.reason = Some(self.skips[skip].reason.clone());
            return cell;
        }
        let subject = Subject {
            name: implementation.name.clone(),
            make: implementation.make.clone(),
            dtype,
        };
        let mut search = Search::new(&subject, check, method);
        let known = self.regressions.iter().filter(|known| {
            known.check == cell.check && known.method == method && known.dtype == dtype
        });
        for known in known {
            search.try_case(&known.case);
        }
        if search.finding.is_none() {
            self.search(&check.cases(dtype, method), &mut search, started);
        }
        search.explain();
        search.into_cell(&mut cell);
        if let Some(folder) = &self.failures {
            cell.store(folder);
        }
        cell.seconds = started.elapsed().as_secs_f64();
        cell
    }

    /// Random cases until one fails, which is then shrunk.
    fn search(&self, cases: &BoxedStrategy<CaseSpec>, search: &mut Search<'_>, started: Instant) {
        let config = Config {
            cases: if search.check.is_fixed() {
                1
            } else {
                self.cases
            },
            failure_persistence: None,
            // Cases are made plainer in a way of their own.
            max_shrink_iters: 0,
            ..Config::default()
        };
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &self.bytes(search));
        let mut runner = TestRunner::new_with_rng(config, rng);
        let search = RefCell::new(search);
        let outcome = runner.run(cases, |spec| {
            if started.elapsed() > self.limit {
                return Ok(());
            }
            match search.borrow_mut().try_case(&spec) {
                true => Ok(()),
                false => Err(TestCaseError::fail("found")),
            }
        });
        if let Err(TestError::Fail(_, spec)) = outcome
            && self.shrink
        {
            search.borrow_mut().shrink_failure(&spec);
        }
    }

    /// The seed of one cell, which depends on its name and on nothing that ran before.
    fn bytes(&self, search: &Search<'_>) -> [u8; 32] {
        let key = format!(
            "{}{}{}",
            search.check.id(),
            search.method,
            search.subject.dtype
        );
        let mut bytes = [0u8; 32];
        for (k, byte) in self
            .seed
            .to_le_bytes()
            .iter()
            .chain(key.as_bytes())
            .enumerate()
        {
            bytes[k % 32] = bytes[k % 32].wrapping_mul(31).wrapping_add(*byte);
        }
        bytes
    }
}

/// What a case came to.
struct Finding {
    verdict: Verdict,
    ratio: f64,
    reason: Option<String>,
    case: CaseSpec,
}

/// One cell being filled.
struct Search<'s> {
    subject: &'s Subject,
    check: Check,
    method: Method,
    cases: u32,
    /// The largest ratio below the threshold and its case.
    best: (f64, Option<CaseSpec>),
    /// Ratio times u kappa^2 over u kappa: whether kappa alone would explain the errors.
    linear: f64,
    coverage: BTreeMap<String, u32>,
    unsupported: Option<String>,
    finding: Option<Finding>,
}

impl<'s> Search<'s> {
    fn new(subject: &'s Subject, check: Check, method: Method) -> Self {
        Search {
            subject,
            check,
            method,
            cases: 0,
            best: (0.0, None),
            linear: 0.0,
            coverage: check
                .all_features()
                .into_iter()
                .map(|feature| (feature.to_string(), 0))
                .collect(),
            unsupported: None,
            finding: None,
        }
    }

    /// Tries a case; false where it fails.
    fn try_case(&mut self, spec: &CaseSpec) -> bool {
        let finding = self.of(spec);
        if finding.verdict == Verdict::Unsupported {
            self.unsupported = finding.reason;
            return true;
        }
        self.cases += 1;
        for feature in self.check.features(spec, self.method) {
            *self.coverage.entry(feature).or_default() += 1;
        }
        if finding.verdict == Verdict::Pass {
            let kappa = spec.kappa_a.max(spec.kappa_b);
            self.linear = self.linear.max(finding.ratio * kappa);
            if finding.ratio >= self.best.0 {
                self.best = (finding.ratio, Some(*spec));
            }
            return true;
        }
        self.finding = Some(finding);
        false
    }

    /// A plainer case of the same verdict stands for the failure.
    fn shrink_failure(&mut self, spec: &CaseSpec) {
        let verdict = self.of(spec).verdict;
        let plain = shrink(spec, |spec| self.of(spec).verdict == verdict);
        self.finding = Some(self.of(&plain));
    }

    /// In words, where there are none yet.
    fn explain(&mut self) {
        let (check, subject, method) = (self.check, self.subject, self.method);
        if let Some(finding) = self.finding.as_mut().filter(|found| found.reason.is_none()) {
            finding.reason = check.explain(subject, &finding.case, method);
        }
    }

    fn of(&self, spec: &CaseSpec) -> Finding {
        let work = || self.check.ratio(self.subject, spec, self.method);
        // The subject's own panics are errors already: what comes through here is the checker's.
        let (verdict, ratio, reason) = match catch_unwind(AssertUnwindSafe(work)) {
            Ok(Ok(ratio)) => (Verdict::of(ratio), ratio, None),
            Ok(Err(error @ Error::Unsupported { .. })) => {
                (Verdict::Unsupported, 0.0, Some(error.to_string()))
            }
            Ok(Err(error)) => (Verdict::Error, f64::INFINITY, Some(error.to_string())),
            Err(_) => {
                let reason = "the check itself panicked".to_string();
                (Verdict::Unknown, f64::NAN, Some(reason))
            }
        };
        Finding {
            verdict,
            ratio,
            reason,
            case: *spec,
        }
    }

    fn into_cell(self, cell: &mut Cell) {
        cell.cases = self.cases;
        cell.coverage = self.coverage;
        (cell.ratio, cell.worst) = self.best;
        if let Some(finding) = self.finding {
            cell.verdict = finding.verdict;
            cell.ratio = finding.ratio;
            cell.reason = finding.reason;
            cell.worst = Some(finding.case);
        } else if let (0, Some(reason)) = (self.cases, self.unsupported) {
            cell.verdict = Verdict::Unsupported;
            cell.reason = Some(reason);
        } else if matches!(self.check, Check::Law(_)) && cell.ratio > 0.0 {
            let linear = self.linear < crate::residual::THRESHOLD;
            cell.measured_stability = Some(match linear {
                true => Stability::Kappa,
                false => Stability::KappaSquared,
            });
        }
    }
}

impl Cell {
    /// Stores a failure, so that it can be replayed.
    fn store(&mut self, folder: &std::path::Path) {
        let (Some(case), Some(method)) = (self.worst, self.method) else {
            return;
        };
        if self.verdict.is_fine() {
            return;
        }
        let found = match &self.reason {
            Some(reason) => reason.clone(),
            None => format!("ratio {:.3e}", self.ratio),
        };
        let regression = Regression {
            check: self.check.clone(),
            method,
            dtype: self.dtype,
            case,
            subject: self.subject.clone(),
            found,
            kit: env!("CARGO_PKG_VERSION").into(),
        };
        match regression.save(folder) {
            Ok(path) => self.replay = Some(path.display().to_string()),
            Err(error) => {
                let reason = self.reason.take().unwrap_or_default();
                self.reason = Some(format!("{reason} (not stored: {error})"));
            }
        }
    }
}
