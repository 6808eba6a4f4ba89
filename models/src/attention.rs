//! Attention of several heads.

use candle_core::{DType, Result, Tensor};

use crate::forward::Forward;

/// softmax(q k' / sqrt(d) + mask) v for each head; q, k and v are N x T x h d, and so is the result.
/// `mask` is added; it has 4 dimensions that broadcast to N x h x T x T. `dropout` is the probability
/// with which a training pass drops an entry of the softmax.
pub(crate) fn attention(
    pass: &Forward<'_>,
    [q, k, v]: [&Tensor; 3],
    heads: usize,
    mask: Option<&Tensor>,
    dropout: f64,
) -> Result<Tensor> {
    let (rows, positions, width) = q.dims3()?;
    let split = |x: &Tensor| {
        let x = x.reshape((rows, positions, heads, width / heads))?;
        x.transpose(1, 2)?.contiguous()
    };
    let q = (split(q)? * ((width / heads) as f64).sqrt().recip())?;
    let scores = q.matmul(&split(k)?.t()?)?;
    let scores = match mask {
        Some(mask) => scores.broadcast_add(mask)?,
        None => scores,
    };
    let weights = pass.dropout(&pass.softmax(&scores)?, dropout)?;
    let mixed = weights.matmul(&split(v)?)?;
    mixed.transpose(1, 2)?.reshape((rows, positions, width))
}

/// What hides padding when added: 0 for a token, far below any score for padding; `mask` is N x T of
/// 1 and 0, the result N x 1 x 1 x T.
pub(crate) fn hide_padding(mask: &Tensor, dtype: DType) -> Result<Tensor> {
    let (rows, positions) = mask.dims2()?;
    let hidden = ((mask.to_dtype(dtype)? - 1.0)? * 1e4)?;
    hidden.reshape((rows, 1, 1, positions))
}
