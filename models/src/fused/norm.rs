//! Norms over the last dimension.

use candle_core::{CpuStorage, CustomOp2, CustomOp3, DType, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{TASK, entries, read, sum_of};

/// x / sqrt(mean of squares + eps) over the last dimension, times weight.
pub(crate) fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    let norm = Norm {
        eps: eps as f32,
        centred: false,
    };
    x.contiguous()?
        .apply_op2(&weight.to_dtype(DType::F32)?, norm)
}

/// (x - mean) / sqrt(variance + eps) over the last dimension, times weight, plus bias.
pub(crate) fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    let norm = Norm {
        eps: eps as f32,
        centred: true,
    };
    let [weight, bias] = [weight, bias].map(|tensor| tensor.to_dtype(DType::F32));
    x.contiguous()?.apply_op3(&weight?, &bias?, norm)
}

struct Norm {
    eps: f32,
    centred: bool,
}

impl Norm {
    /// What is subtracted from a row, and what the difference is multiplied by.
    fn moments(&self, x: &[f32]) -> (f32, f32) {
        let count = x.len() as f32;
        if !self.centred {
            return (
                0.0,
                (sum_of(x, x, |x, y| x * y) / count + self.eps)
                    .sqrt()
                    .recip(),
            );
        }
        let mean = sum_of(x, x, |x, _| x) / count;
        let variance = sum_of(x, x, |x, _| (x - mean) * (x - mean)) / count;
        (mean, (variance + self.eps).sqrt().recip())
    }

    fn forward(&self, x: &[f32], weight: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
        let width = weight.len().max(1);
        let mut y = vec![0.0; x.len()];
        let rows = y
            .par_chunks_mut(width)
            .zip(x.par_chunks(width))
            .with_min_len(TASK.div_ceil(width));
        rows.for_each(|(y, x)| {
            let (mean, factor) = self.moments(x);
            for ((y, x), w) in y.iter_mut().zip(x).zip(weight) {
                *y = (x - mean) * factor * w;
            }
            if let Some(bias) = bias {
                y.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
            }
        });
        y
    }

    /// With h = (x - mean) * factor and u = g * weight, the gradient of x is
    /// factor * (u - mean(u) - h mean(u h)), where mean(u) is there for a centred norm only.
    fn for_x(&self, x: &Tensor, weight: &Tensor, g: &Tensor) -> Result<Tensor> {
        let (entries, g, weight) = (read(x)?, read(g)?, read(weight)?);
        let width = weight.len().max(1);
        let mut gradient = vec![0.0; entries.len()];
        let rows = gradient
            .par_chunks_mut(width)
            .zip(entries.par_chunks(width).zip(g.par_chunks(width)))
            .with_min_len(TASK.div_ceil(width));
        rows.for_each(|(u, (x, g))| {
            let (mean, factor) = self.moments(x);
            for ((u, g), w) in u.iter_mut().zip(g).zip(&*weight) {
                *u = g * w;
            }
            let count = width as f32;
            let middle = match self.centred {
                true => sum_of(u, u, |u, _| u) / count,
                false => 0.0,
            };
            let along = sum_of(u, x, |u, x| u * (x - mean)) * factor / count;
            for (u, x) in u.iter_mut().zip(x) {
                *u = factor * (*u - middle - (x - mean) * factor * along);
            }
        });
        Tensor::from_vec(gradient, x.shape(), x.device())
    }

    /// The gradients of weight and bias: the sums of g * h and of g over the rows.
    fn for_numbers(&self, x: &Tensor, g: &Tensor, width: usize) -> Result<[Tensor; 2]> {
        let (entries, g) = (read(x)?, read(g)?);
        let (mut weight, mut bias) = (vec![0.0; width], vec![0.0; width]);
        for (x, g) in entries.chunks(width.max(1)).zip(g.chunks(width.max(1))) {
            let (mean, factor) = self.moments(x);
            for (((weight, bias), x), g) in weight.iter_mut().zip(&mut bias).zip(x).zip(g) {
                *weight += g * (x - mean) * factor;
                *bias += g;
            }
        }
        let tensor = |sums| Tensor::from_vec(sums, width, x.device());
        Ok([tensor(weight)?, tensor(bias)?])
    }
}

