//! The suite as tests of another crate: one `#[test]` for each law, storage type and method.

use lora_pro_core::{Backend, DType, Method};

use crate::check::Check;
use crate::record::Stability;
use crate::regression::Regression;
use crate::subject::Subject;
use crate::suite::{Entry, Plan};
use crate::verdict::Verdict;

/// Random cases per test, unless the test or the environment says otherwise (`LORA_PRO_CASES`,
/// thousands for a thorough run).
pub const CASES: u32 = 48;

/// Cases per test: `usual`, or what `LORA_PRO_CASES` says.
pub fn wanted_cases(usual: u32) -> u32 {
    let wanted = std::env::var("LORA_PRO_CASES");
    wanted.ok().and_then(|n| n.parse().ok()).unwrap_or(usual)
}

/// Runs one check; panics with the smallest failing case where it does not hold.
///
/// # Panics
/// Where the verdict is not fine: this is what a test is for.
pub fn run(check: &str, dtype: DType, method: Method, make: fn() -> Box<dyn Backend>, cases: u32) {
    let subject = Subject::new("the backend", dtype, make);
    let entry = Entry {
        name: subject.name,
        command: None,
        make: subject.make,
        class: Stability::KappaSquared,
    };
    let Some(check) = Check::all().into_iter().find(|known| known.id() == check) else {
        panic!("there is no check `{check}`");
    };
    if !check.takes(dtype) {
        return;
    }
    let mut plan = Plan::new(0, wanted_cases(cases));
    plan.regressions = known();
    let cell = plan.cell(&entry, check, dtype, method);
    assert!(
        cell.verdict.is_fine(),
        "{} ({}) in {dtype}, {method}: {}, ratio {:e} {}\nsmallest case: {}",
        cell.check,
        cell.title,
        cell.verdict.name(),
        cell.ratio,
        cell.reason.as_deref().unwrap_or_default(),
        serde_json::to_string(&cell.worst).unwrap_or_default(),
    );
    if cell.verdict == Verdict::Unsupported {
        println!("unsupported: {}", cell.reason.unwrap_or_default());
    }
}

/// The failures that this crate keeps. Where its sources are not at hand there are none.
fn known() -> Vec<Regression> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/regressions");
    match Regression::load_all(folder.as_ref()) {
        Ok(known) => known,
        Err(error) => panic!("{error}"),
    }
}

/// Turns the suite into tests of a backend.
///
/// ```
/// use lora_pro_core::Backend;
/// use lora_pro_reference::ReferenceBackend;
///
/// fn make() -> Box<dyn Backend> {
///     Box::new(ReferenceBackend::new())
/// }
///
/// lora_pro_conformance::conformance_tests!(reference: make, [f64, f32]);
/// # fn main() {}
/// ```
/// makes `reference::f64::law_01_orthogonality::sgd` and some three hundred others. A slow backend
/// may have fewer random cases in each: `conformance_tests!(slow: make, [f64], cases = 8)`.
#[macro_export]
macro_rules! conformance_tests {
    ($name:ident: $make:path, [$($dtype:ident),+ $(,)?]) => {
        $crate::conformance_tests!($name: $make, [$($dtype),+], cases = $crate::testing::CASES);
    };
    ($name:ident: $make:path, [$($dtype:ident),+ $(,)?], cases = $cases:expr) => {
        pub(crate) mod $name {
            #[allow(unused_imports)]
            use super::*;
            $(
                pub(crate) mod $dtype {
                    #[allow(unused_imports)]
                    use super::*;
                    $crate::conformance_checks!($dtype, $make, $cases);
                }
            )+
        }
    };
}

