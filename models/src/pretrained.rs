//! What a model's files must hold: names and shapes, and what may be missing.

use std::collections::BTreeMap;

use crate::model::Model;

/// The most layers that a configuration may ask for: a nonsensical number should cost no memory.
const MOST_LAYERS: usize = 1000;

/// Says so where a configuration asks for too many layers.
pub(crate) fn check_layers(layers: usize) -> Result<(), String> {
    match layers <= MOST_LAYERS {
        true => Ok(()),
        false => Err(format!(
            "num_hidden_layers is {layers}, but at most {MOST_LAYERS} make sense"
        )),
    }
}

/// Says so where `value` is not some times `part`, or either is 0.
pub(crate) fn check_multiple(
    (name, value): (&str, usize),
    (of, part): (&str, usize),
) -> Result<(), String> {
    match part > 0 && value > 0 && value.is_multiple_of(part) {
        true => Ok(()),
        false => Err(format!(
            "{name} is {value}, but it must be a multiple of {of} = {part}"
        )),
    }
}

/// Says so where `p` is no probability of dropout.
pub(crate) fn check_probability(name: &str, p: f64) -> Result<(), String> {
    match (0.0..1.0).contains(&p) {
        true => Ok(()),
        false => Err(format!("{name} is {p}, but it must be in [0, 1)")),
    }
}

/// A model that is loaded from files.
pub(crate) trait Pretrained: Model {
    /// All tensors.
    fn shapes(&self) -> Shapes;

    /// The name, among those of [`Pretrained::shapes`], of a tensor that a file calls `in_file`.
    fn name(&self, in_file: &str) -> String {
        in_file.into()
    }
}

/// Shapes by name.
#[derive(Debug, Default)]
pub(crate) struct Shapes(pub(crate) BTreeMap<String, Expected>);

/// A tensor as a model expects it.
#[derive(Debug)]
pub(crate) struct Expected {
    /// Its shape.
    pub(crate) shape: Vec<usize>,
    /// Whether it is made anew where files lack it, as a classifier on a pre-trained model is.
    pub(crate) optional: bool,
}

impl Shapes {
    fn insert(&mut self, name: String, shape: Vec<usize>, optional: bool) {
        self.0.insert(name, Expected { shape, optional });
    }

    /// A tensor by its whole name.
    pub(crate) fn tensor<const D: usize>(&mut self, name: &str, shape: [usize; D]) {
        self.insert(name.into(), shape.into(), false);
    }

    /// `<module>.weight`.
    pub(crate) fn weight<const D: usize>(&mut self, module: &str, shape: [usize; D]) {
        self.insert(format!("{module}.weight"), shape.into(), false);
    }

    /// A linear layer with a bias, m x n.
    pub(crate) fn linear(&mut self, module: &str, [m, n]: [usize; 2]) {
        self.weight(module, [m, n]);
        self.insert(format!("{module}.bias"), vec![m], false);
    }

    /// A linear layer that is made anew where files lack it.
    pub(crate) fn new_linear(&mut self, module: &str, [m, n]: [usize; 2]) {
        self.insert(format!("{module}.weight"), vec![m, n], true);
        self.insert(format!("{module}.bias"), vec![m], true);
    }

    /// A linear layer without a bias, m x n, that is made anew where files lack it.
    pub(crate) fn new_weight(&mut self, module: &str, [m, n]: [usize; 2]) {
        self.insert(format!("{module}.weight"), vec![m, n], true);
    }

    /// A layer norm.
    pub(crate) fn norm(&mut self, module: &str, width: usize) {
        self.weight(module, [width]);
        self.insert(format!("{module}.bias"), vec![width], false);
    }
}
