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
    let [q, k, v] = [split(q, heads)?, split(k, heads)?, split(v, heads)?];
    grouped_attention(pass, [&q, &k, &v], mask, dropout)
}

/// N x T x h d to N x h x T x d.
pub(crate) fn split(x: &Tensor, heads: usize) -> Result<Tensor> {
    let (rows, positions, width) = x.dims3()?;
    let x = x.reshape((rows, positions, heads, width / heads))?;
    x.transpose(1, 2)?.contiguous()
}

/// Attention whose heads share keys and values in groups: q is N x h x T x d; k and v are
/// N x g x T x d, where g divides h. The result is N x T x h d.
pub(crate) fn grouped_attention(
    pass: &Forward<'_>,
    [q, k, v]: [&Tensor; 3],
    mask: Option<&Tensor>,
    dropout: f64,
) -> Result<Tensor> {
    let (rows, heads, positions, d) = q.dims4()?;
    let groups = k.dim(1)?;
    // The heads of a group are more rows for the same keys and values.
    let by_group = |x: &Tensor, width| x.reshape((rows, groups, heads / groups * positions, width));
    let by_head = |x: &Tensor, width| x.reshape((rows, heads, positions, width));

    let q = by_group(&(q * (d as f64).sqrt().recip())?, d)?;
    let scores = by_head(&q.matmul(&k.t()?)?, positions)?;
    let scores = match mask {
        Some(mask) => scores.broadcast_add(mask)?,
        None => scores,
    };
    let weights = pass.dropout(&pass.softmax(&scores)?, dropout)?;
    let mixed = by_head(&by_group(&weights, positions)?.matmul(v)?, d)?;
    mixed.transpose(1, 2)?.reshape((rows, positions, heads * d))
}

/// What hides padding when added: 0 for a token, far below any score for padding; `mask` is N x T of
/// 1 and 0, the result N x 1 x 1 x T.
pub(crate) fn hide_padding(mask: &Tensor, dtype: DType) -> Result<Tensor> {
    let (rows, positions) = mask.dims2()?;
    let hidden = ((mask.to_dtype(dtype)? - 1.0)? * HIDDEN)?;
    hidden.reshape((rows, 1, 1, positions))
}

/// What hides padding and later positions when added; N x 1 x T x T.
pub(crate) fn hide_padding_and_future(mask: &Tensor, dtype: DType) -> Result<Tensor> {
    let (_, positions) = mask.dims2()?;
    let seen = Tensor::tril2(positions, dtype, mask.device())?;
    let future = ((seen - 1.0)? * HIDDEN)?.reshape((1, 1, positions, positions))?;
    hide_padding(mask, dtype)?.broadcast_add(&future)
}

/// How far below the others a hidden score is.
const HIDDEN: f64 = 1e4;
