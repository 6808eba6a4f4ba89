//! One small adapter with a target, stepped by the reference.

use lora_pro_core::{
    AdapterId, AdapterIo, AdapterSpec, Config, DType, Error, HostTensor, Optimizer, Scale,
};
use lora_pro_reference::ReferenceBackend;
use lora_pro_reference::factors::{Factors, factor_gradients};
use lora_pro_reference::storage::{host, matrix};
use nalgebra::DMatrix;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const M: usize = 64;
const N: usize = 48;
const R: usize = 4;
const ALPHA: f64 = 8.0;

/// A 64 x 48 adapter of rank 4 with s = 2: A uniform in ±1/sqrt(n) as PEFT starts it, B = 0, and
/// the loss `||s B A - target||^2 / 2` with a random target.
pub struct Toy {
    optimizer: Optimizer,
    id: AdapterId,
    a: HostTensor,
    b: HostTensor,
    target: DMatrix<f64>,
}

impl Toy {
    /// Always the same start.
    ///
    /// # Errors
    /// Where the configuration is refused.
    pub fn new(config: Config) -> Result<Self, Error> {
        let mut optimizer = Optimizer::new(Box::new(ReferenceBackend::new()), config)?;
        let id = optimizer.add_adapter(
            AdapterSpec::new("toy", M, N, R)
                .alpha(ALPHA)
                .dtype(DType::F64),
        )?;
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut uniform = |rows, cols, limit: f64| {
            DMatrix::from_fn(rows, cols, |_, _| rng.random_range(-limit..limit))
        };
        Ok(Toy {
            optimizer,
            id,
            a: host(&uniform(R, N, 1.0 / (N as f64).sqrt()), DType::F64),
            b: HostTensor::zeros(DType::F64, [M, R]),
            target: uniform(M, N, 1.0),
        })
    }

    /// One step; returns |lr dA| / |A| from its report.
    ///
    /// # Errors
    /// As [`Optimizer::step`].
    pub fn step(&mut self) -> Result<f64, Error> {
        let (grad_a, grad_b) = self.gradients();
        let mut io = AdapterIo::new(
            self.id,
            self.a.view_mut(),
            self.b.view_mut(),
            grad_a.view(),
            grad_b.view(),
        );
        self.optimizer.step(std::slice::from_mut(&mut io))?;
        Ok(self.optimizer.adapters()[self.id.index()]
            .report
            .relative_update
            .a)
    }

    /// |A|.
    pub fn size_of_a(&self) -> f64 {
        matrix(&self.a.view()).norm()
    }

    fn gradients(&self) -> (HostTensor, HostTensor) {
        let s = Scale::Alpha(ALPHA).value(R);
        let (a, b) = (matrix(&self.a.view()), matrix(&self.b.view()));
        let g = &b * &a * s - &self.target;
        let pair = factor_gradients(&Factors { a, b, s }, &g);
        (host(&pair.a, DType::F64), host(&pair.b, DType::F64))
    }
}
