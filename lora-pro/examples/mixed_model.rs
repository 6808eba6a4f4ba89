//! Two adapters of other shapes, one in a group with a rate of its own, and a bias that AdamW steps;
//! gradients of a scaled loss, and a learning-rate schedule of one's own.

use lora_pro::{
    AdapterIo, AdapterSpec, Config, CpuBackend, DType, Error, HostTensor, Hyper, OnNonFinite,
    Optimizer, ParamIo, ParamSpec,
};

/// Numbers that stand for parameters and gradients.
fn numbers([rows, cols]: [usize; 2], factor: f64) -> HostTensor {
    let entry = |i: usize, j: usize| factor * ((3 * i + 5 * j) % 7) as f64 - 3.0 * factor;
    HostTensor::from_fn(DType::F32, [rows, cols], entry)
}

pub(crate) fn main() -> Result<(), Error> {
    const LOSS_SCALE: f64 = 1024.0;
    let hyper = Hyper::default().lr(1e-3);
    let config = Config::from(hyper)
        .group("attention", hyper.lr(3e-3).update_clip(Some(0.5)))
        .max_grad_norm(1.0)
        .on_non_finite(OnNonFinite::Skip);
    let mut optimizer = Optimizer::new(CpuBackend::new(), config)?;
    optimizer.set_grad_scale(1.0 / LOSS_SCALE)?;

    let specs = [
        AdapterSpec::new("q", 16, 8, 4)
            .alpha(8.0)
            .group("attention"),
        AdapterSpec::new("mlp", 32, 16, 2).alpha(4.0),
    ];
    let mut factors = specs.each_ref().map(|spec| {
        [
            numbers(spec.a_shape(), 0.1),
            HostTensor::zeros(spec.dtype, spec.b_shape()),
        ]
    });
    let [q, mlp] = specs;
    let ids = [optimizer.add_adapter(q)?, optimizer.add_adapter(mlp)?];
    let bias_id = optimizer.add_param(ParamSpec::new("bias", 1, 32))?;
    let mut bias = HostTensor::zeros(DType::F32, [1, 32]);

    for step in 0..10 {
        // One's own schedule: the rate halves every four steps.
        optimizer.set_lr_factor(0.5f64.powi(step / 4))?;
        let gradients = factors.each_ref().map(|both| {
            both.each_ref()
                .map(|factor| numbers(factor.shape(), LOSS_SCALE * 0.01))
        });
        let bias_gradient = numbers([1, 32], LOSS_SCALE * 0.01);
        let io = ids.iter().zip(&mut factors).zip(&gradients);
        let mut adapters: Vec<AdapterIo<'_>> = io
            .map(|((id, [a, b]), [grad_a, grad_b])| {
                AdapterIo::new(
                    *id,
                    a.view_mut(),
                    b.view_mut(),
                    grad_a.view(),
                    grad_b.view(),
                )
            })
            .collect();
        let mut params = [ParamIo::new(bias_id, bias.view_mut(), bias_gradient.view())];
        let report = optimizer.step_with_params(&mut adapters, &mut params)?;
        match report.skipped {
            Some(skipped) => println!("step {step} skipped: {}", skipped.reason),
            None => println!("step {step}: |g| = {:.3}", report.grad_norm),
        }
    }
    for id in ids {
        let (slot, report) = (optimizer.adapter(id)?, optimizer.report(id)?);
        println!(
            "{}: |lr dA| / |A| = {:.4}",
            slot.spec.name, report.relative_update.a
        );
    }
    Ok(())
}
