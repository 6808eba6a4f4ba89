//! Labelled text as tokens.

use candle_core::{Device, Tensor};
use lora_pro_candle::bridge::candle_error;
use lora_pro_core::Error;
use lora_pro_models::{Input, TextTokenizer, TokenRow};

use crate::examples::{Batch, Examples, Targets};
use crate::text::{Target, TextDataset};

/// Sentences, or pairs of sentences, as tokens, each with a class or a number.
#[derive(Clone, Debug)]
pub struct TokenizedText {
    name: String,
    tokenizer: TextTokenizer,
    rows: Vec<(TokenRow, Target)>,
}

impl TokenizedText {
    /// The tokens of all examples.
    pub fn new(data: &TextDataset, tokenizer: &TextTokenizer) -> Result<Self, Error> {
        let rows = data.examples.iter().map(|example| {
            let tokens = tokenizer.encode(&example.first, example.second.as_deref())?;
            Ok((tokens, example.target))
        });
        Ok(TokenizedText {
            name: data.name.clone(),
            tokenizer: tokenizer.clone(),
            rows: rows.collect::<Result<_, Error>>()?,
        })
    }

    /// The examples at `indices`; those that are not there are left out.
    pub fn part(&self, indices: &[usize]) -> Self {
        let rows = indices.iter().filter_map(|&index| self.rows.get(index));
        TokenizedText {
            name: self.name.clone(),
            tokenizer: self.tokenizer.clone(),
            rows: rows.cloned().collect(),
        }
    }
}

impl Examples for TokenizedText {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.rows.len()
    }

    fn batch(&self, rows: &[u32]) -> Result<Batch, Error> {
        let rows: Vec<&(TokenRow, Target)> = rows
            .iter()
            .filter_map(|&row| self.rows.get(row as usize))
            .collect();
        let tokens: Vec<&TokenRow> = rows.iter().map(|(tokens, _)| tokens).collect();
        let targets = rows.iter().map(|(_, target)| *target);
        Ok(Batch {
            input: Input::Tokens(self.tokenizer.batch(&tokens)?),
            target: of_batch(targets).map_err(candle_error)?,
        })
    }

    fn length(&self, row: usize) -> usize {
        self.rows.get(row).map_or(0, |(tokens, _)| tokens.len())
    }

    fn checksum(&self) -> Result<u32, Error> {
        let mut hasher = crc32fast::Hasher::new();
        for (tokens, target) in &self.rows {
            for number in tokens.ids.iter().chain(&tokens.types) {
                hasher.update(&number.to_le_bytes());
            }
            match target {
                Target::Class(class) => hasher.update(&class.to_le_bytes()),
                Target::Score(score) => hasher.update(&score.to_le_bytes()),
            }
        }
        Ok(hasher.finalize())
    }
}

/// Classes, or numbers: a dataset has one kind only.
fn of_batch(targets: impl Iterator<Item = Target>) -> candle_core::Result<Targets> {
    let (mut classes, mut values) = (Vec::new(), Vec::new());
    for target in targets {
        match target {
            Target::Class(class) => classes.push(class),
            Target::Score(score) => values.push(score),
        }
    }
    Ok(match values.is_empty() {
        true => Targets::Classes(Tensor::new(classes, &Device::Cpu)?),
        false => Targets::Values(Tensor::new(values, &Device::Cpu)?),
    })
}
