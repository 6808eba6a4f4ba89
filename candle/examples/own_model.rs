//! A candle model of one's own. Interrupted and started again, it goes on to the last bit.

use std::error::Error;

use candle_core::{DType, Device::Cpu, Module, Result, Tensor, Var};
use candle_nn::{Linear, loss::mse};
use lora_pro::{Config, CpuBackend, Hyper, Scale, Schedule};
use lora_pro_candle::{LoraLinear, LoraPro, PeftAdapter};

/// Two frozen layers with adapters and a trained head.
struct Model(LoraLinear, LoraLinear, Var);

impl Model {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = self.0.forward(x)?.gelu()?;
        let x = self.1.forward(&x)?.gelu()?;
        x.matmul(&self.2.t()?)
    }
}

/// Stands for pre-trained weights and for data.
fn numbers(rows: usize, cols: usize) -> Result<Tensor> {
    let x = Tensor::arange(0f32, (rows * cols) as f32, &Cpu)?;
    (x * 12.9)?.sin()?.reshape((rows, cols))
}

pub(crate) fn train(folder: &str, steps: u64) -> std::result::Result<f32, Box<dyn Error>> {
    let frozen = |m, n| Ok::<_, candle_core::Error>(Linear::new((numbers(m, n)? * 0.2)?, None));
    let model = Model(
        LoraLinear::new("layers.0", frozen(32, 16)?, 4, Scale::Alpha(8.0), 0)?,
        LoraLinear::new("layers.1", frozen(32, 32)?, 4, Scale::Alpha(8.0), 0)?,
        Var::zeros((1, 32), DType::F32, &Cpu)?,
    );
    let (warmup, total) = (10, 200);
    let schedule = Schedule::Cosine { warmup, total };
    let config = Config::from(Hyper::default().lr(1e-2)).schedule(schedule);
    let config = config.max_grad_norm(1.0);
    let mut optimizer = LoraPro::new(CpuBackend::new(), config)?;
    optimizer.add_layer(&model.0)?;
    optimizer.add_layer(&model.1)?;
    optimizer.add_var("head.weight", &model.2)?;
    let checkpoint = format!("{folder}/checkpoint.safetensors");
    if std::fs::exists(&checkpoint)? {
        optimizer.load(&checkpoint)?;
    }
    let (x, y) = (numbers(64, 16)?, numbers(64, 1)?);
    while optimizer.optimizer().steps() < steps {
        let report = optimizer.backward_step(&mse(&model.forward(&x)?, &y)?)?;
        if optimizer.optimizer().steps().is_multiple_of(50) {
            PeftAdapter::new("frozen", [&model.0, &model.1])?.save(folder)?;
            optimizer.save(&checkpoint)?;
            println!("|g| = {}", report.grad_norm);
        }
    }
    Ok(mse(&model.forward(&x)?, &y)?.to_scalar()?)
}

fn main() -> std::result::Result<(), Box<dyn Error>> {
    train("own_model", 200).map(|loss| println!("loss {loss}"))
}
