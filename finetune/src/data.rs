//! Labelled rows of numbers: the embedded digits, or a CSV file.

use std::{fs, io::Read, path::Path};

use candle_core::{Device, Tensor};
use flate2::read::GzDecoder;
use lora_pro_core::Error;

use lora_pro_candle::bridge::{candle_error, to_data};
use lora_pro_models::Input;

use crate::examples::{Batch, Examples, Targets};

/// Rows of features with a class each.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// What it is, in a few words.
    pub name: String,
    /// Features, N x F, f32.
    pub features: Tensor,
    /// Classes, N, u32, each below `classes`.
    pub labels: Tensor,
    /// Number of classes.
    pub classes: usize,
}

/// Larger labels are taken for a mistake: the network's head would have that many rows.
const MOST_CLASSES: usize = 1000;

/// 1,797 images of 8 x 8; `data/README.md` tells their origin.
const DIGITS: &[u8] = include_bytes!("../data/digits.csv.gz");

/// The brightest pixel of the digits.
const BRIGHTEST: f32 = 16.0;

/// Rows as read, before they become tensors.
#[derive(Debug, Default)]
struct Rows {
    features: Vec<f32>,
    labels: Vec<u32>,
}

impl Dataset {
    /// The embedded digits, pixels scaled to [0, 1].
    ///
    /// ```
    /// use lora_pro_finetune::{Dataset, Examples};
    /// let digits = Dataset::digits().unwrap();
    /// assert_eq!((digits.len(), digits.inputs(), digits.classes), (1797, 64, 10));
    /// ```
    pub fn digits() -> Result<Self, Error> {
        let name = "digits.csv.gz";
        let mut text = String::new();
        let unpacked = GzDecoder::new(DIGITS).read_to_string(&mut text);
        unpacked.map_err(|error| Error::file(name, error))?;
        let mut rows = Rows::parse(&text).map_err(|reason| Error::file(name, reason))?;
        rows.features
            .iter_mut()
            .for_each(|pixel| *pixel /= BRIGHTEST);
        rows.into_dataset("handwritten digits")
    }

    /// A CSV file: on each line the features, then a whole number from 0 as the class. A first
    /// line without any number is a header. Each column is centred and divided by its standard
    /// deviation.
    ///
    /// Errors name file, line, column and value.
    pub fn from_csv(path: &Path) -> Result<Self, Error> {
        let text = fs::read_to_string(path).map_err(|error| Error::file(path, error))?;
        let mut rows = Rows::parse(&text).map_err(|reason| Error::file(path, reason))?;
        let columns = rows.columns();
        (0..columns).for_each(|column| standardise(&mut rows.features[column..], columns));
        rows.into_dataset(&path.display().to_string())
    }

    /// Number of features.
    pub fn inputs(&self) -> usize {
        self.features.dims()[1]
    }

    /// The rows at `indices`, in that order.
    pub fn rows(&self, indices: &[u32]) -> Result<Self, Error> {
        let pick = || {
            let indices = Tensor::new(indices, &Device::Cpu)?;
            let features = self.features.index_select(&indices, 0)?;
            Ok((features, self.labels.index_select(&indices, 0)?))
        };
        let (features, labels) = pick().map_err(candle_error)?;
        Ok(Dataset {
            features,
            labels,
            name: self.name.clone(),
            classes: self.classes,
        })
    }

    /// The same columns in another order: column k is the old column `order[k]`.
    pub fn columns(&self, order: &[u32]) -> Result<Self, Error> {
        let pick = || {
            self.features
                .index_select(&Tensor::new(order, &Device::Cpu)?, 1)
        };
        Ok(Dataset {
            features: pick().map_err(candle_error)?,
            ..self.clone()
        })
    }
}

impl Examples for Dataset {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.labels.elem_count()
    }

    fn batch(&self, rows: &[u32]) -> Result<Batch, Error> {
        let Dataset {
            features, labels, ..
        } = self.rows(rows)?;
        Ok(Batch {
            input: Input::Features(features),
            target: Targets::Classes(labels),
        })
    }

    fn checksum(&self) -> Result<u32, Error> {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&to_data(&self.features)?.bytes);
        let labels = self.labels.to_vec1::<u32>().map_err(candle_error)?;
        labels
            .iter()
            .for_each(|label| hasher.update(&label.to_le_bytes()));
        Ok(hasher.finalize())
    }
}

impl Rows {
    /// Reads CSV text; the reason of a refusal names line, column and value.
    fn parse(text: &str) -> Result<Self, String> {
        let mut rows = Rows::default();
        let mut width = None;
        let lines = (1..)
            .zip(text.lines())
            .filter(|(_, line)| !line.trim().is_empty());
        for (number, line) in lines {
            let fields: Vec<&str> = line.split(',').map(str::trim).collect();
            if width.is_none() && fields.iter().all(|field| field.parse::<f32>().is_err()) {
                width = Some(fields.len());
                continue;
            }
            let expected = *width.get_or_insert(fields.len());
            if fields.len() != expected {
                let count = fields.len();
                return Err(format!(
                    "line {number} has {count} columns, the first has {expected}"
                ));
            }
            rows.push(number, &fields)?;
        }
        rows.check()
    }

