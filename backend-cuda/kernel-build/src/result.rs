//! Errors are for people alone: words.

pub type Result<T> = std::result::Result<T, String>;
