//! Linear layers as operations of candle's graph with a backward pass of their own.
//!
//! candle's product computes the gradients of both factors, of a frozen weight too: a third of the time
//! of a step, and memory for another copy of the model. Here gradients are computed for what is trained
//! and for what depends on it. A weight of 16 bits is widened for one product at a time.

use candle_core::backend::BackendStorage;
use candle_core::{
    CpuStorage, CustomOp2, CustomOp3, D, DType, Layout, Module, Result, Shape, Tensor,
};
use candle_nn::Linear;

/// y = x W' + b in the type of x, which is ... x n; the layer's numbers may have another type.
pub fn linear(layer: &Linear, x: &Tensor) -> Result<Tensor> {
    if !is_supported(x) {
        return in_dtype(layer, x.dtype())?.forward(x);
    }
    let (frozen, trained) = match layer.bias() {
        Some(bias) if bias.track_op() => (None, Some(bias)),
        bias => (bias.cloned(), None),
    };
    let y = x
        .contiguous()?
        .apply_op2(layer.weight(), Plain { bias: frozen })?;
    match trained {
        Some(bias) => y.broadcast_add(&bias.to_dtype(x.dtype())?),
        None => Ok(y),
    }
}

/// y = x W' + b + s u B', where u is x A' or what dropout leaves of it; x is ... x n, u is ... x r and
/// B is m x r. All have the same type; that of W and b may be another.
pub(crate) fn adapted(base: &Linear, x: &Tensor, u: &Tensor, b: &Tensor, s: f64) -> Result<Tensor> {
    let mut numbers = [Some(base.weight()), base.bias()].into_iter().flatten();
    if !is_supported(x) || numbers.any(Tensor::track_op) {
        let change = linear(&Linear::new(b.clone(), None), u)?;
        return linear(base, x)? + (change * s)?;
    }
    let base = base.clone();
    x.contiguous()?.apply_op3(u, b, Adapted { base, s })
}

/// The layer with its numbers in another type; without a copy where it has that type.
fn in_dtype(layer: &Linear, dtype: DType) -> Result<Linear> {
    let bias = layer.bias().map(|bias| bias.to_dtype(dtype));
    Ok(Linear::new(
        layer.weight().to_dtype(dtype)?,
        bias.transpose()?,
    ))
}

/// What the operations here take; anything else goes by candle's own.
fn is_supported(x: &Tensor) -> bool {
    x.dtype() == DType::F32 && x.device().is_cpu() && x.rank() >= 2 && x.elem_count() > 0
}

/// x W' + b as a function of x and W; b is frozen.
struct Plain {
    bias: Option<Tensor>,
}

impl CustomOp2 for Plain {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        w: &CpuStorage,
        w_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (mut y, shape) = product([x, w], [x_layout, w_layout])?;
        add_bias(&mut y, self.bias.as_ref())?;
        Ok((CpuStorage::F32(y), shape))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _y: &Tensor,
        g: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let for_x = x.track_op().then(|| times(g, w));
        let for_w = w.track_op().then(|| {
            let gradient = rows(g)?.t()?.matmul(&rows(x)?)?;
            gradient.to_dtype(w.dtype())
        });
        Ok((for_x.transpose()?, for_w.transpose()?))
    }
}

/// x W' + b + s u B' as a function of x, u and B.
struct Adapted {
    base: Linear,
    s: f64,
}

impl CustomOp3 for Adapted {
    fn name(&self) -> &'static str {
        "adapted-linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        u: &CpuStorage,
        u_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (w, w_layout) = self.base.weight().storage_and_layout();
        let candle_core::Storage::Cpu(w) = &*w else {
            candle_core::bail!("a layer's weight is not on the CPU")
        };
        let (mut y, shape) = product([x, w], [x_layout, w_layout])?;
        let (change, _) = product([u, b], [u_layout, b_layout])?;
        let s = self.s as f32;
        y.iter_mut().zip(change).for_each(|(y, v)| *y += s * v);
        add_bias(&mut y, self.base.bias())?;
        Ok((CpuStorage::F32(y), shape))
    }

    fn bwd(
        &self,
        x: &Tensor,
        u: &Tensor,
        b: &Tensor,
        _y: &Tensor,
        g: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let for_x = x.track_op().then(|| times(g, self.base.weight()));
        let for_u = (times(g, b)? * self.s)?;
        let for_b = (rows(g)?.t()?.matmul(&rows(u)?)? * self.s)?;
        Ok((for_x.transpose()?, Some(for_u), Some(for_b)))
    }
}

/// x W' with its shape; x is ... x n without gaps, W is m x n of any type.
fn product(
    [x, w]: [&CpuStorage; 2],
    [x_layout, w_layout]: [&Layout; 2],
) -> Result<(Vec<f32>, Shape)> {
    let (m, n) = w_layout.shape().dims2()?;
    let mut dims = x_layout.dims().to_vec();
    if !x_layout.is_contiguous() || dims.pop() != Some(n) {
        candle_core::bail!(
            "a layer with {n} inputs takes no tensor {:?}",
            x_layout.dims()
        )
    }
    let count = dims.iter().product();
    let x_layout = Layout::contiguous_with_offset((count, n), x_layout.start_offset());
    let y = match w.dtype() {
        DType::F32 => x.matmul(w, (1, count, m, n), &x_layout, &w_layout.transpose(0, 1)?)?,
        _ => {
            let (w, layout) = (
                w.to_dtype(w_layout, DType::F32)?,
                Layout::contiguous((m, n)),
            );
            x.matmul(&w, (1, count, m, n), &x_layout, &layout.transpose(0, 1)?)?
        }
    };
    let CpuStorage::F32(y) = y else {
        candle_core::bail!("a product of another type than f32")
    };
    dims.push(m);
    Ok((y, dims.into()))
}

