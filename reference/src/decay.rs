//! Decoupled weight decay of the factors.

use lora_pro_core::{Hyper, Method};

/// What A, B and W0 are multiplied by before the update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decay {
    /// For A.
    pub a: f64,
    /// For B.
    pub b: f64,
    /// For W0.
    pub w0: f64,
}

/// Decay w at the learning rates of A and B ($`\eta_A = \eta`$, $`\eta_B = \eta \cdot`$ `lr_ratio`):
///
/// - element-wise methods (lora, efficient): A times $`1 - \eta_A w`$, B times $`1 - \eta_B w`$;
/// - full and factored: A and B each times $`\sqrt{1 - \eta w}`$, so that B A as a whole decays by
///   $`1 - \eta w`$, as full fine-tuning's W would;
/// - W0 times $`1 - \eta w`$ where `decay_base` asks for it, else 1.
///
/// ```
/// use lora_pro_core::{Method, Preset};
/// use lora_pro_reference::decay::decay;
/// let hyper = Preset::Paper.hyper().method(Method::Full).weight_decay(0.75);
/// assert_eq!(decay(&hyper, 1.0).a, 0.5);
/// assert_eq!(decay(&hyper, 1.0).w0, 1.0);
/// assert_eq!(decay(&hyper.decay_base(true), 1.0).w0, 0.25);
/// ```
pub fn decay(hyper: &Hyper, lr: f64) -> Decay {
    let one_minus_lr_w = 1.0 - lr * hyper.weight_decay;
    let w0 = if hyper.decay_base {
        one_minus_lr_w
    } else {
        1.0
    };
    match hyper.method {
        Method::Full | Method::Factored => Decay {
            a: one_minus_lr_w.sqrt(),
            b: one_minus_lr_w.sqrt(),
            w0,
        },
        // SGD has no decay: w is 0 there.
        Method::Lora | Method::Sgd | Method::Efficient => Decay {
            a: one_minus_lr_w,
            b: 1.0 - lr * hyper.lr_ratio * hyper.weight_decay,
            w0,
        },
    }
}
