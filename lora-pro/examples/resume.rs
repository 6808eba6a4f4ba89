//! A run that is interrupted and resumed ends with the same bits. A checkpoint holds configuration,
//! counters and state; the factors are the caller's, and stand in the same file here.

use std::error::Error;
use std::path::Path;

use lora_pro::{
    AdapterIo, AdapterSpec, Config, CpuBackend, MatMut, MatRef, Optimizer, TensorData, TensorFile,
};

/// A run in progress: the optimizer of one adapter (3 x 2, rank 1) and its factors.
struct Training {
    optimizer: Optimizer,
    a: Vec<f32>,
    b: Vec<f32>,
}

impl Training {
    fn new() -> Result<Self, lora_pro::Error> {
        let mut optimizer = Optimizer::new(CpuBackend::new(), Config::default())?;
        optimizer.add_adapter(AdapterSpec::new("q", 3, 2, 1).alpha(2.0))?;
        let (a, b) = (vec![0.5, -0.25], vec![0.0; 3]);
        Ok(Training { optimizer, a, b })
    }

    /// Steps down |B A|^2 / 2 + the sum of B.
    fn step(&mut self) -> Result<(), lora_pro::Error> {
        let squares = |x: &[f32]| x.iter().map(|x| x * x).sum::<f32>();
        let (aa, bb) = (squares(&self.a), squares(&self.b));
        let grad_a: Vec<f32> = self.a.iter().map(|a| bb * a).collect();
        let grad_b: Vec<f32> = self.b.iter().map(|b| aa * b + 1.0).collect();
        let id = self.optimizer.adapter_id("q").expect("registered in `new`");
        let (a, b) = (
            MatMut::new(&mut self.a, [1, 2])?,
            MatMut::new(&mut self.b, [3, 1])?,
        );
        let (grad_a, grad_b) = (MatRef::new(&grad_a, [1, 2])?, MatRef::new(&grad_b, [3, 1])?);
        self.optimizer
            .step(&mut [AdapterIo::new(id, a, b, grad_a, grad_b)])?;
        Ok(())
    }

    fn save(&mut self, path: &Path) -> Result<(), lora_pro::Error> {
        let mut file = TensorFile::new();
        file.tensors
            .insert("a".into(), TensorData::from_slice([1, 2], &self.a));
        file.tensors
            .insert("b".into(), TensorData::from_slice([3, 1], &self.b));
        self.optimizer.save_to(&mut file)?;
        file.save(path)
    }

    fn load(path: &Path) -> Result<Self, lora_pro::Error> {
        let file = TensorFile::load(path)?;
        let optimizer = Optimizer::load_from(CpuBackend::new(), &file, path)?;
        let (a, b) = (file.tensors["a"].to_vec()?, file.tensors["b"].to_vec()?);
        Ok(Training { optimizer, a, b })
    }
}

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::temp_dir().join(format!("lora-pro-resume-{}", std::process::id()));
    let mut straight = Training::new()?;
    for _ in 0..20 {
        straight.step()?;
    }
    let mut run = Training::new()?;
    for step in 0..20 {
        if step == 11 {
            run.save(&path)?;
            run = Training::load(&path)?;
        }
        run.step()?;
    }
    std::fs::remove_file(&path)?;
    assert_eq!((run.a, run.b), (straight.a, straight.b));
    println!("the same bits");
    Ok(())
}