    fn push(&mut self, line: usize, fields: &[&str]) -> Result<(), String> {
        let Some((label, features)) = fields.split_last().filter(|(_, rest)| !rest.is_empty())
        else {
            return Err(format!(
                "line {line} has one column: features and a class are needed"
            ));
        };
        for (column, field) in (1..).zip(features) {
            let value = field.parse().ok().filter(|value: &f32| value.is_finite());
            let wrong =
                || format!("line {line}, column {column}: `{field}` is not a finite number");
            self.features.push(value.ok_or_else(wrong)?);
        }
        self.labels.push(class(label).ok_or_else(|| {
            let (column, last) = (fields.len(), MOST_CLASSES - 1);
            format!("line {line}, column {column}: `{label}` is not a class from 0 to {last}")
        })?);
        Ok(())
    }

    fn check(self) -> Result<Self, String> {
        match self.labels.iter().max() {
            None => Err("it has no rows".into()),
            Some(0) => Err("all rows have class 0: there is nothing to learn".into()),
            Some(_) => Ok(self),
        }
    }

    fn columns(&self) -> usize {
        self.features.len() / self.labels.len().max(1)
    }

    fn into_dataset(self, name: &str) -> Result<Dataset, Error> {
        let classes = self
            .labels
            .iter()
            .max()
            .map_or(0, |&last| last as usize + 1);
        let (rows, columns) = (self.labels.len(), self.columns());
        let features = Tensor::from_vec(self.features, (rows, columns), &Device::Cpu);
        let labels = Tensor::from_vec(self.labels, rows, &Device::Cpu);
        let (features, labels) = (
            features.map_err(candle_error)?,
            labels.map_err(candle_error)?,
        );
        Ok(Dataset {
            name: name.into(),
            features,
            labels,
            classes,
        })
    }
}

/// A class written as a whole number, `3` or `3.0`.
fn class(field: &str) -> Option<u32> {
    let value = field.parse::<f64>().ok()?;
    (value.fract() == 0.0 && (0.0..MOST_CLASSES as f64).contains(&value)).then_some(value as u32)
}

/// Centres every `stride`-th number and divides by the standard deviation; constants become 0.
fn standardise(values: &mut [f32], stride: usize) {
    let count = values.iter().step_by(stride).count() as f64;
    let mean = values
        .iter()
        .step_by(stride)
        .map(|&x| f64::from(x))
        .sum::<f64>()
        / count;
    let square = |x: f32| (f64::from(x) - mean).powi(2);
    let variance = values
        .iter()
        .step_by(stride)
        .map(|&x| square(x))
        .sum::<f64>()
        / count;
    let factor = if variance > 0.0 {
        variance.sqrt().recip()
    } else {
        0.0
    };
    for x in values.iter_mut().step_by(stride) {
        *x = ((f64::from(*x) - mean) * factor) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_fields_are_named() {
        let wrong = |text: &str| Rows::parse(text).unwrap_err();
        assert_eq!(
            wrong("1,2,0\n1,x,1\n"),
            "line 2, column 2: `x` is not a finite number"
        );
        assert_eq!(
            wrong("1,inf,0"),
            "line 1, column 2: `inf` is not a finite number"
        );
        assert_eq!(
            wrong("1,2,0.5"),
            "line 1, column 3: `0.5` is not a class from 0 to 999"
        );
        assert_eq!(
            wrong("1,2,-1"),
            "line 1, column 3: `-1` is not a class from 0 to 999"
        );
        assert_eq!(
            wrong("1,2,0\n\n1,2\n"),
            "line 3 has 2 columns, the first has 3"
        );
        assert_eq!(
            wrong("5\n6\n"),
            "line 1 has one column: features and a class are needed"
        );
        assert_eq!(wrong("a,b,c\n"), "it has no rows");
        assert_eq!(
            wrong("1,0\n2,0\n"),
            "all rows have class 0: there is nothing to learn"
        );
    }

    #[test]
    fn a_csv_file_is_standardised() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.csv");
        fs::write(&path, "height,flat,class\n1, 7, 0\n3, 7, 2.0\n").unwrap();
        let data = Dataset::from_csv(&path).unwrap();
        assert_eq!(
            data.features.to_vec2::<f32>().unwrap(),
            [[-1.0, 0.0], [1.0, 0.0]]
        );
        assert_eq!(data.labels.to_vec1::<u32>().unwrap(), [0, 2]);
        assert_eq!(data.classes, 3);
        let missing = Dataset::from_csv(&folder.path().join("no.csv")).unwrap_err();
        assert!(missing.to_string().contains("no.csv"), "{missing}");
    }
}
