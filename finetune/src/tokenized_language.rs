//! What a causal language model learns, as tokens.

use candle_core::{Device, Tensor};
use lora_pro_candle::bridge::candle_error;
use lora_pro_core::Error;
use lora_pro_models::{Input, TextTokenizer, TokenRow};

use crate::examples::{Batch, Examples, Targets};
use crate::text::{ChatTemplate, LanguageDataset, LanguageExample};

/// Texts as tokens, and which of their tokens are learned.
#[derive(Clone, Debug)]
pub struct TokenizedLanguage {
    name: String,
    tokenizer: TextTokenizer,
    rows: Vec<LanguageRow>,
    dropped: usize,
}

/// A text, and for each of its tokens whether it is learned.
#[derive(Clone, Debug)]
struct LanguageRow {
    number: usize,
    tokens: TokenRow,
    learned: Vec<bool>,
}

impl TokenizedLanguage {
    /// The tokens of all examples, each cut to the tokenizer's length. `end` is the token that ends a
    /// text; a completion is learned with it. An example of which nothing is left to learn is dropped.
    ///
    /// Rejects data of which every example is dropped.
    pub fn new(
        data: &LanguageDataset,
        tokenizer: &TextTokenizer,
        template: &ChatTemplate,
        end: Option<u32>,
    ) -> Result<Self, Error> {
        let rows = data.examples.iter().enumerate();
        let rows = rows
            .map(|(number, example)| LanguageRow::new(number, example, tokenizer, template, end));
        let mut rows = rows.collect::<Result<Vec<_>, Error>>()?;
        rows.retain(|row| row.targets().next().is_some());
        if rows.is_empty() {
            let length = tokenizer.max_length();
            let reason = format!(
                "cut to {length} tokens, none of its {} examples has a token to learn: allow longer texts",
                data.examples.len()
            );
            return Err(Error::file(&data.name, reason));
        }
        Ok(TokenizedLanguage {
            name: data.name.clone(),
            tokenizer: tokenizer.clone(),
            dropped: data.examples.len() - rows.len(),
            rows,
        })
    }

    /// Examples of which nothing was left to learn.
    pub fn dropped(&self) -> usize {
        self.dropped
    }

    /// The place of an example in its file, from 0.
    pub fn number(&self, row: usize) -> usize {
        self.rows.get(row).map_or(row, |row| row.number)
    }

    /// The examples at `indices`; those that are not there are left out.
    pub fn part(&self, indices: &[usize]) -> Self {
        let rows = indices.iter().filter_map(|&index| self.rows.get(index));
        TokenizedLanguage {
            name: self.name.clone(),
            tokenizer: self.tokenizer.clone(),
            rows: rows.cloned().collect(),
            dropped: self.dropped,
        }
    }
}

impl LanguageRow {
    /// Each stretch of text is tokenized by itself, so that none of the prompt's tokens reaches into
    /// the completion.
    fn new(
        number: usize,
        example: &LanguageExample,
        tokenizer: &TextTokenizer,
        template: &ChatTemplate,
        end: Option<u32>,
    ) -> Result<Self, Error> {
        let (mut ids, mut learned) = (Vec::new(), Vec::new());
        for segment in example.segments(template) {
            let tokens = tokenizer.encode(&segment.text, None)?;
            learned.resize(learned.len() + tokens.len(), segment.trained);
            ids.extend(tokens.ids);
        }
        // A conversation has its own marks for the end of a turn.
        if !matches!(example, LanguageExample::Chat(_)) && end.is_some() {
            ids.extend(end);
            learned.push(true);
        }
        ids.truncate(tokenizer.max_length());
        learned.truncate(tokenizer.max_length());
        let types = vec![0; ids.len()];
        let tokens = TokenRow { ids, types };
        Ok(LanguageRow {
            number,
            tokens,
            learned,
        })
    }

    /// Positions whose next token is learned, and that token.
    fn targets(&self) -> impl Iterator<Item = (u32, u32)> {
        let next = self.tokens.ids.iter().zip(&self.learned).skip(1);
        (0..)
            .zip(next)
            .filter_map(|(position, (&id, &learned))| learned.then_some((position, id)))
    }
}

