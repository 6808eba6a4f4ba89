//! The last layer of a language model with its loss: logits over a vocabulary are many times larger than what
//! they come from and what they lead to, so they exist for some rows at a time.

use candle_core::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Storage, Tensor};
use rayon::prelude::*;

use super::matrix::Matrix;
use super::read;

/// Logits that exist at once, about; few in tests, so that there are several parts.
const LOGITS: usize = if cfg!(test) { 1 << 6 } else { 1 << 24 };

/// The mean cross-entropy of the logits x W' with the numbers that are right, and for each row whether the
/// right one has the largest logit. x is K x n; W, V x n, is frozen and of any type.
pub(crate) fn linear_cross_entropy(
    x: &Tensor,
    weight: &Tensor,
    right: &[u32],
) -> Result<(Tensor, Vec<bool>)> {
    let (count, (vocabulary, width)) = (x.dim(0)?, weight.dims2()?);
    if x.dims() != [right.len(), width] {
        let dims = x.dims();
        candle_core::bail!("{} tokens for {dims:?}, width {width}", right.len());
    }
    if let Some(one) = right.iter().find(|&&one| one as usize >= vocabulary) {
        candle_core::bail!("token {one} in a vocabulary of {vocabulary}");
    }
    let rows = x.detach().contiguous()?;
    let rows = read(&rows)?;
    let weight = weight.detach().to_dtype(DType::F32)?.contiguous()?;
    let (storage, layout) = weight.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else {
        candle_core::bail!("the last layer's weight is not on the CPU");
    };

    let at_once = (LOGITS / vocabulary.max(1)).max(1);
    let (mut losses, mut hits, mut gradient) = (0.0, Vec::new(), Vec::new());
    for (rows, right) in rows
        .chunks(at_once * width.max(1))
        .zip(right.chunks(at_once))
    {
        let rows = Matrix::new(rows.to_vec(), [right.len(), width]);
        let mut logits = rows.times_stored(storage, &layout.transpose(0, 1)?)?;
        let scale = (count as f32).recip();
        let each = logits.par_chunks_mut(vocabulary).zip(right);
        let found: Vec<(f32, bool)> = each
            .map(|(logits, &right)| row(logits, right as usize, scale))
            .collect();
        losses += found.iter().map(|(loss, _)| f64::from(*loss)).sum::<f64>();
        hits.extend(found.into_iter().map(|(_, hit)| hit));
        if x.track_op() {
            let slopes = Matrix::new(logits, [right.len(), vocabulary]);
            gradient.extend(slopes.times_stored(storage, layout)?);
        }
    }
    let loss = (losses / count.max(1) as f64) as f32;
    let loss = match x.track_op() {
        true => {
            let gradient = Tensor::from_vec(gradient, x.shape(), x.device())?;
            x.apply_op1(Known { loss, gradient })?
        }
        false => Tensor::new(loss, x.device())?,
    };
    Ok((loss, hits))
}

/// The loss of a row, and whether it is right. Its logits become `scale` times their gradient.
fn row(logits: &mut [f32], right: usize, scale: f32) -> (f32, bool) {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let hit = logits.iter().position(|&one| one == largest) == Some(right);
    let own = logits[right];
    logits.iter_mut().for_each(|x| *x = (*x - largest).exp());
    let sum = super::sum_of(logits, logits, |x, _| x);
    let factor = scale / sum;
    logits.iter_mut().for_each(|x| *x *= factor);
    logits[right] -= scale;
    (sum.ln() + largest - own, hit)
}

/// A loss whose gradient is known with it.
struct Known {
    loss: f32,
    gradient: Tensor,
}

impl CustomOp1 for Known {
    fn name(&self) -> &'static str {
        "linear-cross-entropy"
    }

    fn cpu_fwd(&self, _x: &CpuStorage, _layout: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(vec![self.loss]), Shape::from(())))
    }

    fn bwd(&self, _x: &Tensor, _loss: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some((&self.gradient * f64::from(g.to_scalar::<f32>()?))?))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::D;
    use candle_nn::loss::cross_entropy;

    use super::super::tests::{check_slope, compare, random, var};
    use super::*;

    #[test]
    fn loss_and_hits_are_those_of_the_logits() {
        let (x, weight) = (var(&[11, 5]), random(&[20, 5]));
        let right: Vec<u32> = (0..11).collect();
        let (own, hits) = linear_cross_entropy(&x, &weight, &right).unwrap();
        let logits = x.matmul(&weight.t().unwrap()).unwrap();
        let composed = cross_entropy(&logits, &Tensor::new(&*right, x.device()).unwrap());
        compare(&[&x], &own, &composed.unwrap());
        let best = logits.argmax(D::Minus1).unwrap().to_vec1::<u32>().unwrap();
        let right: Vec<bool> = best.iter().zip(&right).map(|(x, y)| x == y).collect();
        assert_eq!(hits, right);
        let (_, hits) = linear_cross_entropy(&x, &weight, &best).unwrap();
        assert_eq!(hits, [true; 11]);
    }

    #[test]
    fn the_gradient_is_that_of_the_loss() {
        let (x, weight) = (var(&[3, 5]), random(&[7, 5]));
        let loss = || linear_cross_entropy(&x, &weight, &[1, 6, 0]).unwrap().0;
        check_slope(&x, loss);
        let half = weight.to_dtype(DType::BF16).unwrap();
        let wide = half.to_dtype(DType::F32).unwrap();
        let loss = |weight| linear_cross_entropy(&x, weight, &[1, 6, 0]).unwrap().0;
        compare(&[&x], &loss(&half), &loss(&wide));
    }

    #[test]
    fn a_token_outside_of_the_vocabulary_is_an_error() {
        let error = linear_cross_entropy(&random(&[1, 5]), &random(&[7, 5]), &[7]);
        let error = error.unwrap_err().to_string();
        assert!(error.contains("token 7 in a vocabulary of 7"), "{error}");
    }
}
