//! The one error type that every crate of the project returns.

use std::path::PathBuf;

/// An error below one of ours, or its words.
pub type Source = Box<dyn std::error::Error + Send + Sync>;

/// Everything that can go wrong, in words that name the subject and the value.
///
/// `subject` is what the message is about: ``adapter `layers.0.q` ``, ``group `head` ``,
/// ``parameter `bias` `` or `the optimizer`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A number or a name is outside of what its definition allows.
    #[error("{subject}: {field} is {value}, but it must be {expected}")]
    Invalid {
        /// What the message is about.
        subject: String,
        /// The field at fault.
        field: &'static str,
        /// The value as given.
        value: String,
        /// What would have been accepted.
        expected: String,
    },
    /// A tensor does not have the shape that its adapter declares.
    #[error(
        "{subject}: {tensor} is {} x {}, but {meaning} needs {} x {}",
        got[0], got[1], expected[0], expected[1]
    )]
    Shape {
        /// What the message is about.
        subject: String,
        /// The tensor at fault: `A`, `B`, `grad A`, `grad B`, `W0`.
        tensor: &'static str,
        /// Rows and columns as given.
        got: [usize; 2],
        /// Rows and columns as declared.
        expected: [usize; 2],
        /// The shape in symbols, such as `r x n`.
        meaning: &'static str,
    },
    /// A tensor holds a NaN or an infinity.
    #[error("{subject}: {tensor}[{row}, {col}] is {value}, but every entry must be finite")]
    NonFinite {
        /// What the message is about.
        subject: String,
        /// The tensor at fault.
        tensor: &'static str,
        /// Row of the first such entry.
        row: usize,
        /// Column of the first such entry.
        col: usize,
        /// The entry.
        value: f64,
    },
    /// A backend was asked for something that it does not do.
    #[error("{subject}: the {backend} backend does not support {what}")]
    Unsupported {
        /// What the message is about.
        subject: String,
        /// The backend's name.
        backend: String,
        /// What it does not do.
        what: String,
    },
    /// A view's shape and strides do not fit the memory behind it.
    #[error("a {} x {} view with strides {}, {} does not fit {len} elements: {reason}",
        shape[0], shape[1], strides[0], strides[1])]
    View {
        /// Rows and columns asked for.
        shape: [usize; 2],
        /// Row and column stride asked for, in elements.
        strides: [usize; 2],
        /// Elements in the slice.
        len: usize,
        /// Why they do not fit.
        reason: &'static str,
    },
    /// The same adapter or parameter was registered, or stepped, twice.
    #[error("{subject} {what}")]
    Duplicate {
        /// What the message is about.
        subject: String,
        /// What was done twice.
        what: &'static str,
    },
    /// A step named an adapter or a parameter that was never registered.
    #[error("{what} number {index} is unknown: {count} are registered")]
    Unknown {
        /// `adapter` or `parameter`.
        what: &'static str,
        /// The number used.
        index: usize,
        /// How many there are.
        count: usize,
    },
    /// An iterative solver did not converge within its limit.
    #[error("{what} did not converge within {limit} iterations")]
    NotConverged {
        /// The computation.
        what: &'static str,
        /// The iteration limit.
        limit: usize,
    },
    /// A word is none of those that a setting takes.
    #[error("`{text}` is not a {what}: use {expected}")]
    Parse {
        /// What was asked for, such as `method`.
        what: &'static str,
        /// The word as given.
        text: String,
        /// What would have been accepted.
        expected: String,
    },
    /// A checkpoint (or another tensor file) cannot be read or written.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
        /// The error below it.
        source: Source,
    },
    /// Bytes are no tensor file, or tensors do not fit in one.
    #[error("{reason}")]
    Encoding {
        /// What is wrong with them.
        reason: String,
        /// The error below it.
        source: Source,
    },
    /// A backend has no memory left for what was asked.
    #[error("the {backend} backend: {reason}")]
    OutOfMemory {
        /// The backend's name.
        backend: String,
        /// What did not fit where.
        reason: String,
    },
    /// A backend failed for a reason of its own, such as a missing device.
    #[error("the {backend} backend: {reason}")]
    Backend {
        /// The backend's name.
        backend: String,
        /// What happened.
        reason: String,
        /// The error below it.
        source: Source,
    },
}

impl Error {
    /// An [`Error::Invalid`] from anything that can be shown.
    pub fn invalid(
        subject: &str,
        field: &'static str,
        value: impl std::fmt::Display,
        expected: impl Into<String>,
    ) -> Self {
        Error::Invalid {
            subject: subject.into(),
            field,
            value: value.to_string(),
            expected: expected.into(),
        }
    }

    /// An [`Error::File`] from words or from another error, which becomes its source.
    pub fn file(path: impl Into<PathBuf>, reason: impl Into<Source>) -> Self {
        let source = reason.into();
        Error::File {
            path: path.into(),
            reason: source.to_string(),
            source,
        }
    }

    /// An [`Error::Parse`].
    pub fn parse(what: &'static str, text: &str, expected: impl Into<String>) -> Self {
        Error::Parse {
            what,
            text: text.into(),
            expected: expected.into(),
        }
    }

    /// An [`Error::Encoding`] from words or from another error, which becomes its source.
    pub fn encoding(reason: impl Into<Source>) -> Self {
        let source = reason.into();
        Error::Encoding {
            reason: source.to_string(),
            source,
        }
    }

    /// An [`Error::Backend`] from words or from another error, which becomes its source.
    pub fn backend(backend: &str, reason: impl Into<Source>) -> Self {
        let source = reason.into();
        Error::Backend {
            backend: backend.into(),
            reason: source.to_string(),
            source,
        }
    }
}