impl Examples for TokenizedLanguage {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.rows.len()
    }

    fn batch(&self, rows: &[u32]) -> Result<Batch, Error> {
        let rows = rows.iter().filter_map(|&row| self.rows.get(row as usize));
        let rows: Vec<&LanguageRow> = rows.collect();
        let tokens: Vec<&TokenRow> = rows.iter().map(|row| &row.tokens).collect();
        let mut tokens = self.tokenizer.batch(&tokens)?;
        let mut fill = || {
            let (_, positions) = tokens.ids.dims2()?;
            let starts = (0..).step_by(positions);
            let (wanted, next): (Vec<u32>, Vec<u32>) = rows
                .iter()
                .zip(starts)
                .flat_map(|(row, start)| row.targets().map(move |(at, id)| (start + at, id)))
                .unzip();
            tokens.wanted = Some(Tensor::new(wanted, &Device::Cpu)?);
            Tensor::new(next, &Device::Cpu)
        };
        let next = fill().map_err(candle_error)?;
        Ok(Batch {
            input: Input::Tokens(tokens),
            target: Targets::NextTokens(next),
        })
    }

    fn length(&self, row: usize) -> usize {
        self.rows.get(row).map_or(0, |row| row.tokens.len())
    }

    fn checksum(&self) -> Result<u32, Error> {
        let mut hasher = crc32fast::Hasher::new();
        for row in &self.rows {
            for (id, &learned) in row.tokens.ids.iter().zip(&row.learned) {
                hasher.update(&id.to_le_bytes());
                hasher.update(&[learned.into()]);
            }
            hasher.update(&[2]);
        }
        Ok(hasher.finalize())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::{Message, Role};

    /// Each character is a token: `a` to `f` are 1 to 6, the end is 0.
    fn characters(max_length: usize) -> TextTokenizer {
        let json = r##"{"version": "1.0", "added_tokens": [],
            "model": {"type": "BPE", "vocab": {"#": 0, "a": 1, "b": 2, "c": 3, "d": 4, "e": 5, "f": 6},
                      "merges": []}}"##;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tokenizer.json");
        std::fs::write(&file, json).unwrap();
        TextTokenizer::load(&file, max_length, 0).unwrap()
    }

    fn completion(prompt: &str, completion: &str) -> LanguageExample {
        LanguageExample::Completion {
            prompt: prompt.into(),
            completion: completion.into(),
        }
    }

    fn tokenized(
        examples: Vec<LanguageExample>,
        length: usize,
    ) -> Result<TokenizedLanguage, Error> {
        let name = "data.jsonl".into();
        let data = LanguageDataset { name, examples };
        let template = ChatTemplate {
            before: "e".into(),
            end: "f".into(),
            after: String::new(),
        };
        TokenizedLanguage::new(&data, &characters(length), &template, Some(0))
    }

    /// Ids, mask, wanted positions and the tokens after them.
    fn numbers(data: &TokenizedLanguage, rows: &[u32]) -> [Vec<u32>; 4] {
        let batch = data.batch(rows).unwrap();
        let flat = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<u32>().unwrap();
        let tokens = batch.input.tokens().unwrap();
        let Targets::NextTokens(next) = &batch.target else {
            panic!("{batch:?}")
        };
        let wanted = tokens.wanted.as_ref().unwrap();
        [&tokens.ids, &tokens.mask, wanted, next].map(flat)
    }

    #[test]
    fn only_completions_are_learned_with_the_token_before_each() {
        let examples = vec![
            completion("ab", "cd"),
            completion("", "ab"),
            completion("a", "b"),
        ];
        let data = tokenized(examples, 8).unwrap();
        assert_eq!(
            numbers(&data, &[0, 1, 2]),
            [
                vec![1, 2, 3, 4, 0, 1, 2, 0, 0, 0, 1, 2, 0, 0, 0],
                vec![1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1, 0, 0],
                vec![1, 2, 3, 5, 6, 10, 11],
                vec![3, 4, 0, 2, 0, 2, 0],
            ]
        );
    }

    #[test]
    fn of_a_conversation_only_the_assistant_is_learned() {
        let message = |role, content: &str| Message {
            role,
            content: content.into(),
        };
        let chat = vec![message(Role::User, "ab"), message(Role::Assistant, "cd")];
        let data = tokenized(vec![LanguageExample::Chat(chat)], 16).unwrap();
        let [ids, _, wanted, next] = numbers(&data, &[0]);
        assert_eq!(ids, [5, 1, 2, 6, 5, 3, 4, 6]);
        assert_eq!((wanted, next), (vec![4, 5, 6], vec![3, 4, 6]));
    }

    #[test]
    fn what_is_cut_away_is_counted() {
        let long = completion("abcdef", "a");
        let data = tokenized(vec![long.clone(), completion("a", "b")], 4).unwrap();
        assert_eq!((data.len(), data.dropped()), (1, 1));
        let error = tokenized(vec![long], 4).unwrap_err().to_string();
        assert!(
            error.contains("data.jsonl: cut to 4 tokens, none of its 1 examples"),
            "{error}"
        );
    }
}
