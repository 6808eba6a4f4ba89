//! The kit itself: verdicts, skips, failures that are stored and repeated.

use lora_pro_conformance::check::Check;
use lora_pro_conformance::matrix::Listener;
use lora_pro_conformance::record::{Cell, Line, Stability};
use lora_pro_conformance::regression::Regression;
use lora_pro_conformance::subject::Subject;
use lora_pro_conformance::suite::{Implementation, Plan, Skip};
use lora_pro_conformance::verdict::Verdict;
use lora_pro_core::{Backend, DType, Error, Method};
use lora_pro_reference::ReferenceBackend;
use lora_pro_variants::VariantBackend;

fn implementation(make: impl Fn() -> Box<dyn Backend> + Send + Sync + 'static) -> Implementation {
    let subject = Subject::new("subject", DType::F64, make);
    Implementation {
        name: subject.name,
        command: None,
        make: subject.make,
        stability: Stability::Kappa,
    }
}

fn reference() -> Implementation {
    implementation(|| Box::new(ReferenceBackend::new()))
}

fn faulty(fault: &'static str) -> Implementation {
    implementation(move || Box::new(VariantBackend::new(fault)))
}

fn check(id: &str) -> Check {
    let mut all = Check::all().into_iter();
    all.find(|check| check.id() == id).expect("a check")
}

fn plan(ids: &[&str]) -> Plan {
    let mut plan = Plan::new(0, 10);
    plan.checks = ids.iter().map(|id| check(id)).collect();
    plan.dtypes = vec![DType::F64];
    plan
}

#[derive(Default)]
struct Heard(Vec<Line>);

impl Listener for Heard {
    fn line(&mut self, line: &Line) -> Result<(), Error> {
        self.0.push(line.clone());
        Ok(())
    }

    fn progress(&mut self, done: usize, total: usize, what: &str) {
        assert!(done < total && what.starts_with("subject "));
    }
}

impl Heard {
    fn cells(&self) -> Vec<&Cell> {
        let cells = self.0.iter().filter_map(|line| match line {
            Line::Cell(cell) => Some(cell),
            _ => None,
        });
        cells.collect()
    }
}

#[test]
fn a_run_has_a_head_subjects_cells_and_an_end() {
    let mut heard = Heard::default();
    let plan = plan(&["smoke-answers", "law-15-balance"]);
    let end = plan
        .run(&[reference()], "conform", &mut heard)
        .expect("a run");
    assert_eq!(end.verdict, Verdict::Pass);
    assert_eq!(end.counts[&Verdict::Pass], 5 + 4);
    assert!(matches!(heard.0[0], Line::Run(_)) && matches!(heard.0[1], Line::Subject(_)));
    assert!(matches!(heard.0.last(), Some(Line::End(_))));
    let cell = heard.cells()[8];
    assert_eq!((cell.cases, cell.method), (10, Some(Method::Full)));
    assert!(cell.ratio > 0.0 && cell.worst.is_some() && cell.coverage.contains_key("branch/B = 0"));
}

/// The same seed gives the same cells, whatever else runs.
#[test]
fn a_cell_depends_on_its_name_alone() {
    let both = plan(&["law-01-orthogonality", "law-15-balance"]);
    let one = plan(&["law-15-balance"]);
    let cell = |plan: &Plan| {
        let mut cell = plan.cell(
            &reference(),
            check("law-15-balance"),
            DType::F64,
            Method::Sgd,
        );
        cell.seconds = 0.0;
        cell
    };
    assert_eq!(cell(&both), cell(&one));
    let mut other = plan(&[]);
    other.seed = 1;
    assert_ne!(cell(&other).worst, cell(&one).worst);
}

