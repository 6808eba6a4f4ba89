//! The vectors as one check: the worst deviation of a subject over all vectors of a method, in units
//! in which the threshold of all checks is a vector's tolerance.

use std::sync::OnceLock;

use lora_pro_core::{DType, Error, Method};

use super::folder;
use super::schema::{Expected, Index, IndexEntry, RejectionStage};
use crate::case::Case;
use crate::replay::replay;
use crate::residual::THRESHOLD;
use crate::subject::Subject;

/// A vector that a subject can be held against, read once.
struct LoadedVector {
    entry: IndexEntry,
    case: Case,
}

/// All of them; none where the folder is not at hand. What must be refused on reading is about
/// readers, and what has the public code's rounding in it is not what the formulas give.
fn loaded() -> &'static [LoadedVector] {
    static LOADED: OnceLock<Vec<LoadedVector>> = OnceLock::new();
    LOADED.get_or_init(|| {
        let Ok(index) = Index::read(&folder()) else {
            return vec![];
        };
        let entries = index.vectors.into_iter();
        let read = entries.filter_map(|entry| {
            let case = Case::read(&folder().join(&entry.file)).ok()?;
            Some(LoadedVector { entry, case })
        });
        read.filter(|loaded| loaded.case.quirk.is_none()).collect()
    })
}

/// Whether the vectors are there to be followed.
pub fn available() -> bool {
    !loaded().is_empty()
}

/// The largest ratio over all vectors of a method, and which vector has it.
///
/// # Errors
/// What a vector that is valid is refused with; [`Error::Unsupported`] where every vector's options
/// are.
pub fn worst(subject: &Subject, method: Method) -> Result<(f64, String), Error> {
    let (mut worst, mut unsupported) = (None::<(f64, String)>, None);
    for loaded in loaded()
        .iter()
        .filter(|loaded| loaded.case.hyper.method == method)
    {
        match ratio(subject, loaded) {
            Ok(ratio) => {
                let file = || loaded.entry.file.clone();
                if worst
                    .as_ref()
                    .is_none_or(|(most, _)| ratio.total_cmp(most).is_gt())
                {
                    worst = Some((ratio, file()));
                }
            }
            Err(error @ Error::Unsupported { .. }) => unsupported = Some(error),
            Err(error) => return Err(Error::file(&loaded.entry.file, error)),
        }
    }
    match (worst, unsupported) {
        (Some(worst), _) => Ok(worst),
        (None, Some(error)) => Err(error),
        (None, None) => Ok((0.0, "no vector".into())),
    }
}

fn ratio(subject: &Subject, loaded: &LoadedVector) -> Result<f64, Error> {
    let trajectory = replay(&loaded.case, subject.backend(), DType::F64);
    match &loaded.entry.expected {
        Expected::Valid { tolerance, .. } => {
            let deviation = trajectory?.deviation(&loaded.case);
            Ok(deviation.map_or(0.0, |found| found.error / tolerance * THRESHOLD))
        }
        Expected::Refused {
            by: RejectionStage::Step,
            ..
        } => match trajectory {
            Err(error @ Error::Unsupported { .. }) => Err(error),
            Err(_) => Ok(0.0),
            Ok(_) => Ok(f64::INFINITY),
        },
        Expected::Refused { .. } => Ok(0.0),
    }
}
