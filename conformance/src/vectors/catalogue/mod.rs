//! What is generated, as data.
//!
//! | module | numbers | what |
//! |---|---|---|
//! | [`starts`] | from 101 | where A and B start: zero, rank-deficient |
//! | [`shapes`] | from 151 | r = 1, r = min(m, n), m = 1, n = 1 |
//! | [`grid`] | from 201 | every method with every X and every damping |
//! | [`options`] | from 301 | the options of the optimizers |
//! | [`numbers`] | from 401 | zero gradients, magnitudes, eps, long runs, condition numbers |
//! | [`refused`] | from 501 | what has to be refused |
//!
//! 1 to 53 are the recorded ones. A number is never used again for something else: what is
//! withdrawn leaves a gap, what is new goes to the end of its module.

use lora_pro_core::{Damping, Hyper, Method, Preset};

use super::schema::RejectionStage;
use crate::sample::{CaseSpec, Spectrum};

pub mod grid;
pub mod numbers;
pub mod options;
pub mod refused;
pub mod shapes;
pub mod starts;

/// One vector: what is in its file and what it is for.
#[derive(Clone, Debug)]
pub struct Vector {
    /// Its number, and the seed of its random numbers.
    pub id: u32,
    /// Its name, for the file.
    pub name: String,
    /// What it is for.
    pub comment: String,
    /// The bug classes that it looks for.
    pub flags: Vec<&'static str>,
    /// The adapter and its gradients. The seed is the vector's number.
    pub adapter: CaseSpec,
    /// How it is stepped.
    pub hyper: Hyper,
    /// The steps whose gradient is zero.
    pub zero_gradients: &'static [u64],
    /// What has to become of it.
    pub outcome: VectorKind,
}

/// What has to become of a vector.
#[derive(Clone, Copy, Debug)]
pub enum VectorKind {
    /// It is followed, to the usual tolerance.
    Valid,
    /// It is refused.
    Refused {
        /// What is wrong with it, done to a good file in this order.
        corruptions: &'static [Corruption],
        /// When it is to be refused at the latest.
        by: RejectionStage,
        /// What the error names.
        names: &'static str,
    },
}

/// What makes a good file a bad one.
#[derive(Clone, Copy, Debug)]
pub enum Corruption {
    /// A key has this value.
    Metadata(&'static str, &'static str),
    /// A key is missing.
    NoMetadata(&'static str),
    /// A tensor is missing.
    Missing(&'static str),
    /// A tensor's shape is turned around.
    Transposed(&'static str),
    /// A tensor's last entry has this value.
    LastEntry(&'static str, f64),
    /// A tensor has this shape, and is zero.
    Shaped(&'static str, [usize; 2]),
}

impl Vector {
    /// A plain one: a 6 x 5 adapter of rank 2 in the midst of training, pseudo-inverse, full mode.
    pub fn new(id: u32, name: &str, comment: &str, flags: &[&'static str]) -> Self {
        Vector {
            id,
            name: name.into(),
            comment: comment.into(),
            flags: flags.to_vec(),
            adapter: PLAIN,
            hyper: hyper(Method::Full),
            zero_gradients: &[],
            outcome: VectorKind::Valid,
        }
    }

    /// The adapter with its seed.
    pub fn adapter(&self) -> CaseSpec {
        CaseSpec {
            seed: self.id.into(),
            ..self.adapter
        }
    }

    /// The file, from the folder of the suite. What has to be refused is in a folder of its own, so
    /// that a program can be given all the others.
    pub fn file(&self) -> String {
        let folder = match self.outcome {
            VectorKind::Valid => "",
            VectorKind::Refused { .. } => "refused/",
        };
        format!("{folder}{}-{}.safetensors", self.id, self.name)
    }
}

/// The plain adapter, far enough from balance and from orthogonal columns for every bug to show.
pub(crate) const PLAIN: CaseSpec = CaseSpec {
    m: 6,
    n: 5,
    r: 2,
    rank_a: 2,
    rank_b: 2,
    kappa_a: 3.0,
    kappa_b: 4.0,
    spectrum: Spectrum::Arithmetic,
    size_a: 1.0,
    size_b: 0.5,
    size_g: 1.0,
    s: 2.0,
    dtype: lora_pro_core::DType::F64,
    steps: 4,
    seed: 0,
};

/// A learning rate that moves a factor by a few percent a step, with the pseudo-inverse.
pub(crate) fn hyper(method: Method) -> Hyper {
    Preset::Paper
        .hyper()
        .method(method)
        .damping(Damping::None)
        .lr(1e-2)
}

/// The methods with a closed form, in the order of the catalogue.
pub(crate) const ADJUSTED: [Method; 4] = [
    Method::Sgd,
    Method::Efficient,
    Method::Factored,
    Method::Full,
];

/// One vector for each method, numbered from `first`; names and comments begin with the method.
pub(crate) fn each(
    first: u32,
    methods: &[Method],
    name: &str,
    comment: &str,
    flags: &[&'static str],
) -> Vec<Vector> {
    let one = |(id, method): (u32, &Method)| Vector {
        hyper: hyper(*method),
        ..Vector::new(
            id,
            &format!("{method}-{name}"),
            &format!("{method}: {comment}"),
            flags,
        )
    };
    (first..).zip(methods).map(one).collect()
}

/// All vectors, by number.
pub fn all() -> Vec<Vector> {
    let modules = [
        starts::vectors(),
        shapes::vectors(),
        grid::vectors(),
        options::vectors(),
        numbers::vectors(),
        refused::vectors(),
    ];
    modules.concat()
}
