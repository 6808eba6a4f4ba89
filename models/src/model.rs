//! What a model is, and what goes into it.

use std::fmt::Debug;
use std::sync::Arc;

use candle_core::{D, Result, Tensor};
use candle_nn::loss::cross_entropy;

use crate::forward::Forward;

/// A model without its numbers: a function of its parameters.
pub trait Model: Debug + Send + Sync {
    /// The modules that are linear layers, in the order of the pass, without [`Model::head`]: what
    /// PEFT's `all-linear` adapts.
    fn linear_modules(&self) -> Vec<String>;

    /// The module that makes a model of this task out of a pre-trained one, such as `classifier`. It
    /// is trained as a whole; `None` where the task brings no module of its own.
    fn head(&self) -> Option<&str>;

    /// PEFT's `task_type` of an adapter for this model; `None` where PEFT has none for it.
    fn task_type(&self) -> Option<&'static str> {
        None
    }

    /// A module whose weight the model uses in two places. PEFT would train a copy in one of them.
    fn shared(&self) -> Option<&'static str> {
        None
    }

    /// The output: N x classes, or N x 1 in regression. A language model gives logits over its
    /// vocabulary, K x V, for the K positions that [`Tokens::wanted`] names.
    fn forward(&self, pass: &Forward<'_>, input: &Input) -> Result<Tensor>;

    /// How well a language model tells `next`, K, the tokens after the positions that [`Tokens::wanted`]
    /// names.
    fn next_tokens(
        &self,
        pass: &Forward<'_>,
        tokens: &Tokens,
        next: &Tensor,
    ) -> Result<NextTokens> {
        let logits = self.forward(pass, &Input::Tokens(tokens.clone()))?;
        NextTokens::of(&logits, next)
    }
}

/// How well a language model tells the next tokens.
#[derive(Clone, Debug)]
pub struct NextTokens {
    /// The mean cross-entropy.
    pub loss: Tensor,
    /// For each token, whether it is the one that the model finds likeliest.
    pub right: Vec<bool>,
}

impl NextTokens {
    /// From logits over the vocabulary, K x V, and the tokens that are right.
    pub(crate) fn of(logits: &Tensor, next: &Tensor) -> Result<Self> {
        let right = logits.argmax(D::Minus1)?.eq(next)?.to_vec1::<u8>()?;
        Ok(NextTokens {
            loss: cross_entropy(logits, next)?,
            right: right.into_iter().map(|one| one != 0).collect(),
        })
    }
}

/// What goes into a model, N examples at once.
#[derive(Clone, Debug)]
pub enum Input {
    /// Numbers, N x F.
    Features(Tensor),
    /// Text.
    Tokens(Tokens),
    /// Images, N x C x H x W.
    Pixels(Tensor),
}

/// Text as tokens, N rows padded to T.
#[derive(Clone, Debug)]
pub struct Tokens {
    /// Numbers in the vocabulary, N x T, u32.
    pub ids: Tensor,
    /// 1 for a token, 0 for padding; N x T, u32.
    pub mask: Tensor,
    /// 1 for the second text of a pair, else 0; N x T, u32. Language models ignore it.
    pub types: Tensor,
    /// For language models: positions in the rows laid end to end, each below N T, whose logits are
    /// wanted; K, u32. `None` wants all of them.
    pub wanted: Option<Tensor>,
}

impl Tokens {
    /// Whether there is a token, row by row.
    pub(crate) fn present(&self) -> Result<Arc<[bool]>> {
        let mask = self.mask.flatten_all()?.to_vec1::<u32>()?;
        Ok(mask.into_iter().map(|one| one != 0).collect())
    }
}

impl Input {
    /// The numbers; an error where the input is of another kind.
    pub fn features(&self) -> Result<&Tensor> {
        match self {
            Input::Features(features) => Ok(features),
            _ => candle_core::bail!("this model takes rows of numbers"),
        }
    }

    /// The tokens; an error where the input is of another kind.
    pub fn tokens(&self) -> Result<&Tokens> {
        match self {
            Input::Tokens(tokens) => Ok(tokens),
            _ => candle_core::bail!("this model takes text"),
        }
    }

    /// The images; an error where the input is of another kind.
    pub fn pixels(&self) -> Result<&Tensor> {
        match self {
            Input::Pixels(pixels) => Ok(pixels),
            _ => candle_core::bail!("this model takes images"),
        }
    }
}
