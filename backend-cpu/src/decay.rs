//! Decoupled weight decay.

use lora_pro_core::{Hyper, Method};

/// What A and B are multiplied by, by side.
pub(crate) fn of_factors(hyper: &Hyper, lr: f64) -> [f64; 2] {
    match hyper.method {
        // B A as a whole is to decay by 1 - lr w.
        Method::Full | Method::Factored => [whole(hyper, lr).sqrt(); 2],
        Method::Lora | Method::Sgd | Method::Efficient => {
            [whole(hyper, lr), whole(hyper, lr * hyper.lr_ratio)]
        }
    }
}

/// 1 - lr w: what W0 is multiplied by on request, and a parameter without a pair always.
pub(crate) fn whole(hyper: &Hyper, lr: f64) -> f64 {
    1.0 - lr * hyper.weight_decay
}
