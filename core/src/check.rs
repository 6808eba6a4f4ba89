//! What the front checks of a step before a backend sees it.

use crate::backend::{AdapterSlot, Manifest, ParamSlot, StepIo};
use crate::error::Error;
use crate::io::{AdapterIo, ParamIo};
use crate::tensor::{DType, Location, MatMut, MatRef};

/// Shape, dtype and place of one tensor.
struct TensorMeta {
    shape: [usize; 2],
    dtype: DType,
    location: Location,
}

impl From<&MatRef<'_>> for TensorMeta {
    fn from(view: &MatRef<'_>) -> Self {
        TensorMeta {
            shape: view.shape(),
            dtype: view.dtype(),
            location: view.location(),
        }
    }
}

impl From<&MatMut<'_>> for TensorMeta {
    fn from(view: &MatMut<'_>) -> Self {
        TensorMeta::from(&view.view())
    }
}

/// What is expected of a tensor; borrowed so that a step that is right allocates nothing.
struct ExpectedTensor<'w> {
    subject: &'w dyn Fn() -> String,
    dtype: DType,
    manifest: &'w Manifest,
}

impl ExpectedTensor<'_> {
    fn check(
        &self,
        tensor: &'static str,
        seen: impl Into<TensorMeta>,
        shape: [usize; 2],
        meaning: &'static str,
    ) -> Result<(), Error> {
        let seen = seen.into();
        let subject = self.subject;
        if seen.shape != shape {
            let (got, expected) = (seen.shape, shape);
            return Err(Error::Shape {
                subject: subject(),
                tensor,
                got,
                expected,
                meaning,
            });
        }
        if seen.dtype != self.dtype {
            let value = format!("{} ({tensor})", seen.dtype);
            let expected = format!("{}, as registered", self.dtype);
            return Err(Error::invalid(&subject(), "dtype", value, expected));
        }
        if seen.location != self.manifest.location {
            return Err(Error::Unsupported {
                subject: subject(),
                backend: self.manifest.name.clone(),
                what: format!(
                    "{tensor} in {:?} memory, only {:?}",
                    seen.location, self.manifest.location
                ),
            });
        }
        Ok(())
    }
}

/// Checks ids, shapes, dtypes and places of everything in `io`.
pub(crate) fn step_io(
    manifest: &Manifest,
    adapters: &[AdapterSlot],
    params: &[ParamSlot],
    io: &StepIo<'_, '_>,
    seen: &mut Vec<bool>,
) -> Result<(), Error> {
    if io.adapters.is_empty() && io.params.is_empty() {
        let expected = "at least one adapter or parameter";
        return Err(Error::invalid("the step", "list", "empty", expected));
    }
    start(seen, adapters.len());
    for adapter in io.adapters.iter() {
        let slot = lookup(adapters, adapter.id.index(), "adapter")?;
        once(seen, adapter.id.index(), || slot.spec.subject())?;
        check_adapter(manifest, slot, adapter)?;
    }
    start(seen, params.len());
    for param in io.params.iter() {
        let slot = lookup(params, param.id.index(), "parameter")?;
        once(seen, param.id.index(), || slot.spec.subject())?;
        check_param(manifest, slot, param)?;
    }
    Ok(())
}

fn start(seen: &mut Vec<bool>, count: usize) {
    seen.clear();
    seen.resize(count, false);
}

pub(crate) fn lookup<'s, T>(
    slots: &'s [T],
    index: usize,
    what: &'static str,
) -> Result<&'s T, Error> {
    slots.get(index).ok_or(Error::Unknown {
        what,
        index,
        count: slots.len(),
    })
}

fn once(seen: &mut [bool], index: usize, subject: impl Fn() -> String) -> Result<(), Error> {
    if std::mem::replace(&mut seen[index], true) {
        return Err(Error::Duplicate {
            subject: subject(),
            what: "is listed twice in one step",
        });
    }
    Ok(())
}

fn check_adapter(
    manifest: &Manifest,
    slot: &AdapterSlot,
    adapter: &AdapterIo<'_>,
) -> Result<(), Error> {
    let spec = &slot.spec;
    let subject = || spec.subject();
    let expected_tensor = ExpectedTensor {
        subject: &subject,
        dtype: spec.dtype,
        manifest,
    };
    expected_tensor.check("A", &adapter.a, spec.a_shape(), "r x n")?;
    expected_tensor.check("B", &adapter.b, spec.b_shape(), "m x r")?;
    expected_tensor.check("grad A", &adapter.grad_a, spec.a_shape(), "r x n")?;
    expected_tensor.check("grad B", &adapter.grad_b, spec.b_shape(), "m x r")?;
    match (&adapter.w0, slot.hyper.decay_base) {
        (Some(w0), true) => {
            let expected_tensor = ExpectedTensor {
                dtype: w0.dtype(),
                ..expected_tensor
            };
            expected_tensor.check("W0", w0, [spec.m, spec.n], "m x n")
        }
        (None, true) => Err(Error::invalid(
            &subject(),
            "W0",
            "absent",
            "given: decay_base is set",
        )),
        (_, false) => Ok(()),
    }
}

fn check_param(manifest: &Manifest, slot: &ParamSlot, param: &ParamIo<'_>) -> Result<(), Error> {
    let spec = &slot.spec;
    let subject = || spec.subject();
    let expected_tensor = ExpectedTensor {
        subject: &subject,
        dtype: spec.dtype,
        manifest,
    };
    expected_tensor.check("value", &param.value, spec.shape(), "rows x cols")?;
    expected_tensor.check("grad", &param.grad, spec.shape(), "rows x cols")
}
