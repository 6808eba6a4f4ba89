//! Where A and B start.

use lora_pro_core::Method;

use super::{ADJUSTED, PLAIN, Vector, each, hyper};
use crate::sample::CaseSpec;

/// From 101.
pub fn vectors() -> Vec<Vector> {
    [
        zero_b(),
        zero_a(),
        zero_adapter(),
        deficient(),
        vec![second_step()],
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

fn with(mut vectors: Vec<Vector>, adapter: CaseSpec) -> Vec<Vector> {
    vectors
        .iter_mut()
        .for_each(|vector| vector.adapter = adapter);
    vectors
}

fn zero_b() -> Vec<Vector> {
    let comment = "B = 0 at the start, as PEFT makes adapters: dA is 0 and B moves";
    let vectors = each(101, &METHODS, "zero-b", comment, &["FirstStep"]);
    with(vectors, CaseSpec { rank_b: 0, ..PLAIN })
}

fn zero_a() -> Vec<Vector> {
    let comment = "A = 0 at the start, as PEFT makes adapters of embeddings: dB is 0 and A moves";
    let vectors = each(106, &METHODS, "zero-a", comment, &["ZeroA"]);
    with(vectors, CaseSpec { rank_a: 0, ..PLAIN })
}

fn zero_adapter() -> Vec<Vector> {
    let comment = "A = 0 and B = 0: every gradient is 0 and nothing may move";
    let vectors = each(111, &METHODS, "zero-adapter", comment, &["ZeroAdapter"]);
    let adapter = CaseSpec {
        rank_a: 0,
        rank_b: 0,
        steps: 2,
        ..PLAIN
    };
    with(vectors, adapter)
}

fn deficient() -> Vec<Vector> {
    let adapter = CaseSpec {
        r: 3,
        rank_a: 3,
        rank_b: 3,
        steps: 3,
        ..PLAIN
    };
    let a = each(
        116,
        &ADJUSTED,
        "deficient-a",
        "A has rank 2 of 3: its Gram matrix has no inverse",
        &["RankDeficientA"],
    );
    let b = each(
        120,
        &ADJUSTED,
        "deficient-b",
        "B has rank 2 of 3: its Gram matrix has no inverse",
        &["RankDeficientB"],
    );
    let both = each(
        124,
        &ADJUSTED,
        "deficient-both",
        "A has rank 2 and B rank 1 of 3: the Sylvester equation has no unique solution",
        &["RankDeficientA", "RankDeficientB"],
    );
    let all = [
        with(
            a,
            CaseSpec {
                rank_a: 2,
                ..adapter
            },
        ),
        with(
            b,
            CaseSpec {
                rank_b: 2,
                ..adapter
            },
        ),
        with(
            both,
            CaseSpec {
                rank_a: 2,
                rank_b: 1,
                ..adapter
            },
        ),
    ]
    .concat();
    all.into_iter().map(long_step).collect()
}

/// What the first step adds in the missing directions is as large as the learning rate, and what
/// the second step magnifies is one over it.
fn long_step(vector: Vector) -> Vector {
    let hyper = vector.hyper.lr(0.1);
    Vector { hyper, ..vector }
}

fn second_step() -> Vector {
    Vector {
        adapter: CaseSpec { rank_b: 0, ..PLAIN },
        hyper: hyper(Method::Full).lr(1e-4),
        ..Vector::new(
            128,
            "second-step",
            "B is O(lr) in the second step, so that lr dA is O(1) at any learning rate",
            &["FirstStep", "SecondStep"],
        )
    }
}
