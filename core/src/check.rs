//! What the front checks of a step before a backend sees it.

use crate::{Error, Manifest, MatMut, MatRef, PairIo, PairSlot, ParamIo, ParamSlot, StepIo};

/// Shape, dtype and place of one tensor.
struct Seen {
    shape: [usize; 2],
    dtype: crate::DType,
    memory: crate::Memory,
}

impl From<&MatRef<'_>> for Seen {
    fn from(view: &MatRef<'_>) -> Self {
        Seen {
            shape: view.shape(),
            dtype: view.dtype(),
            memory: view.memory(),
        }
    }
}

impl From<&MatMut<'_>> for Seen {
    fn from(view: &MatMut<'_>) -> Self {
        Seen::from(&view.as_ref())
    }
}

/// What a tensor must be; borrowed so that a step that is right allocates nothing.
struct Wanted<'w> {
    subject: &'w dyn Fn() -> String,
    dtype: crate::DType,
    manifest: &'w Manifest,
}

impl Wanted<'_> {
    fn check(
        &self,
        tensor: &'static str,
        seen: impl Into<Seen>,
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
        if seen.memory != self.manifest.memory {
            return Err(Error::Unsupported {
                subject: subject(),
                backend: self.manifest.name.clone(),
                what: format!(
                    "{tensor} in {:?} memory, only {:?}",
                    seen.memory, self.manifest.memory
                ),
            });
        }
        Ok(())
    }
}

/// Checks ids, shapes, dtypes and places of everything in `io`.
pub(crate) fn step_io(
    manifest: &Manifest,
    pairs: &[PairSlot],
    params: &[ParamSlot],
    io: &StepIo<'_, '_>,
    seen: &mut Vec<bool>,
) -> Result<(), Error> {
    start(seen, pairs.len());
    for pair in io.pairs.iter() {
        let slot = lookup(pairs, pair.id.0, "adapter")?;
        once(seen, pair.id.0, || slot.spec.subject())?;
        check_pair(manifest, slot, pair)?;
    }
    start(seen, params.len());
    for param in io.params.iter() {
        let slot = lookup(params, param.id.0, "parameter")?;
        once(seen, param.id.0, || slot.spec.subject())?;
        check_param(manifest, slot, param)?;
    }
    Ok(())
}

fn start(seen: &mut Vec<bool>, count: usize) {
    seen.clear();
    seen.resize(count, false);
}

fn lookup<'s, T>(slots: &'s [T], index: usize, what: &'static str) -> Result<&'s T, Error> {
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

fn check_pair(manifest: &Manifest, slot: &PairSlot, pair: &PairIo<'_>) -> Result<(), Error> {
    let spec = &slot.spec;
    let subject = || spec.subject();
    let wanted = Wanted {
        subject: &subject,
        dtype: spec.dtype,
        manifest,
    };
    wanted.check("A", &pair.a, spec.a_shape(), "r x n")?;
    wanted.check("B", &pair.b, spec.b_shape(), "m x r")?;
    wanted.check("grad A", &pair.grad_a, spec.a_shape(), "r x n")?;
    wanted.check("grad B", &pair.grad_b, spec.b_shape(), "m x r")?;
    match (&pair.base, slot.hyper.decay_base) {
        (Some(base), true) => {
            let wanted = Wanted {
                dtype: base.dtype(),
                ..wanted
            };
            wanted.check("W0", base, [spec.m, spec.n], "m x n")
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
    let wanted = Wanted {
        subject: &subject,
        dtype: spec.dtype,
        manifest,
    };
    wanted.check("value", &param.value, spec.shape(), "rows x cols")?;
    wanted.check("grad", &param.grad, spec.shape(), "rows x cols")
}
