//! Zero gradients, magnitudes, eps, long runs and condition numbers.

use lora_pro_core::{Damping, Method};

use super::{ADJUSTED, PLAIN, Vector, each};
use crate::sample::CaseSpec;

/// From 401.
pub fn vectors() -> Vec<Vector> {
    [
        zero_gradients(),
        magnitudes(),
        epsilon(),
        long_runs(),
        ill_conditioned(),
    ]
    .concat()
}

const METHODS: [Method; 5] = [
    Method::Lora,
    Method::Sgd,
    Method::Efficient,
    Method::Factored,
    Method::Full,
];

fn zero_gradients() -> Vec<Vector> {
    let later = each(
        401,
        &METHODS,
        "zero-gradient",
        "g = 0 in the third step: the moments decay, and what is left of them moves the factors",
        &["ZeroGradient"],
    );
    let first = each(
        406,
        &METHODS,
        "zero-first-gradient",
        "B = 0 and g = 0 in the first step: nothing moves, and the second step finds B = 0 again",
        &["ZeroFirstGradient", "FirstStep"],
    );
    let later = later.into_iter().map(|vector| Vector {
        zero_gradients: &[3],
        ..vector
    });
    let first = first.into_iter().map(|vector| Vector {
        zero_gradients: &[1],
        adapter: CaseSpec { rank_b: 0, ..PLAIN },
        ..vector
    });
    later.chain(first).collect()
}

/// Factors of size c need a learning rate in c^2 to move as others do, or in c where AdamW
/// normalizes their own update.
fn magnitudes() -> Vec<Vector> {
    let sized = |first, c: f64, name: &str, comment: &str| {
        let vectors = each(first, &ADJUSTED, name, comment, &["Magnitude"]);
        vectors.into_iter().map(move |vector| {
            let efficient = vector.hyper.method == Method::Efficient;
            let adapter = CaseSpec {
                size_a: c,
                size_b: c / 2.0,
                ..PLAIN
            };
            let hyper = vector
                .hyper
                .lr(1e-2 * if efficient { c } else { c * c })
                .eps(1e-8 * if efficient { 1.0 / c } else { 1.0 });
            Vector {
                adapter,
                hyper,
                ..vector
            }
        })
    };
    let gradient = |first, size_g: f64, name: &str, comment: &str| {
        let adam = [Method::Efficient, Method::Factored, Method::Full];
        let vectors = each(first, &adam, name, comment, &["Magnitude", "Epsilon"]);
        vectors.into_iter().map(move |vector| Vector {
            adapter: CaseSpec { size_g, ..PLAIN },
            hyper: vector.hyper.eps(1e-8 * size_g),
            ..vector
        })
    };
    sized(411, 1e60, "huge-factors", "A and B of size 1e60")
        .chain(sized(415, 1e-60, "tiny-factors", "A and B of size 1e-60"))
        .chain(gradient(419, 1e140, "huge-gradient", "g of size 1e140"))
        .chain(gradient(422, 1e-140, "tiny-gradient", "g of size 1e-140"))
        .collect()
}

fn epsilon() -> Vec<Vector> {
    let adam = [
        Method::Lora,
        Method::Efficient,
        Method::Factored,
        Method::Full,
    ];
    let vectors = each(
        425,
        &adam,
        "epsilon",
        "eps as large as the root of the second moment: added after bias correction, outside the root",
        &["Epsilon"],
    );
    let set = |vector: Vector| Vector {
        hyper: vector.hyper.eps(0.5),
        ..vector
    };
    vectors.into_iter().map(set).collect()
}

/// From B = 0, as a run does, with damping as a run has.
fn long_runs() -> Vec<Vector> {
    let vectors = each(
        431,
        &METHODS,
        "long",
        "thirty steps from B = 0",
        &["LongRun", "FirstStep"],
    );
    let set = |vector: Vector| Vector {
        adapter: CaseSpec {
            m: 4,
            n: 5,
            rank_b: 0,
            steps: 30,
            ..PLAIN
        },
        hyper: vector.hyper.damping(Damping::Relative(1e-2)).lr(1e-3),
        ..vector
    };
    vectors.into_iter().map(set).collect()
}

/// Steps of about a hundredth of the smallest singular value.
fn ill_conditioned() -> Vec<Vector> {
    let of = |first, kappa: f64, methods: &[Method]| {
        let comment = format!("condition number {kappa:e} of A and of B");
        let name = format!("kappa-{kappa:e}");
        let vectors = each(first, methods, &name, &comment, &["IllConditioned"]);
        let set = move |vector| ill(vector, kappa);
        vectors.into_iter().map(set)
    };
    of(441, 1e3, &ADJUSTED)
        .chain(of(445, 1e4, &[Method::Factored]))
        .chain(of(
            446,
            1e5,
            &[Method::Sgd, Method::Efficient, Method::Full],
        ))
        .chain(of(449, 1e5, &[Method::Factored]))
        .collect()
}

fn ill(vector: Vector, kappa: f64) -> Vector {
    let adapter = CaseSpec {
        m: 12,
        n: 10,
        r: 3,
        rank_a: 3,
        rank_b: 3,
        kappa_a: kappa,
        kappa_b: kappa,
        steps: 3,
        ..PLAIN
    };
    let hyper = vector.hyper.lr(1e-2 / (kappa * kappa));
    Vector {
        adapter,
        hyper,
        ..vector
    }
}
