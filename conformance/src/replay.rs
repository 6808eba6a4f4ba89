//! Runs a recorded trajectory on a backend, and says how far it strays.

use std::collections::BTreeMap;
use std::path::Path;

use lora_pro_core::{
    AdapterIo, Backend, Config, DType, Error, HostTensor, MatRef, Optimizer, TensorData,
    encode_tensors, write_atomically,
};
use lora_pro_reference::factors::{Factors, factor_gradients};
use lora_pro_reference::storage::{host, matrix, read_finite};

use crate::case::{Case, Pair};

/// The factors of every moment t = 0 to T, in their storage type.
#[derive(Clone, Debug, PartialEq)]
pub struct Trajectory {
    /// Storage type of the factors.
    pub dtype: DType,
    /// The factors at t, in the order of t.
    pub factors: Vec<Pair>,
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
    let mut optimizer = Optimizer::new(backend, Config::from(case.hyper))?;
    let id = optimizer.add_adapter(case.spec.clone().dtype(dtype))?;
    let mut now = Pair {
        a: rounded(&case.start.a, dtype),
        b: rounded(&case.start.b, dtype),
    };
    check(&now, 0)?;
    let mut factors = vec![now.clone()];
    for (k, g) in case.gradients.iter().enumerate() {
        let (grad_a, grad_b) = gradients(&now, g, case.spec.s());
        let io = AdapterIo::new(
            id,
            now.a.view_mut(),
            now.b.view_mut(),
            grad_a.view(),
            grad_b.view(),
        );
        optimizer.step(&mut [io])?;
        check(&now, k + 1)?;
        factors.push(now.clone());
    }
    Ok(Trajectory { dtype, factors })
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
        let named = |(t, pair): (usize, &Pair)| {
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

fn rounded(tensor: &HostTensor, dtype: DType) -> HostTensor {
    host(&matrix(&tensor.view()), dtype)
}

/// gA = s B'g and gB = s g A', in f64, rounded to the factors' storage type.
fn gradients(pair: &Pair, g: &HostTensor, s: f64) -> (HostTensor, HostTensor) {
    let factors = Factors {
        b: matrix(&pair.b.view()),
        a: matrix(&pair.a.view()),
        s,
    };
    let gradients = factor_gradients(&factors, &matrix(&g.view()));
    (
        host(&gradients.a, pair.a.dtype()),
        host(&gradients.b, pair.b.dtype()),
    )
}

/// ||x - ref||_F / ||ref||_F, with 0 / 0 = 0.
fn relative_distance(x: MatRef<'_>, reference: MatRef<'_>) -> f64 {
    let reference = matrix(&reference);
    lora_pro_core::backend::ratio_or_zero((matrix(&x) - &reference).norm(), reference.norm())
}

fn check(pair: &Pair, t: usize) -> Result<(), Error> {
    let subject = format!("after step {t}");
    read_finite(&pair.a.view(), &subject, "A")?;
    read_finite(&pair.b.view(), &subject, "B")?;
    Ok(())
}
