//! The smoke set: questions so simple that a wrong answer means a broken harness. Where one fails,
//! nothing else is asked of the subject.

use lora_pro_core::{Error, Method};

use crate::residual::all_or_nothing;
use crate::run::Run;
use crate::sample::CaseSpec;
use crate::subject::{Subject, exact};

/// One question.
pub struct Smoke {
    /// Its name.
    pub name: &'static str,
    /// What holds, in one line.
    pub what: &'static str,
    check: fn(&Subject, &CaseSpec, Method) -> Result<bool, Error>,
}

impl Smoke {
    /// 0 or infinity.
    pub fn ratio(&self, subject: &Subject, spec: &CaseSpec, method: Method) -> Result<f64, Error> {
        (self.check)(subject, spec, method).map(all_or_nothing)
    }
}

/// All questions.
pub const SMOKE: [Smoke; 3] = [
    Smoke {
        name: "answers",
        what: "a step of a plain adapter succeeds, is finite and is counted",
        check: answers,
    },
    Smoke {
        name: "moves",
        what: "B moves where B = 0 and the gradient is not",
        check: moves,
    },
    Smoke {
        name: "listens",
        what: "another gradient gives another step",
        check: listens,
    },
];

/// A run after its first step from B = 0.
fn first_step(subject: &Subject, spec: &CaseSpec, method: Method, t: u64) -> Result<Run, Error> {
    let spec = CaseSpec { rank_b: 0, ..*spec };
    // With a small eps the full mode's first step sees no more than the signs of E.
    let hyper = exact(method).eps(spec.size_g);
    let mut run = subject.start(&spec.factors(), hyper)?;
    let gradients = spec.gradients(&run.factors(), t);
    run.step(&gradients)?;
    Ok(run)
}

fn answers(subject: &Subject, spec: &CaseSpec, method: Method) -> Result<bool, Error> {
    let run = first_step(subject, spec, method, 1)?;
    let factors = run.factors();
    let finite = factors
        .a
        .iter()
        .chain(factors.b.iter())
        .all(|x| x.is_finite());
    Ok(finite && run.t() == 1)
}

fn moves(subject: &Subject, spec: &CaseSpec, method: Method) -> Result<bool, Error> {
    Ok(first_step(subject, spec, method, 1)?.factors().b.norm() > 0.0)
}

fn listens(subject: &Subject, spec: &CaseSpec, method: Method) -> Result<bool, Error> {
    let [one, other] = [1, 2].map(|t| first_step(subject, spec, method, t));
    Ok(one?.factors().b != other?.factors().b)
}
