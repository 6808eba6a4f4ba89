//! Activation functions, alone and as gates.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{TASK, entries, read};
use crate::activation::Activation;

/// The function of each entry.
pub(crate) fn activate(function: Activation, x: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op1(Activate(function))
}

/// The function of each entry of x, times u.
pub(crate) fn gate(function: Activation, x: &Tensor, u: &Tensor) -> Result<Tensor> {
    if x.dims() != u.dims() {
        candle_core::bail!("a gate {:?} is not for {:?}", x.dims(), u.dims());
    }
    x.contiguous()?.apply_op2(&u.contiguous()?, Gate(function))
}

struct Activate(Activation);

struct Gate(Activation);

/// One function of x and y, entry by entry.
fn map(x: &[f32], y: &[f32], f: impl Fn(f32, f32) -> f32 + Sync) -> Vec<f32> {
    let mut z = vec![0.0; x.len()];
    let parts = z.par_chunks_mut(TASK);
    let parts = parts.zip(x.par_chunks(TASK).zip(y.par_chunks(TASK)));
    parts.for_each(|(z, (x, y))| {
        for ((z, &x), &y) in z.iter_mut().zip(x).zip(y) {
            *z = f(x, y);
        }
    });
    z
}

impl CustomOp1 for Activate {
    fn name(&self) -> &'static str {
        "activation"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = entries(x, layout)?;
        let y = map(x, x, |x, _| self.0.value(x));
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        let g = g.contiguous()?;
        let (entries, g) = (read(x)?, read(&g)?);
        let gradient = map(&entries, &g, |x, g| g * self.0.slope(x));
        Tensor::from_vec(gradient, x.shape(), x.device()).map(Some)
    }
}

impl CustomOp2 for Gate {
    fn name(&self) -> &'static str {
        "gate"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        u: &CpuStorage,
        u_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, u) = (entries(x, x_layout)?, entries(u, u_layout)?);
        let y = map(x, u, |x, u| self.0.value(x) * u);
        Ok((CpuStorage::F32(y), x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        u: &Tensor,
        _y: &Tensor,
        g: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let g = g.contiguous()?;
        let (xs, us, g) = (read(x)?, read(u)?, read(&g)?);
        let for_u = map(&xs, &g, |x, g| g * self.0.value(x));
        let mut for_x = map(&xs, &g, |x, g| g * self.0.slope(x));
        let parts = for_x.par_chunks_mut(TASK).zip(us.par_chunks(TASK));
        parts.for_each(|(for_x, u)| for_x.iter_mut().zip(u).for_each(|(g, u)| *g *= u));
        let tensor = |all| Tensor::from_vec(all, x.shape(), x.device()).map(Some);
        Ok((tensor(for_x)?, tensor(for_u)?))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check_slope, compare, var};
    use super::*;

    const ALL: [Activation; 4] = [
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::Relu,
        Activation::Silu,
    ];

    /// candle's function.
    fn composed(function: Activation, x: &Tensor) -> Tensor {
        let y = match function {
            Activation::Gelu => x.gelu_erf(),
            Activation::GeluTanh => x.gelu(),
            Activation::Relu => x.relu(),
            Activation::Silu => x.silu(),
        };
        y.unwrap()
    }

    #[test]
    fn activations_are_candles() {
        for function in ALL {
            let x = var(&[3, 70]);
            let wide = (x.as_tensor() * 3.0).unwrap();
            let own = activate(function, &wide).unwrap();
            compare(&[&x], &own, &composed(function, &wide));
        }
        let x = var(&[3, 7]);
        check_slope(&x, || activate(Activation::Gelu, &x).unwrap());
    }

    #[test]
    fn gates_are_products() {
        for function in ALL {
            let (x, u) = (var(&[2, 3, 7]), var(&[3, 2, 7]));
            let turned = u.transpose(0, 1).unwrap();
            let own = gate(function, &x, &turned).unwrap();
            let composed = (composed(function, &x) * &turned).unwrap();
            compare(&[&x, &u], &own, &composed);
        }
        let (x, u) = (var(&[3, 7]), var(&[3, 7]));
        check_slope(&x, || gate(Activation::Silu, &x, &u).unwrap());
        let error = gate(Activation::Silu, &x, &var(&[7, 3])).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("a gate [3, 7] is not for [7, 3]"), "{error}");
    }
}
