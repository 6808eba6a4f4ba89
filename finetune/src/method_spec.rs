//! The methods that are compared, as data.

use lora_pro_core::{Config, Method, Scale};

use crate::run::{RunConfig, Trainable};
use crate::setup::Experiment;

/// One method and what sets it apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MethodSpec {
    /// Its name on the command line: `lora-pro-full`.
    pub id: &'static str,
    /// Its name in tables: `LoRA-Pro full`.
    pub name: &'static str,
    /// How adapters are stepped; `None` trains the weights themselves, by AdamW.
    pub method: Option<Method>,
    /// True for s = alpha / sqrt(r) instead of alpha / r.
    pub rank_stabilised: bool,
    /// Learning rate of B over that of A.
    pub lr_ratio: f64,
    /// The learning rates that a comparison tries, ascending.
    pub grid: &'static [f64],
}

/// All rates are from one ladder, so that the methods' grids overlap.
const LADDER: [f64; 5] = [3e-4, 1e-3, 3e-3, 1e-2, 3e-2];

/// LoRA, from which the others differ in one thing each.
const LORA: MethodSpec = MethodSpec {
    id: "lora",
    name: "LoRA",
    method: Some(Method::Lora),
    rank_stabilised: false,
    lr_ratio: 1.0,
    grid: &LADDER,
};

/// The compared methods; full fine-tuning comes first, the others are measured against it.
pub const METHODS: [MethodSpec; 7] = [
    MethodSpec {
        id: "full-fine-tuning",
        name: "full fine-tuning",
        method: None,
        ..LORA
    },
    LORA,
    MethodSpec {
        id: "rslora",
        name: "rsLoRA",
        rank_stabilised: true,
        ..LORA
    },
    MethodSpec {
        id: "lora-plus",
        name: "LoRA+",
        lr_ratio: 16.0,
        ..LORA
    },
    MethodSpec {
        id: "lora-pro-efficient",
        name: "LoRA-Pro efficient",
        method: Some(Method::Efficient),
        ..LORA
    },
    MethodSpec {
        id: "lora-pro-factored",
        name: "LoRA-Pro factored",
        method: Some(Method::Factored),
        ..LORA
    },
    MethodSpec {
        id: "lora-pro-full",
        name: "LoRA-Pro full",
        method: Some(Method::Full),
        ..LORA
    },
];

impl MethodSpec {
    /// The method called `id`.
    ///
    /// ```
    /// use lora_pro_finetune::MethodSpec;
    /// assert_eq!(MethodSpec::find("lora-pro-factored").unwrap().name, "LoRA-Pro factored");
    /// assert!(MethodSpec::find("lora-pr").is_none());
    /// ```
    pub fn find(id: &str) -> Option<&'static MethodSpec> {
        METHODS.iter().find(|method| method.id == id)
    }

    /// One run of this method; every field can be changed afterwards.
    pub fn run(&self, experiment: &Experiment, lr: f64, seed: u64) -> RunConfig {
        let scale = match self.rank_stabilised {
            true => Scale::RsLora(experiment.alpha),
            false => Scale::Alpha(experiment.alpha),
        };
        let trainable = match self.method {
            Some(_) => Trainable::Adapters {
                rank: experiment.rank,
                scale,
            },
            None => Trainable::Weights,
        };
        let config = self.config(experiment, lr);
        RunConfig {
            trainable,
            config,
            seed,
            batch: experiment.batch,
            steps: experiment.steps,
        }
    }

    fn config(&self, experiment: &Experiment, lr: f64) -> Config {
        // What AdamW needs is the same for weights and for adapters.
        let hyper = experiment
            .hyper
            .method(self.method.unwrap_or(Method::Lora))
            .lr(lr)
            .lr_ratio(self.lr_ratio);
        Config::from(hyper).schedule(experiment.schedule)
    }
}
