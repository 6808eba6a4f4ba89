//! What a model is trained on and measured on.

use std::fmt::Debug;

use candle_core::{D, DType, Result, Tensor};
use candle_nn::loss::{cross_entropy, mse};
use lora_pro_core::Error;
use lora_pro_models::{Forward, Input, Model, NextTokens};

/// Examples that batches are made of.
pub trait Examples: Debug + Send + Sync {
    /// What they are, in a few words.
    fn name(&self) -> &str;

    /// Their number.
    fn len(&self) -> usize;

    /// True without any example.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The examples at `rows`, in that order, padded to a common length where they have lengths.
    fn batch(&self, rows: &[u32]) -> std::result::Result<Batch, Error>;

    /// How long an example is: batches of similar lengths need less padding.
    fn length(&self, _row: usize) -> usize {
        1
    }

    /// CRC-32 of all examples: a resumed run asks for those it began with.
    fn checksum(&self) -> std::result::Result<u32, Error>;
}

/// Some examples.
#[derive(Clone, Debug)]
pub struct Batch {
    /// What goes into the model.
    pub input: Input,
    /// What should come out.
    pub target: Targets,
}

/// What should come out of a model.
#[derive(Clone, Debug)]
pub enum Targets {
    /// A class for each example, N, u32.
    Classes(Tensor),
    /// A number for each example, N, f32.
    Values(Tensor),
    /// The token after each wanted position, K, u32.
    NextTokens(Tensor),
}

/// How a model does on a batch.
pub(crate) struct Outcome {
    /// The mean loss.
    pub loss: Tensor,
    /// What comes out and what should.
    pub pairs: Vec<[f64; 2]>,
}

impl Batch {
    /// How a model does on the batch in one pass.
    pub(crate) fn outcome(&self, model: &dyn Model, pass: &Forward<'_>) -> Result<Outcome> {
        if let (Targets::NextTokens(next), Input::Tokens(tokens)) = (&self.target, &self.input) {
            let NextTokens { loss, right } = model.next_tokens(pass, tokens, next)?;
            let pairs = right.into_iter().map(|hit| [f64::from(hit), 1.0]).collect();
            return Ok(Outcome { loss, pairs });
        }
        let output = model.forward(pass, &self.input)?;
        Ok(Outcome {
            loss: self.target.loss(&output)?,
            pairs: self.target.pairs(&output)?,
        })
    }
}

/// What is measured besides the loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// The part of the examples whose class is right.
    Accuracy,
    /// Pearson's correlation of the numbers with the right ones.
    Correlation,
    /// The part of the tokens that are right.
    TokenAccuracy,
}

impl Metric {
    /// Its name in tables, where it stands in per cent.
    pub fn name(self) -> &'static str {
        match self {
            Metric::Accuracy => "accuracy",
            Metric::Correlation => "correlation",
            Metric::TokenAccuracy => "tokens right",
        }
    }
}

impl Targets {
    /// Examples, or tokens, that the mean loss is taken over.
    pub fn count(&self) -> usize {
        match self {
            Targets::Classes(all) | Targets::Values(all) | Targets::NextTokens(all) => {
                all.elem_count()
            }
        }
    }

    /// The mean loss of a model's output: cross-entropy, or the squared difference of numbers.
    fn loss(&self, output: &Tensor) -> Result<Tensor> {
        match self {
            Targets::Classes(right) | Targets::NextTokens(right) => cross_entropy(output, right),
            Targets::Values(right) => mse(&output.flatten_all()?, right),
        }
    }

    /// What is measured besides the loss.
    pub fn metric(&self) -> Metric {
        match self {
            Targets::Classes(_) => Metric::Accuracy,
            Targets::Values(_) => Metric::Correlation,
            Targets::NextTokens(_) => Metric::TokenAccuracy,
        }
    }

    /// Pairs of what comes out and what should: 1 and 1 for a class or a token that is right, 0 and
    /// 1 for one that is wrong, or both numbers.
    fn pairs(&self, output: &Tensor) -> Result<Vec<[f64; 2]>> {
        let numbers = |tensor: &Tensor| tensor.to_dtype(DType::F64)?.to_vec1::<f64>();
        let (found, right) = match self {
            Targets::Classes(right) | Targets::NextTokens(right) => {
                let hits = numbers(&output.argmax(D::Minus1)?.eq(right)?)?;
                let ones = vec![1.0; hits.len()];
                (hits, ones)
            }
            Targets::Values(right) => (numbers(&output.flatten_all()?)?, numbers(right)?),
        };
        Ok(found.into_iter().zip(right).map(|(x, y)| [x, y]).collect())
    }
}
