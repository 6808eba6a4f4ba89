//! How far two trained networks are from each other, measured by how far one has moved.

use candle_core::{DType, Tensor};
use candle_nn::Linear;
use lora_pro_core::Error;

use lora_pro_candle::bridge::candle_error;

use crate::network::Network;

/// ||W - W_full||_F / ||W_full - W0||_F over all hidden weights; `None` where it is no number,
/// because one of the networks diverged or full fine-tuning has not moved.
pub fn distance(network: &Network, full: &Network, start: &Network) -> Result<Option<f64>, Error> {
    let apart = squared_difference(network, full).map_err(candle_error)?;
    let moved = squared_difference(full, start).map_err(candle_error)?;
    Ok(Some((apart / moved).sqrt()).filter(|ratio| ratio.is_finite()))
}

fn squared_difference(one: &Network, other: &Network) -> candle_core::Result<f64> {
    let hidden = one.layers.len().saturating_sub(1);
    let weights = |network: &'_ Network| -> Vec<Tensor> {
        network
            .layers
            .iter()
            .take(hidden)
            .map(Linear::weight)
            .cloned()
            .collect()
    };
    let square = |(x, y): (&Tensor, &Tensor)| {
        (x - y)?
            .to_dtype(DType::F64)?
            .sqr()?
            .sum_all()?
            .to_scalar::<f64>()
    };
    weights(one).iter().zip(&weights(other)).map(square).sum()
}
