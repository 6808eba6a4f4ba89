//! Labelled text from files, before any tokenizer has seen it.
//!
//! | module | what |
//! |---|---|
//! | `file` | the text of a file and its format |
//! | `table` | the rows of CSV and TSV |
//! | `rows` | rows of any format, reduced to the columns that are used |
//! | `labelled` | sentences and pairs of sentences with a class or a score |
//! | `language` | what a causal language model learns: text, completions, conversations |
//! | `split` | parts to train on, to validate and to test |

mod file;
mod labelled;
mod language;
mod rows;
mod split;
mod table;

pub use labelled::{Target, TextDataset, TextExample, UnlabelledText};
pub use language::{ChatTemplate, LanguageDataset, LanguageExample, Message, Role, Segment};
pub use rows::{TargetKind, TextColumns};
pub use split::Split;
