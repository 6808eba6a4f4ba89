//! How far runs in short types stray from the f64 reference in 2,000 steps: the numbers behind the
//! plot in the chapter on numerics.
//!
//! `cargo run --release -p lora-pro-docs --example long_run > docs/chapters/images/long_run.csv`
//! takes some minutes. One line per method, kind and step:
//! `||s B A - s B A of the reference||_F / ||s B A of the reference||_F`.

use lora_pro_core::{
    AdapterId, AdapterIo, AdapterSpec, Backend, Config, DType, Error, HostTensor, Hyper, Method,
    Optimizer, Preset, Rounding, Scale,
};
use lora_pro_cpu::CpuBackend;
use lora_pro_reference::ReferenceBackend;
use lora_pro_reference::factors::{Factors, factor_gradients};
use lora_pro_reference::storage::{host, matrix};
use nalgebra::DMatrix;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The attention projections of a BERT of base size.
const SIZE: usize = 768;
const RANK: usize = 8;
const S: f64 = 2.0;
const STEPS: usize = 2000;

/// One run: an adapter and its optimizer.
struct LongRun {
    kind: &'static str,
    dtype: DType,
    optimizer: Optimizer,
    id: AdapterId,
    a: HostTensor,
    b: HostTensor,
}

impl LongRun {
    fn new(
        kind: &'static str,
        backend: Box<dyn Backend>,
        dtype: DType,
        hyper: Hyper,
    ) -> Result<Self, Error> {
        let mut optimizer = Optimizer::new(backend, Config::from(hyper))?;
        let id = optimizer.add_adapter(
            AdapterSpec::new("attention", SIZE, SIZE, RANK)
                .scale(Scale::Explicit(S))
                .dtype(dtype),
        )?;
        let limit = 1.0 / (SIZE as f64).sqrt();
        let mut random = ChaCha8Rng::seed_from_u64(1);
        // All runs start from numbers that bf16 holds.
        let a = DMatrix::from_fn(RANK, SIZE, |_, _| {
            DType::Bf16.round(random.random_range(-limit..limit))
        });
        let (a, b) = (host(&a, dtype), HostTensor::zeros(dtype, [SIZE, RANK]));
        Ok(LongRun {
            kind,
            dtype,
            optimizer,
            id,
            a,
            b,
        })
    }

    fn factors(&self) -> Factors {
        Factors {
            a: matrix(&self.a.view()),
            b: matrix(&self.b.view()),
            s: S,
        }
    }

    /// s B A.
    fn product(&self) -> DMatrix<f64> {
        let Factors { a, b, s } = self.factors();
        b * a * s
    }

    fn step(&mut self, towards: &DMatrix<f64>) -> Result<(), Error> {
        let g = self.product() - towards;
        let pair = factor_gradients(&self.factors(), &g);
        let (grad_a, grad_b) = (host(&pair.a, self.dtype), host(&pair.b, self.dtype));
        let io = AdapterIo::new(
            self.id,
            self.a.view_mut(),
            self.b.view_mut(),
            grad_a.view(),
            grad_b.view(),
        );
        self.optimizer.step(&mut [io])?;
        Ok(())
    }
}

/// A target of rank 32, and noise that differs from step to step: what a minibatch does.
struct Task {
    target: DMatrix<f64>,
    noise: Vec<DMatrix<f64>>,
}

impl Task {
    fn new() -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(2);
        let mut uniform =
            |rows, cols| DMatrix::from_fn(rows, cols, |_, _| random.random_range(-1.0..1.0));
        let target = uniform(SIZE, 32) * uniform(32, SIZE) * 0.01;
        let noise = (0..37).map(|_| uniform(SIZE, SIZE) * 0.02).collect();
        Task { target, noise }
    }

    fn towards(&self, t: usize) -> DMatrix<f64> {
        &self.target + &self.noise[t * 7 % self.noise.len()]
    }
}

fn main() -> Result<(), Error> {
    println!("method,kind,step,error");
    let task = Task::new();
    for method in [Method::Full, Method::Efficient, Method::Factored] {
        let hyper = Preset::Recommended.hyper().method(method).lr(5e-4);
        let mut reference = LongRun::new(
            "reference",
            Box::new(ReferenceBackend::new()),
            DType::F64,
            hyper,
        )?;
        let mut runs = Vec::new();
        for (kind, dtype, rounding) in [
            ("f32", DType::F32, Rounding::Nearest),
            ("bf16 with master copies", DType::Bf16, Rounding::MasterCopy),
            ("bf16, stochastic", DType::Bf16, Rounding::Stochastic),
            ("bf16, nearest", DType::Bf16, Rounding::Nearest),
        ] {
            let hyper = hyper.rounding(rounding);
            runs.push(LongRun::new(
                kind,
                Box::new(CpuBackend::new()),
                dtype,
                hyper,
            )?);
        }
        for t in 1..=STEPS {
            let towards = task.towards(t);
            reference.step(&towards)?;
            for run in &mut runs {
                run.step(&towards)?;
            }
            if t <= 10 || t % 20 == 0 {
                let exact = reference.product();
                for run in &runs {
                    let error = (run.product() - &exact).norm() / exact.norm();
                    println!("{method},\"{}\",{t},{error:.3e}", run.kind);
                }
            }
        }
    }
    Ok(())
}
