//! What a run trains, made ready.

use lora_pro_core::Error;
use lora_pro_models::Parameters;

use crate::network::Network;
use crate::run::{RunConfig, Trainable};

/// The group of the head's parameters, where the configuration has one.
pub(crate) const HEAD: &str = "head";

/// The network's parameters with what `run` trains at its start: adapters ([`Parameters::adapt`]) on
/// the adapted modules or variables in the place of weights, and the head. Adapters that are there
/// already stay as they are.
pub(crate) fn adapted(base: &Network, run: &RunConfig) -> Result<Parameters, Error> {
    let (mut parameters, model) = (base.parameters.clone(), base.model.as_ref());
    match run.trainable {
        Trainable::Adapters { .. } => {
            for module in run.modules(model)? {
                if parameters.adapter(&module.name).is_none() {
                    parameters.adapt(&module.name, module.rank, module.scale, run.seed)?;
                }
            }
        }
        Trainable::Weights => {
            for module in run.modules(model)? {
                parameters.train(&format!("{}.weight", module.name))?;
            }
        }
        Trainable::Everything => {
            let names: Vec<String> = parameters.tensors().keys().cloned().collect();
            names.iter().try_for_each(|name| parameters.train(name))?;
        }
    }
    for name in saved(base, run)? {
        parameters.train(&name)?;
    }
    if let Some(head) = model.head() {
        parameters.train_module(head)?;
    }
    Ok(parameters)
}

/// The tensors of the modules that are trained as a whole beside the head.
fn saved(base: &Network, run: &RunConfig) -> Result<Vec<String>, Error> {
    let names = base.parameters.tensors().keys().map(String::as_str);
    let saved = run.targets.saved(names)?;
    base.check_not_shared(&saved)?;
    Ok(saved.into_iter().map(String::from).collect())
}
