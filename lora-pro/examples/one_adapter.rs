//! One adapter and one step.

use lora_pro::{AdapterIo, AdapterSpec, Config, CpuBackend, Error, MatMut, MatRef, Optimizer};

pub(crate) fn main() -> Result<(), Error> {
    let mut optimizer = Optimizer::new(CpuBackend::new(), Config::default())?;
    // On a weight of 3 x 2 (out x in features), with rank 1 and s = alpha / r = 2.
    let id = optimizer.add_adapter(AdapterSpec::new("layers.0.q", 3, 2, 1).alpha(2.0))?;

    let (mut a, mut b) = ([0.5f32, -0.25], [0.0f32; 3]); // r x n and m x r
    let (grad_a, grad_b) = ([0.0f32; 2], [1.0f32, -2.0, 0.5]); // from backpropagation
    let (a_view, b_view) = (MatMut::new(&mut a, [1, 2])?, MatMut::new(&mut b, [3, 1])?);
    let (grad_a, grad_b) = (MatRef::new(&grad_a, [1, 2])?, MatRef::new(&grad_b, [3, 1])?);
    optimizer.step(&mut [AdapterIo::new(id, a_view, b_view, grad_a, grad_b)])?;

    let report = optimizer.report(id)?;
    println!("A = {a:?}, B = {b:?}, |lr dB| = {}", report.update_norm.b);
    Ok(())
}
