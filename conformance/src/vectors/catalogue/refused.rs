//! What has to be refused, law 18: good files with something wrong.

use lora_pro_core::Method;

use super::Corruption::{LastEntry, Metadata, Missing, NoMetadata, Shaped, Transposed};
use super::{Corruption, PLAIN, Vector, VectorKind, hyper};
use crate::sample::CaseSpec;
use crate::vectors::schema::RejectionStage;

/// From 501.
pub fn vectors() -> Vec<Vector> {
    let mut all: Vec<Vector> = BAD.iter().map(Bad::vector).collect();
    all.extend(overflows());
    all
}

/// A good file of 4 x 3, rank 2, two steps, and what becomes of it.
struct Bad {
    id: u32,
    name: &'static str,
    comment: &'static str,
    flag: &'static str,
    corruptions: &'static [Corruption],
    names: &'static str,
}

const ADAPTER: CaseSpec = CaseSpec {
    m: 4,
    n: 3,
    steps: 2,
    ..PLAIN
};

impl Bad {
    fn vector(&self) -> Vector {
        Vector {
            adapter: ADAPTER,
            outcome: VectorKind::Refused {
                corruptions: self.corruptions,
                by: RejectionStage::Read,
                names: self.names,
            },
            ..Vector::new(self.id, self.name, self.comment, &[self.flag])
        }
    }
}

const fn bad(
    id: u32,
    name: &'static str,
    comment: &'static str,
    flag: &'static str,
    corruptions: &'static [Corruption],
    names: &'static str,
) -> Bad {
    Bad {
        id,
        name,
        comment,
        flag,
        corruptions,
        names,
    }
}