/// Adds b to each row of y.
fn add_bias(y: &mut [f32], bias: Option<&Tensor>) -> Result<()> {
    let Some(bias) = bias else { return Ok(()) };
    let bias = bias.to_dtype(DType::F32)?.to_vec1::<f32>()?;
    for row in y.chunks_exact_mut(bias.len().max(1)) {
        row.iter_mut().zip(&bias).for_each(|(y, b)| *y += b);
    }
    Ok(())
}

/// g W in the type of g: the gradient of x, where g is that of x W'.
fn times(g: &Tensor, w: &Tensor) -> Result<Tensor> {
    let product = rows(g)?.matmul(&w.detach().to_dtype(g.dtype())?)?;
    let (mut dims, (_, n)) = (g.dims().to_vec(), w.dims2()?);
    if let Some(last) = dims.last_mut() {
        *last = n;
    }
    product.reshape(dims)
}

/// x, ... x n, as a matrix that is no part of a graph.
fn rows(x: &Tensor) -> Result<Tensor> {
    let n = x.dim(D::Minus1)?;
    x.detach().contiguous()?.reshape(((), n))
}

#[cfg(test)]
mod tests {
    use candle_core::{Device::Cpu, Var};

    use super::*;

    fn random(dims: &[usize]) -> Tensor {
        Tensor::randn(0f32, 1.0, dims, &Cpu).unwrap()
    }

    fn difference(one: &Tensor, other: &Tensor) -> f32 {
        assert_eq!(one.dims(), other.dims());
        let apart = (one - other).unwrap().abs().unwrap().flatten_all().unwrap();
        apart.max(0).unwrap().to_scalar().unwrap()
    }

    /// Value and gradients of `own` against those of candle's operations.
    fn compare(vars: &[&Var], own: impl Fn() -> Tensor, composed: impl Fn() -> Tensor) {
        let (own, composed) = (own(), composed());
        assert!(difference(&own, &composed) < 1e-5);
        let probe = random(own.dims());
        let loss = |y: &Tensor| (y * &probe).unwrap().sum_all().unwrap();
        let [own, composed] = [&own, &composed].map(|y| loss(y).backward().unwrap());
        for var in vars {
            let apart = difference(own.get(var).unwrap(), composed.get(var).unwrap());
            assert!(apart < 1e-4, "{apart}");
        }
    }

    #[test]
    fn a_trained_layer_is_candles() {
        let var = |dims: &[usize]| Var::from_tensor(&random(dims)).unwrap();
        let (x, w, b) = (var(&[2, 3, 5]), var(&[4, 5]), var(&[4]));
        let layer = Linear::new(w.as_tensor().clone(), Some(b.as_tensor().clone()));
        let [own, composed] = [linear(&layer, &x), layer.forward(&x)].map(Result::unwrap);
        compare(&[&x, &w, &b], || own.clone(), || composed.clone());
        // A transposed input has gaps.
        let x = var(&[3, 2, 5]);
        let turned = x.transpose(0, 1).unwrap();
        let own = || linear(&layer, &turned).unwrap();
        let composed = || layer.forward(&turned.contiguous().unwrap()).unwrap();
        compare(&[&x, &w, &b], own, composed);
    }

    #[test]
    fn a_frozen_weight_has_no_gradient() {
        let (x, w) = (Var::from_tensor(&random(&[3, 5])).unwrap(), random(&[4, 5]));
        let layer = Linear::new(w.clone(), Some(random(&[4])));
        let y = linear(&layer, &x).unwrap();
        let gradients = y.sum_all().unwrap().backward().unwrap();
        assert_eq!(gradients.get_ids().count(), 1);
        compare(&[&x], || y.clone(), || layer.forward(&x).unwrap());
    }

    #[test]
    fn weights_of_16_bits_are_widened() {
        let half = |tensor: Tensor| tensor.to_dtype(DType::BF16).unwrap();
        let layer = Linear::new(half(random(&[4, 5])), Some(half(random(&[4]))));
        let x = Var::from_tensor(&random(&[3, 5])).unwrap();
        let wide = in_dtype(&layer, DType::F32).unwrap();
        let own = || linear(&layer, &x).unwrap();
        compare(&[&x], own, || wide.forward(&x).unwrap());
    }

    #[test]
    fn an_adapted_layer_is_the_sum_of_its_parts() {
        let var = |dims: &[usize]| Var::from_tensor(&random(dims)).unwrap();
        let (x, u, b) = (var(&[2, 3, 5]), var(&[2, 3, 2]), var(&[4, 2]));
        let base = Linear::new(random(&[4, 5]), Some(random(&[4])));
        let own = || adapted(&base, &x, &u, &b, 1.5).unwrap();
        let change = Linear::new(b.as_tensor().clone(), None);
        let change = || (change.forward(&u).unwrap() * 1.5).unwrap();
        let composed = || (base.forward(&x).unwrap() + change()).unwrap();
        compare(&[&x, &u, &b], own, composed);
    }

    #[test]
    fn a_width_that_does_not_fit_is_an_error() {
        let layer = Linear::new(random(&[4, 5]), None);
        let error = linear(&layer, &random(&[3, 6])).unwrap_err().to_string();
        assert!(error.contains("a layer with 5 inputs takes no tensor [3, 6]"));
    }
}
