//! Text to tokens.

use std::path::Path;

use candle_core::{Device, Tensor};
use lora_pro_candle::bridge::candle_error;
use lora_pro_core::Error;
use tokenizers::{Tokenizer, TruncationParams};

use crate::model::Tokens;

/// A tokenizer with the length to which it cuts texts.
#[derive(Clone, Debug)]
pub struct TextTokenizer {
    tokenizer: Tokenizer,
    max_length: usize,
    pad: u32,
}

/// A text, or a pair of texts, as tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenRow {
    /// Numbers in the vocabulary, with the special tokens that the model wants.
    pub ids: Vec<u32>,
    /// 1 for the second text of a pair, else 0.
    pub types: Vec<u32>,
}

impl TokenRow {
    /// Tokens.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is no token.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

impl TextTokenizer {
    /// Reads a `tokenizer.json`. `pad` fills rows of a batch; what it is makes no difference, since
    /// padding is masked.
    pub fn load(path: &Path, max_length: usize, pad: u32) -> Result<Self, Error> {
        let bytes = std::fs::read(path).map_err(|error| Error::file(path, error))?;
        let tokenizer = Tokenizer::from_bytes(bytes).map_err(|error| Error::file(path, error))?;
        Self::new(tokenizer, max_length, pad)
    }

    /// Cuts texts to `max_length` tokens; of a pair, the longer text is cut first.
    ///
    /// Rejects a length that leaves no room beside the special tokens.
    pub fn new(mut tokenizer: Tokenizer, max_length: usize, pad: u32) -> Result<Self, Error> {
        let special = |pair| {
            let processor = tokenizer.get_post_processor();
            processor.map_or(0, |one| tokenizers::PostProcessor::added_tokens(one, pair))
        };
        if max_length <= special(false).max(special(true)) {
            let expected = "more than the special tokens of a pair of texts";
            return Err(Error::invalid(SUBJECT, "max_length", max_length, expected));
        }
        tokenizer.with_padding(None);
        let truncation = TruncationParams {
            max_length,
            ..Default::default()
        };
        let result = tokenizer.with_truncation(Some(truncation));
        result.map_err(|error| Error::encoding(error.to_string()))?;
        Ok(TextTokenizer {
            tokenizer,
            max_length,
            pad,
        })
    }

    /// The same with another length.
    pub fn with_max_length(&self, max_length: usize) -> Result<Self, Error> {
        Self::new(self.tokenizer.clone(), max_length, self.pad)
    }

    /// Most tokens of a text.
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// What is below, for what this crate has no function for.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// What `tokenizer.json` says of it, without the length.
    pub(crate) fn json(&self) -> Result<String, Error> {
        let mut whole = self.tokenizer.clone();
        let json = whole
            .with_truncation(None)
            .and_then(|whole| whole.to_string(true));
        json.map_err(|error| Error::encoding(error.to_string()))
    }

    /// A text, or a pair of texts, as tokens, with special tokens.
    pub fn encode(&self, text: &str, second: Option<&str>) -> Result<TokenRow, Error> {
        let encoding = match second {
            Some(second) => self.tokenizer.encode((text, second), true),
            None => self.tokenizer.encode(text, true),
        };
        let encoding = encoding.map_err(Error::encoding)?;
        Ok(TokenRow {
            ids: encoding.get_ids().to_vec(),
            types: encoding.get_type_ids().to_vec(),
        })
    }

    /// Tokens as text, without special tokens.
    pub fn decode(&self, ids: &[u32]) -> Result<String, Error> {
        self.tokenizer.decode(ids, true).map_err(Error::encoding)
    }

    /// Rows as a batch, padded on the right to the longest of them. An empty row has one token of
    /// padding.
    pub fn batch(&self, rows: &[&TokenRow]) -> Result<Tokens, Error> {
        pad(rows, self.pad).map_err(candle_error)
    }
}

const SUBJECT: &str = "the tokenizer";

fn pad(rows: &[&TokenRow], pad: u32) -> candle_core::Result<Tokens> {
    let longest = rows.iter().map(|row| row.len()).max();
    let longest = longest.unwrap_or_default().max(1);
    let filled = |values: &dyn Fn(&TokenRow) -> Vec<u32>, filler| {
        let padded = rows.iter().flat_map(|row| {
            let mut values = values(row);
            values.resize(longest, filler);
            values
        });
        let all: Vec<u32> = padded.collect();
        Tensor::from_vec(all, (rows.len(), longest), &Device::Cpu)
    };
    Ok(Tokens {
        ids: filled(&|row| row.ids.clone(), pad)?,
        mask: filled(&|row| vec![1; row.len()], 0)?,
        types: filled(&|row| row.types.clone(), 0)?,
        wanted: None,
    })
}
