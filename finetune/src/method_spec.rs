//! The methods that are compared, as data.

use lora_pro_core::{Config, Method, Scale};

use crate::adapted::HEAD;
use crate::run::{RunConfig, Trainable};
use crate::setup::Experiment;

/// One method and what sets it apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MethodSpec {
    /// Its name on the command line: `lora-pro-full`.
    pub id: &'static str,
    /// Its name in tables: `LoRA-Pro full`.
    pub name: &'static str,
    /// What is trained.
    pub trains: Trains,
    /// True for s = alpha / sqrt(r) instead of alpha / r.
    pub rank_stabilised: bool,
    /// Learning rate of B over that of A.
    pub lr_ratio: f64,
}

/// What a method trains.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Trains {
    /// Adapters, by this method.
    Adapters(Method),
    /// The weights that carry adapters elsewhere, by AdamW.
    Weights,
    /// Everything that the model has, by AdamW.
    Everything,
}

/// LoRA, from which the others differ in one thing each.
const LORA: MethodSpec = MethodSpec {
    id: "lora",
    name: "LoRA",
    trains: Trains::Adapters(Method::Lora),
    rank_stabilised: false,
    lr_ratio: 1.0,
};

/// All methods; full fine-tuning comes first, the others are measured against it.
pub const METHODS: [MethodSpec; 8] = [
    MethodSpec {
        id: "full-fine-tuning",
        name: "full fine-tuning",
        trains: Trains::Weights,
        ..LORA
    },
    MethodSpec {
        id: "full-fine-tuning-all",
        name: "full fine-tuning, all tensors",
        trains: Trains::Everything,
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
        trains: Trains::Adapters(Method::Efficient),
        ..LORA
    },
    MethodSpec {
        id: "lora-pro-factored",
        name: "LoRA-Pro factored",
        trains: Trains::Adapters(Method::Factored),
        ..LORA
    },
    MethodSpec {
        id: "lora-pro-full",
        name: "LoRA-Pro full",
        trains: Trains::Adapters(Method::Full),
        ..LORA
    },
];

/// The methods that tell the story on a small task.
pub(crate) const SMALL: [&str; 7] = [
    "full-fine-tuning",
    "lora",
    "rslora",
    "lora-plus",
    "lora-pro-efficient",
    "lora-pro-factored",
    "lora-pro-full",
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
        let (rank, alpha) = (experiment.rank, experiment.alpha);
        let scale = match self.rank_stabilised {
            true => Scale::RsLora(alpha),
            false => Scale::Alpha(alpha),
        };
        let trainable = match self.trains {
            Trains::Adapters(_) => Trainable::Adapters { rank, scale },
            Trains::Weights => Trainable::Weights,
            Trains::Everything => Trainable::Everything,
        };
        RunConfig {
            trainable,
            config: self.config(experiment, lr),
            seed,
            batch: experiment.batch,
            micro_batches: experiment.micro_batches,
            steps: experiment.steps,
            lora_dropout: experiment.lora_dropout,
            targets: Default::default(),
        }
    }

    fn config(&self, experiment: &Experiment, lr: f64) -> Config {
        // What AdamW needs is the same for weights and for adapters.
        let method = match self.trains {
            Trains::Adapters(method) => method,
            _ => Method::Lora,
        };
        let hyper = experiment
            .hyper
            .method(method)
            .lr(lr)
            .lr_ratio(self.lr_ratio);
        let mut config = Config::from(hyper).schedule(experiment.schedule);
        config.max_grad_norm = experiment.max_grad_norm;
        match experiment.head_lr {
            None => config,
            Some(head) => config.group(HEAD, hyper.lr(head).lr_ratio(1.0)),
        }
    }
}
