//! How far two trained networks are from each other, measured by how far one has moved.

use candle_core::DType;
use lora_pro_candle::bridge::candle_error;
use lora_pro_core::Error;
use lora_pro_models::Parameters;

use crate::network::Network;

/// ||W - W_full||_F / ||W_full - W0||_F over all adapted weights; `None` where it is no number,
/// because one of the networks diverged or full fine-tuning has not moved.
pub fn distance(network: &Network, full: &Network, start: &Network) -> Result<Option<f64>, Error> {
    let modules = network.model.linear_modules();
    let apart = |one: &Network, other: &Network| {
        let sum = squared_difference(&modules, &one.parameters, &other.parameters);
        sum.map_err(candle_error)
    };
    let ratio = (apart(network, full)? / apart(full, start)?).sqrt();
    Ok(Some(ratio).filter(|ratio| ratio.is_finite()))
}

fn squared_difference(
    modules: &[String],
    one: &Parameters,
    other: &Parameters,
) -> candle_core::Result<f64> {
    let square = |module: &String| {
        let name = format!("{module}.weight");
        (one.tensor(&name)?.to_dtype(DType::F64)? - other.tensor(&name)?.to_dtype(DType::F64)?)?
            .sqr()?
            .sum_all()?
            .to_scalar::<f64>()
    };
    modules.iter().map(square).sum()
}
