//! The vectors as one check: the worst deviation of a subject over all vectors of a method, in units
//! in which the threshold of all checks is a vector's tolerance.

use std::sync::OnceLock;

use lora_pro_core::{DType, Error, Method};

use super::folder;
use super::index::{Entry, Expected, Index, Refusal};
use crate::case::Case;
use crate::replay::replay;
use crate::residual::THRESHOLD;
use crate::subject::Subject;

/// A vector that a subject can be held against, read once.
struct Known {
    entry: Entry,
    case: Case,
}

/// All of them; none where the folder is not at hand. What must be refused on reading is about
/// readers, and what has the public code's rounding in it is not what the formulas give.
fn known() -> &'static [Known] {
    static KNOWN: OnceLock<Vec<Known>> = OnceLock::new();
    KNOWN.get_or_init(|| {
        let Ok(index) = Index::read(&folder()) else {
            return vec![];
        };
        let entries = index.vectors.into_iter();
        let read = entries.filter_map(|entry| {
            let case = Case::read(&folder().join(&entry.file)).ok()?;
            Some(Known { entry, case })
        });
        read.filter(|known| known.case.quirk.is_none()).collect()
    })
}

/// Whether there is anything to follow.
pub fn at_hand() -> bool {
    !known().is_empty()
}

/// The largest ratio over all vectors of a method, and which vector has it.
///
/// # Errors
/// What a vector that is valid is refused with; [`Error::Unsupported`] where every vector's options
/// are.
pub fn worst(subject: &Subject, method: Method) -> Result<(f64, String), Error> {
    let (mut worst, mut unsupported) = (None::<(f64, String)>, None);
    for known in known()
        .iter()
        .filter(|known| known.case.hyper.method == method)
    {
        match ratio(subject, known) {
            Ok(ratio) => {
                let file = || known.entry.file.clone();
                if worst
                    .as_ref()
                    .is_none_or(|(most, _)| ratio.total_cmp(most).is_gt())
                {
                    worst = Some((ratio, file()));
                }
            }
            Err(error @ Error::Unsupported { .. }) => unsupported = Some(error),
            Err(error) => return Err(Error::file(&known.entry.file, error)),
        }
    }
    match (worst, unsupported) {
        (Some(worst), _) => Ok(worst),
        (None, Some(error)) => Err(error),
        (None, None) => Ok((0.0, "no vector".into())),
    }
}

fn ratio(subject: &Subject, known: &Known) -> Result<f64, Error> {
    let trajectory = replay(&known.case, subject.backend(), DType::F64);
    match &known.entry.expected {
        Expected::Valid { tolerance, .. } => {
            let deviation = trajectory?.deviation(&known.case);
            Ok(deviation.map_or(0.0, |found| found.error / tolerance * THRESHOLD))
        }
        Expected::Refused {
            by: Refusal::Step, ..
        } => match trajectory {
            Err(error @ Error::Unsupported { .. }) => Err(error),
            Err(_) => Ok(0.0),
            Ok(_) => Ok(f64::INFINITY),
        },
        Expected::Refused { .. } => Ok(0.0),
    }
}
