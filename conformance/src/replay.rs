//! Runs a recorded trajectory on a backend, and says how far it strays.

use std::collections::BTreeMap;
use std::path::Path;

use lora_pro_core::backend::ratio_or_zero;
use lora_pro_core::{
    Backend, DType, Error, HostTensor, MatRef, TensorData, encode_tensors, write_atomically,
};
use lora_pro_reference::factors::{Factors, factor_gradients};
use lora_pro_reference::storage::{matrix, read_finite};

use crate::case::{Case, StoredFactors};
use crate::run::Run;

/// The factors of every moment t = 0 to T, in their storage type.
#[derive(Clone, Debug, PartialEq)]
pub struct Trajectory {
    /// Storage type of the factors.
    pub dtype: DType,
    /// The factors at t, in the order of t.
    pub factors: Vec<StoredFactors>,
}

/// Where a trajectory is farthest from the recorded one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Deviation {
    /// ||x - ref||_F / ||ref||_F of one factor at one moment.
    pub error: f64,
    /// The moment.
    pub t: usize,
    /// `A` or `B`.
    pub factor: &'static str,
}

/// Steps the case's adapter through all its gradients.
///
/// The factors are rounded to `dtype` at the start. At each step gA = s B'g and gB = s g A' are
/// computed in f64 from the factors as stored, and handed over rounded to `dtype`.
///
/// # Errors
/// What the backend refuses, and factors that stop being finite.
pub fn replay(case: &Case, backend: Box<dyn Backend>, dtype: DType) -> Result<Trajectory, Error> {
    let mut run = Run::new(backend, case.hyper)?;
    let start = Factors {
        a: matrix(&case.start.a.view()),
        b: matrix(&case.start.b.view()),
        s: case.spec.s(),
    };
    run.add_adapter(case.spec.clone().dtype(dtype), &start)?;
    let mut factors = vec![now(&run, 0)?];
    for (g, t) in case.gradients.iter().zip(1..) {
        run.step(&factor_gradients(&run.factors(), &matrix(&g.view())))?;
        factors.push(now(&run, t)?);
    }
    Ok(Trajectory { dtype, factors })
}

/// The factors after step t, all of them finite.
fn now(run: &Run, t: usize) -> Result<StoredFactors, Error> {
    let (a, b) = (run.adapters[0].a.clone(), run.adapters[0].b.clone());
    let subject = format!("after step {t}");
    read_finite(&a.view(), &subject, "A")?;
    read_finite(&b.view(), &subject, "B")?;
    Ok(StoredFactors { a, b })
}

/// What a replay in `dtype` may stray from the recording: 1e-10 in f64, else u T sqrt(m + n). In
/// f64 a recording of the public code may be missed by 1e-8: an independent program that follows
/// the formulas strays from it as far as the reference does (1.1e-9 in the worst case, from the
/// second step on), so that much is the public code's own rounding.
///
/// Storing T times rounds T times, each time by at most u, and sums of m + n rounded terms stray
/// like the square root of their number. How much a case amplifies an error is not allowed for:
/// an ill-conditioned one may fail in a short storage type, and that is what the user should see.
pub fn tolerance(case: &Case, dtype: DType) -> f64 {
    let dimension = (case.spec.m + case.spec.n) as f64;
    match dtype {
        DType::F64 if case.quirk.is_some() => 1e-8,
        DType::F64 => 1e-10,
        _ => dtype.unit_roundoff() * case.steps() as f64 * dimension.sqrt(),
    }
}

impl Trajectory {
    /// The worst deviation of A or B over t = 1 to T; `None` where the case records nothing.
    pub fn deviation(&self, case: &Case) -> Option<Deviation> {
        let moments = self.factors.iter().skip(1).zip(&case.expected);
        let all = moments.enumerate().flat_map(|(k, (x, reference))| {
            let at = |factor, error| Deviation {
                error,
                t: k + 1,
                factor,
            };
            let a = relative_distance(x.a.view(), reference.a.view());
            let b = relative_distance(x.b.view(), reference.b.view());
            [at("A", a), at("B", b)]
        });
        // `total_cmp` puts NaN above everything, so that it cannot hide.
        all.max_by(|x, y| x.error.total_cmp(&y.error))
    }

    /// Writes `A.t`, `B.t` for t = 0 to T, with the case's metadata and `added`.
    ///
    /// # Errors
    /// A file that cannot be written; what was there before is then still there.
    pub fn write(&self, path: &Path, case: &Case, added: &[(&str, String)]) -> Result<(), Error> {
        let added = added
            .iter()
            .map(|(key, value)| (key.to_string(), value.clone()));
        let metadata = case.metadata.clone().into_iter().chain(added).collect();
        let bytes = encode_tensors(&self.tensors(), metadata)
            .map_err(|reason| Error::file(path, reason))?;
        write_atomically(path, &bytes)
    }

    /// `A.t`, `B.t` for t = 0 to T.
    pub fn tensors(&self) -> BTreeMap<String, TensorData> {
        let named = |(t, pair): (usize, &StoredFactors)| {
            [
                (format!("A.{t}"), data(&pair.a)),
                (format!("B.{t}"), data(&pair.b)),
            ]
        };
        self.factors.iter().enumerate().flat_map(named).collect()
    }
}

/// A tensor as files hold it.
pub(crate) fn data(tensor: &HostTensor) -> TensorData {
    TensorData {
        dtype: tensor.dtype(),
        shape: tensor.shape().to_vec(),
        bytes: tensor.bytes().to_vec(),
    }
}

/// ||x - ref||_F / ||ref||_F, with 0 / 0 = 0.
fn relative_distance(x: MatRef<'_>, reference: MatRef<'_>) -> f64 {
    let reference = matrix(&reference);
    ratio_or_zero((matrix(&x) - &reference).norm(), reference.norm())
}