#[test]
fn a_failure_is_made_plain_stored_and_repeated() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut wrong = plan(&[]);
    wrong.failures = Some(folder.path().into());
    let subject = faulty("sylvester-sides-swapped");
    let cell = wrong.cell(&subject, check("law-15-balance"), DType::F64, Method::Sgd);
    assert_eq!(cell.verdict, Verdict::Fail);
    let case = cell.worst.expect("a case");
    assert!(case.m.max(case.n) <= 4, "it is not shrunk: {case:?}");

    let file = cell.replay.expect("a file");
    let known = Regression::load(file.as_ref()).expect("it loads");
    assert_eq!((known.case, known.subject.as_str()), (case, "subject"));
    let mut again = plan(&[]);
    again.cases = 0;
    again.regressions = vec![known];
    let on = |implementation: &Implementation| {
        let cell = again.cell(
            implementation,
            check("law-15-balance"),
            DType::F64,
            Method::Sgd,
        );
        (cell.verdict, cell.ratio, cell.cases)
    };
    assert_eq!(on(&subject), (Verdict::Fail, cell.ratio, 1));
    assert_eq!(on(&reference()).0, Verdict::Pass);
}

#[test]
fn a_stored_failure_whose_bits_differ_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let known = Regression {
        check: "law-15-balance".into(),
        method: Method::Sgd,
        dtype: DType::F64,
        case: Default::default(),
        subject: "subject".into(),
        found: "nothing".into(),
        kit: "0".into(),
    };
    let path = known.save(folder.path()).expect("saved");
    assert_eq!(
        Regression::load_all(folder.path()).expect("loads"),
        vec![known.clone()]
    );
    let text = std::fs::read_to_string(&path).expect("text");
    std::fs::write(&path, text.replace("\"seed\": 0", "\"seed\": 1")).expect("written");
    let error = Regression::load(&path).expect_err("other bits").to_string();
    assert!(
        error.contains("not the numbers that the case gives now"),
        "{error}"
    );
}

fn skip(check: &str) -> Skip {
    Skip {
        subject: None,
        check: Some(check.into()),
        method: None,
        dtype: None,
        reason: "it is raining".into(),
    }
}

#[test]
fn a_skip_has_a_reason_and_matches_something() {
    let mut plan = plan(&["law-15-balance"]);
    plan.skips = vec![skip("law-15-balance")];
    let mut heard = Heard::default();
    let subject = [faulty("sylvester-sides-swapped")];
    let end = plan.run(&subject, "conform", &mut heard).expect("a run");
    assert_eq!(end.verdict, Verdict::Pass);
    for cell in heard.cells() {
        assert_eq!(cell.verdict, Verdict::Skipped);
        assert_eq!(cell.reason.as_deref(), Some("it is raining"));
    }
    plan.skips.push(skip("law-99"));
    let error = plan
        .run(&subject, "conform", &mut heard)
        .expect_err("a dead skip");
    assert!(
        error.to_string().contains("number 2 (it is raining)"),
        "{error}"
    );
}

/// Where the smoke set fails nothing is known, which is not the same as a law that is broken.
#[test]
fn a_subject_that_does_not_answer_is_unknown() {
    let subject = faulty("nothing-written");
    let mut heard = Heard::default();
    let plan = plan(&["smoke-moves", "law-15-balance"]);
    let end = plan.run(&[subject], "conform", &mut heard).expect("a run");
    assert_eq!(end.verdict, Verdict::Unknown);
    let laws = heard
        .cells()
        .into_iter()
        .filter(|cell| cell.check == "law-15-balance");
    for cell in laws {
        assert_eq!((cell.verdict, cell.cases), (Verdict::Unknown, 0));
        assert!(
            cell.reason
                .as_ref()
                .is_some_and(|reason| reason.contains("smoke-moves"))
        );
    }
}

#[test]
fn a_subject_that_panics_is_an_error() {
    let subject = faulty("panics");
    let cell = plan(&[]).cell(&subject, check("law-15-balance"), DType::F64, Method::Sgd);
    assert_eq!(cell.verdict, Verdict::Error);
    let reason = cell.reason.expect("a reason");
    assert!(reason.contains("step panicked: out of paper"), "{reason}");
}

/// Whatever a case says of itself is in the lists that tables are made from.
#[test]
fn features_are_listed() {
    for check in Check::all() {
        let cell = plan(&[]).cell(&reference(), check, DType::F64, check.methods()[0]);
        let listed = check.all_features();
        for feature in cell.coverage.keys() {
            assert!(
                listed.contains(&feature.as_str()),
                "{}: {feature}",
                cell.check
            );
        }
    }
}