impl CustomOp2 for Norm {
    fn name(&self) -> &'static str {
        "rms-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, weight) = (entries(x, x_layout)?, entries(weight, weight_layout)?);
        check_width(x_layout, weight)?;
        let y = self.forward(x, weight, None);
        Ok((CpuStorage::F32(y), x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _y: &Tensor,
        g: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let g = g.contiguous()?;
        let for_x = x.track_op().then(|| self.for_x(x, weight, &g));
        let trained = weight.track_op();
        let numbers = trained.then(|| self.for_numbers(x, &g, weight.elem_count()));
        Ok((
            for_x.transpose()?,
            numbers.transpose()?.map(|[weight, _]| weight),
        ))
    }
}

impl CustomOp3 for Norm {
    fn name(&self) -> &'static str {
        "layer-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, weight) = (entries(x, x_layout)?, entries(weight, weight_layout)?);
        let bias = entries(bias, bias_layout)?;
        check_width(x_layout, weight)?;
        check_width(x_layout, bias)?;
        let y = self.forward(x, weight, Some(bias));
        Ok((CpuStorage::F32(y), x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _y: &Tensor,
        g: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let g = g.contiguous()?;
        let for_x = x.track_op().then(|| self.for_x(x, weight, &g));
        let trained = weight.track_op() || bias.track_op();
        let numbers = trained.then(|| self.for_numbers(x, &g, weight.elem_count()));
        let (weight, bias) = numbers.transpose()?.map(|[w, b]| (w, b)).unzip();
        Ok((for_x.transpose()?, weight, bias))
    }
}

fn check_width(x: &Layout, numbers: &[f32]) -> Result<()> {
    match x.dims().last() == Some(&numbers.len()) {
        true => Ok(()),
        false => candle_core::bail!(
            "a norm of width {} takes no tensor {:?}",
            numbers.len(),
            x.dims()
        ),
    }
}

#[cfg(test)]
mod tests {
    use candle_core::D;

    use super::super::tests::{check_slope, compare, random, var};
    use super::*;

    fn composed(x: &Tensor, weight: &Tensor, eps: f64) -> Tensor {
        let size = (x.sqr().unwrap().mean_keepdim(D::Minus1).unwrap() + eps).unwrap();
        let unit = x.broadcast_div(&size.sqrt().unwrap()).unwrap();
        unit.broadcast_mul(weight).unwrap()
    }

    #[test]
    fn rms_norms_are_those_of_candles_operations() {
        let (x, weight) = (var(&[2, 3, 21]), var(&[21]));
        let own = rms_norm(&x, &weight, 1e-2).unwrap();
        compare(&[&x, &weight], &own, &composed(&x, &weight, 1e-2));
        check_slope(&x, || rms_norm(&x, &weight, 1e-2).unwrap());
    }

    #[test]
    fn layer_norms_are_those_of_candles_operations() {
        let (x, weight, bias) = (var(&[3, 2, 21]), var(&[21]), var(&[21]));
        let moved = (x.as_tensor() + 2.0).unwrap();
        let turned = moved.transpose(0, 1).unwrap();
        let own = layer_norm(&turned, &weight, &bias, 1e-2).unwrap();
        let centred = turned.broadcast_sub(&turned.mean_keepdim(D::Minus1).unwrap());
        let composed = composed(&centred.unwrap(), &weight, 1e-2);
        let composed = composed.broadcast_add(&bias).unwrap();
        compare(&[&x, &weight, &bias], &own, &composed);
        check_slope(&x, || layer_norm(&x, &weight, &bias, 1e-2).unwrap());
    }

    #[test]
    fn frozen_numbers_have_no_gradient() {
        let (x, weight) = (var(&[2, 5]), random(&[5]));
        let y = rms_norm(&x, &weight, 1e-2).unwrap();
        let gradients = y.sum_all().unwrap().backward().unwrap();
        assert_eq!(gradients.get_ids().count(), 1);
    }

    #[test]
    fn a_width_that_does_not_fit_is_an_error() {
        let error = rms_norm(&random(&[3, 4]), &random(&[5]), 1e-2).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("a norm of width 5 takes no tensor [3, 4]"));
    }
}