#[rustfmt::skip]
const BAD: [Bad; 37] = [
    bad(501, "g-nan", "NaN in the gradient of the second step", "NotFinite", &[LastEntry("g.2", f64::NAN)], "g.2"),
    bad(502, "g-infinity", "infinity in the first gradient", "NotFinite", &[LastEntry("g.1", f64::INFINITY)], "g.1"),
    bad(503, "a-infinity", "infinity in A", "NotFinite", &[LastEntry("A.0", f64::INFINITY)], "A.0"),
    bad(504, "b-minus-infinity", "minus infinity in B", "NotFinite", &[LastEntry("B.0", f64::NEG_INFINITY)], "B.0"),
    bad(505, "r-zero", "r = 0, with tensors of that shape", "BadShape", &[Metadata("r", "0"), Shaped("A.0", [0, 3]), Shaped("B.0", [4, 0])], "r"),
    bad(506, "r-over-n", "r > min(m, n), with tensors of that shape", "BadShape", &[Metadata("r", "4"), Shaped("A.0", [4, 3]), Shaped("B.0", [4, 4])], "r"),
    bad(507, "m-zero", "m = 0, with tensors of that shape", "BadShape", &[Metadata("m", "0"), Shaped("B.0", [0, 2]), Shaped("g.1", [0, 3]), Shaped("g.2", [0, 3])], "m"),
    bad(508, "g-transposed", "the gradient is n x m", "BadShape", &[Transposed("g.1")], "g.1"),
    bad(509, "a-transposed", "A is n x r", "BadShape", &[Transposed("A.0")], "A.0"),
    bad(510, "b-transposed", "B is r x m", "BadShape", &[Transposed("B.0")], "B.0"),
    bad(511, "b-wider-than-r", "B has a column more than r", "BadShape", &[Shaped("B.0", [4, 3])], "B.0"),
    bad(512, "a-wider-than-g", "A has a column more than g", "BadShape", &[Shaped("A.0", [2, 4])], "A.0"),
    bad(513, "scale-zero", "s = 0: the closed form divides by it", "BadNumber", &[Metadata("scale", "0.0")], "scale"),
    bad(514, "scale-negative", "s < 0", "BadNumber", &[Metadata("scale", "-2.0")], "scale"),
    bad(515, "scale-infinite", "s is infinite", "BadNumber", &[Metadata("scale", "inf")], "scale"),
    bad(516, "lr-negative", "lr < 0", "BadNumber", &[Metadata("lr", "-0.01")], "lr"),
    bad(517, "lr-nan", "lr is NaN, which no comparison finds", "BadNumber", &[Metadata("lr", "NaN")], "lr"),
    bad(518, "beta1-one", "beta1 = 1: bias correction divides by zero", "BadNumber", &[Metadata("beta1", "1.0")], "beta1"),
    bad(519, "beta2-one", "beta2 = 1: bias correction divides by zero", "BadNumber", &[Metadata("beta2", "1.0")], "beta2"),
    bad(520, "beta2-negative", "beta2 < 0", "BadNumber", &[Metadata("beta2", "-0.1")], "beta2"),
    bad(521, "eps-zero", "eps = 0: an entry without gradient is 0 / 0", "BadNumber", &[Metadata("eps", "0.0")], "eps"),
    bad(522, "weight-decay-negative", "weight decay < 0 lets the factors grow", "BadNumber", &[Metadata("weight_decay", "-0.1")], "weight_decay"),
    bad(523, "damping-negative", "negative damping can make a Gram matrix singular", "BadNumber", &[Metadata("damping", "absolute -1e-8")], "damping"),
    bad(524, "damping-cutoff-one", "a cutoff of 1 counts every eigenvalue as zero", "BadNumber", &[Metadata("damping", "cutoff 1.0")], "damping"),
    bad(525, "lr-ratio-zero", "lr_ratio = 0: B stays where it is", "BadNumber", &[Metadata("lr_ratio", "0.0")], "lr_ratio"),
    bad(526, "update-clip-zero", "update_clip = 0: nothing moves", "BadNumber", &[Metadata("update_clip", "0.0")], "update_clip"),
    bad(527, "momentum-one", "momentum = 1 never forgets", "BadNumber", &[Metadata("method", "sgd"), Metadata("momentum", "1.0")], "momentum"),
    bad(528, "full-momentum", "momentum for a method that has none", "BadCombination", &[Metadata("momentum", "0.9")], "momentum"),
    bad(529, "sgd-amsgrad", "amsgrad for a method without second moment", "BadCombination", &[Metadata("method", "sgd"), Metadata("amsgrad", "true")], "amsgrad"),
    bad(530, "decay-over-one", "lr * weight_decay > 1 turns the factors around", "BadCombination", &[Metadata("weight_decay", "101.0")], "lr * weight_decay"),
    bad(531, "method-unknown", "a method of another name", "Unknown", &[Metadata("method", "adamw")], "method"),
    bad(532, "x-unknown", "an X of another name", "Unknown", &[Metadata("x", "identity")], "x"),
    bad(533, "amsgrad-maybe", "a switch that is neither true nor false", "Unknown", &[Metadata("amsgrad", "maybe")], "amsgrad"),
    bad(534, "decay-base", "an option that a file cannot prescribe, for want of W0", "Unknown", &[Metadata("decay_base", "true")], "decay_base"),
    bad(535, "g-missing", "a gradient is missing", "Incomplete", &[Missing("g.2")], "g.2"),
    bad(536, "eps-missing", "a hyper-parameter is missing, and is not guessed", "Incomplete", &[NoMetadata("eps")], "eps"),
    bad(537, "no-steps", "steps = 0 with gradients for two", "Incomplete", &[Metadata("steps", "0")], "steps"),
];

/// Good files whose numbers leave f64 on the way.
fn overflows() -> [Vector; 3] {
    let overflow = |id, name, comment| Vector {
        adapter: ADAPTER,
        outcome: VectorKind::Refused {
            corruptions: &[],
            by: RejectionStage::Step,
            names: "adapter `case`",
        },
        ..Vector::new(id, name, comment, &["Overflow"])
    };
    let gradient = overflow(
        551,
        "gradient-overflows",
        "g is finite, and gB = s g A' is not",
    );
    let factors = overflow(
        552,
        "factors-overflow",
        "the learning rate takes the factors out of f64",
    );
    let moment = overflow(
        553,
        "moment-overflows",
        "E is finite, and its square is not",
    );
    [
        Vector {
            adapter: CaseSpec {
                size_g: 1e308,
                size_a: 10.0,
                ..ADAPTER
            },
            ..gradient
        },
        Vector {
            hyper: hyper(Method::Sgd).lr(f64::MAX),
            ..factors
        },
        Vector {
            adapter: CaseSpec {
                size_g: 1e200,
                ..ADAPTER
            },
            ..moment
        },
    ]
}
