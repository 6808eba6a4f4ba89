//! The options of the optimizers.

use lora_pro_core::{Hyper, Method};

use super::{ADJUSTED, PLAIN, Vector, each, hyper};
use crate::sample::CaseSpec;

/// From 301.
pub fn vectors() -> Vec<Vector> {
    let mut all = vec![plain_lora()];
    all.extend(changed(
        each(
            302,
            &ADAM,
            "weight-decay",
            "decoupled, on A and B; the square root on each in the full and factored modes",
            &["WeightDecay"],
        ),
        |hyper| hyper.weight_decay = 2.0,
    ));
    all.extend(changed(
        each(
            306,
            &METHODS,
            "lr-ratio",
            "B steps four times as far",
            &["LrRatio"],
        ),
        |hyper| hyper.lr_ratio = 4.0,
    ));
    all.extend(changed(
        each(
            311,
            &METHODS,
            "update-clip",
            "both updates are scaled alike when that of the larger factor is over 1 %",
            &["UpdateClip"],
        ),
        |hyper| hyper.update_clip = Some(0.01),
    ));
    all.extend(changed(
        each(
            316,
            &ADAM,
            "amsgrad",
            "the largest second moment so far divides; a small gradient after large ones shows it",
            &["AmsGrad"],
        ),
        |hyper| (hyper.amsgrad, hyper.beta2) = (true, 0.5),
    ));
    all.extend(changed(
        each(
            320,
            &METHODS,
            "maximize",
            "ascent; weight decay keeps its sign",
            &["Maximize", "WeightDecay"],
        ),
        |hyper| {
            hyper.maximize = true;
            hyper.weight_decay = if hyper.method == Method::Sgd {
                0.0
            } else {
                0.5
            };
        },
    ));
    all.extend(changed(
        each(
            325,
            &ADAM,
            "no-memory",
            "beta1 = beta2 = 0: each step forgets the ones before",
            &["NoMemory"],
        ),
        |hyper| (hyper.beta1, hyper.beta2) = (0.0, 0.0),
    ));
    all.extend(momentum());
    all.extend(combined());
    all
}

const METHODS: [Method; 5] = [
    Method::Lora,
    Method::Sgd,
    Method::Efficient,
    Method::Factored,
    Method::Full,
];

const ADAM: [Method; 4] = [
    Method::Lora,
    Method::Efficient,
    Method::Factored,
    Method::Full,
];

fn changed(mut vectors: Vec<Vector>, change: impl Fn(&mut Hyper)) -> Vec<Vector> {
    vectors
        .iter_mut()
        .for_each(|vector| change(&mut vector.hyper));
    vectors
}

fn plain_lora() -> Vector {
    Vector {
        hyper: hyper(Method::Lora),
        ..Vector::new(
            301,
            "lora-plain",
            "AdamW on the raw gradients of A and B",
            &["PlainLora"],
        )
    }
}

/// Heavy momentum, and a zero gradient on which it carries on.
fn momentum() -> Vec<Vector> {
    let plain = Vector {
        hyper: hyper(Method::Sgd).momentum(0.9).lr(2e-3),
        adapter: CaseSpec { steps: 6, ..PLAIN },
        ..Vector::new(
            329,
            "sgd-momentum",
            "D <- 0.9 D + (dA, dB), with no dampening of the new part",
            &["Momentum"],
        )
    };
    let carried = Vector {
        zero_gradients: &[3],
        ..Vector::new(
            330,
            "sgd-momentum-zero-gradient",
            "momentum carries on through a step without gradient",
            &["Momentum", "ZeroGradient"],
        )
    };
    let (hyper, adapter) = (plain.hyper, plain.adapter);
    let carried = Vector {
        hyper,
        adapter,
        ..carried
    };
    vec![plain, carried]
}

/// Options that meet in one line of an implementation.
fn combined() -> Vec<Vector> {
    let vectors = each(
        331,
        &ADJUSTED,
        "combined",
        "lr ratio, update clip and maximize together: the ratio comes before the clip",
        &["LrRatio", "UpdateClip", "Maximize"],
    );
    changed(vectors, |hyper| {
        (hyper.lr_ratio, hyper.update_clip, hyper.maximize) = (8.0, Some(0.02), true);
    })
}
