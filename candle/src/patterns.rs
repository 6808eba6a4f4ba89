//! Ranks and alphas of single modules, by regular expressions.

use fancy_regex::Regex;
use indexmap::IndexMap;
use lora_pro_core::Error;

/// Where an error comes from.
pub(crate) const PLACE: &str = "the adapter's configuration";

/// `rank_pattern` and `alpha_pattern` of [`crate::Targets`], ready to match.
#[derive(Debug)]
pub struct Patterns {
    ranks: Keys<usize>,
    alphas: Keys<f64>,
}

impl Patterns {
    pub(crate) fn new(
        ranks: &IndexMap<String, usize>,
        alphas: &IndexMap<String, f64>,
    ) -> Result<Self, Error> {
        Ok(Patterns {
            ranks: Keys::new("rank_pattern", ranks)?,
            alphas: Keys::new("alpha_pattern", alphas)?,
        })
    }

    /// The rank that `rank_pattern` gives to `module`.
    pub fn rank(&self, module: &str) -> Result<Option<usize>, Error> {
        self.ranks.first_that_fits(module)
    }

    /// The alpha that `alpha_pattern` gives to `module`.
    pub fn alpha(&self, module: &str) -> Result<Option<f64>, Error> {
        self.alphas.first_that_fits(module)
    }

    /// Rejects a key that fits none of the `chosen` modules, which PEFT lets pass without a word, and
    /// a module to which two keys give different values: the first would count, but files and tables
    /// may come back sorted.
    pub fn validate(&self, chosen: &[String]) -> Result<(), Error> {
        self.ranks.validate(chosen)?;
        self.alphas.validate(chosen)
    }
}

/// Values by expressions for a module's name, or for the end of it after a dot.
#[derive(Debug)]
struct Keys<T> {
    field: &'static str,
    keys: Vec<(String, Regex, T)>,
}

impl<T: Copy + PartialEq> Keys<T> {
    fn new(field: &'static str, patterns: &IndexMap<String, T>) -> Result<Self, Error> {
        let keys = patterns.iter().map(|(key, value)| {
            let pattern = compile(field, key, &format!(r"\A(?:(.*\.)?({key})$)"))?;
            Ok((key.clone(), pattern, *value))
        });
        let keys = keys.collect::<Result<_, _>>()?;
        Ok(Keys { field, keys })
    }

    fn first_that_fits(&self, module: &str) -> Result<Option<T>, Error> {
        for (_, pattern, value) in &self.keys {
            if matches(pattern, module)? {
                return Ok(Some(*value));
            }
        }
        Ok(None)
    }

    fn validate(&self, chosen: &[String]) -> Result<(), Error> {
        let mut given: Vec<Option<(&str, T)>> = vec![None; chosen.len()];
        for (key, pattern, value) in &self.keys {
            let mut used = false;
            for (module, given) in chosen.iter().zip(&mut given) {
                if !matches(pattern, module)? {
                    continue;
                }
                used = true;
                match given {
                    Some((other, before)) if before != value => {
                        let both = format!("{other} and {key}");
                        let expected = format!("without two values for {module}");
                        return Err(Error::invalid(PLACE, self.field, both, expected));
                    }
                    _ => *given = Some((key, *value)),
                }
            }
            if !used {
                let expected = "the name of a module with an adapter, or the end of it";
                return Err(Error::invalid(PLACE, self.field, key, expected));
            }
        }
        Ok(())
    }
}

/// The regular expression `expression`, which is made of the user's `text`.
pub(crate) fn compile(field: &'static str, text: &str, expression: &str) -> Result<Regex, Error> {
    // The error of the text alone counts positions from where the text begins.
    let alone = |error| Regex::new(text).err().unwrap_or(error);
    Regex::new(expression).map_err(|error| refuse(field, text, alone(error)))
}

/// Whether the pattern matches; an error where that takes too long to find out.
pub(crate) fn matches(pattern: &Regex, module: &str) -> Result<bool, Error> {
    let found = pattern.is_match(module);
    found.map_err(|error| refuse("the pattern", pattern.as_str(), error))
}

/// An error about a regular expression.
pub(crate) fn refuse(field: &'static str, text: &str, error: fancy_regex::Error) -> Error {
    let expected = format!("a regular expression: {error}");
    Error::invalid(PLACE, field, text, expected)
}