/// For [`conformance_tests`]: the checks and their methods.
#[doc(hidden)]
#[macro_export]
macro_rules! conformance_checks {
    ($dtype:ident, $make:path, $cases:expr) => {
        $crate::conformance_checks! { @each $dtype, $make, $cases,
            smoke_answers = "smoke-answers": all;
            smoke_moves = "smoke-moves": all;
            smoke_listens = "smoke-listens": all;
            law_01_orthogonality = "law-01-orthogonality": closed_form;
            law_02_optimality = "law-02-optimality": closed_form;
            law_03_x_invariance = "law-03-x-invariance": closed_form;
            law_04_descent = "law-04-descent": closed_form;
            law_05_sylvester = "law-05-sylvester": closed_form;
            law_06_nearness = "law-06-nearness": closed_form;
            law_07_reparametrisation = "law-07-reparametrisation": closed_form;
            law_08_rotation = "law-08-rotation": closed_form;
            law_09_scale = "law-09-scale": closed_form;
            law_10_exactness = "law-10-exactness": closed_form;
            law_11_rank_deficient = "law-11-rank-deficient": closed_form;
            law_12_recurrence = "law-12-recurrence": with_moments;
            law_13_independence = "law-13-independence": all;
            law_14_resume = "law-14-resume": all;
            law_15_balance = "law-15-balance": closed_form;
            law_16_transpose = "law-16-transpose": closed_form;
            law_17_rotation_of_factors = "law-17-rotation-of-factors": all;
            law_18_rejection = "law-18-rejection": all;
            law_19_momentum = "law-19-momentum": sgd;
            law_20_decay = "law-20-decay": all;
            law_21_clip = "law-21-clip": all;
            law_22_gradients = "law-22-gradients": all;
            law_23_skip = "law-23-skip": all;
            law_24_amsgrad = "law-24-amsgrad": with_moments;
            law_25_unpaired = "law-25-unpaired": all;
            law_26_zero_gradient = "law-26-zero-gradient": all;
            law_27_units = "law-27-units": all;
            law_28_fresh_start = "law-28-fresh-start": closed_form;
            law_29_neighbours = "law-29-neighbours": all;
            law_30_schedule = "law-30-schedule": all;
            law_31_damping = "law-31-damping": separate;
            law_32_report = "law-32-report": all;
            vectors = "vectors": all;
            differential = "differential": all;
        }
    };
    (@each $dtype:ident, $make:path, $cases:expr, $($check:ident = $id:literal: $methods:ident;)+) => {$(
        pub(crate) mod $check {
            #[allow(unused_imports)]
            use super::*;
            $crate::conformance_methods!($methods, $id, $dtype, $make, $cases);
        }
    )+
        /// Checks and methods of this list, to be compared with the kit's.
        #[allow(dead_code)]
        pub(crate) const LISTED: &[(&str, &[&str])] = &[$($check::LISTED),+];
    };
}

/// For [`conformance_tests`]: one test per method.
#[doc(hidden)]
#[macro_export]
macro_rules! conformance_methods {
    (all, $($rest:tt)+) => {
        $crate::conformance_methods!(@ [lora sgd efficient factored full] $($rest)+);
    };
    (closed_form, $($rest:tt)+) => {
        $crate::conformance_methods!(@ [sgd efficient factored full] $($rest)+);
    };
    (with_moments, $($rest:tt)+) => {
        $crate::conformance_methods!(@ [lora efficient factored full] $($rest)+);
    };
    (separate, $($rest:tt)+) => {
        $crate::conformance_methods!(@ [sgd efficient] $($rest)+);
    };
    (sgd, $($rest:tt)+) => {
        $crate::conformance_methods!(@ [sgd] $($rest)+);
    };
    (@ [$($method:ident)+] $id:literal, $dtype:ident, $make:path, $cases:expr) => {
        #[allow(dead_code)]
        pub(super) const LISTED: (&str, &[&str]) = ($id, &[$(stringify!($method)),+]);
        $(
            #[test]
            fn $method() {
                let (dtype, method) = (stringify!($dtype), stringify!($method));
                $crate::testing::named($id, dtype, method, $make, $cases);
            }
        )+
    };
}

/// [`run`] with names, as the macro has them.
///
/// # Panics
/// As [`run`], and for a name that means nothing.
#[doc(hidden)]
pub fn named(check: &str, dtype: &str, method: &str, make: fn() -> Box<dyn Backend>, cases: u32) {
    let dtype = dtype.parse().unwrap_or_else(|error| panic!("{error}"));
    let method = method.parse().unwrap_or_else(|error| panic!("{error}"));
    run(check, dtype, method, make, cases);
}
