//! Bugs in what is written, remembered, reported and refused.

use lora_pro_core::OnNonFinite;
use lora_pro_core::backend::{Control, StateTensor, StepIo, ratio_or_zero};

use super::Bug;

pub(super) const BUGS: &[Bug] = &[
    Bug {
        id: "last-column-not-written",
        what: "the last column of A and of B stays as it was, as where a tile does not divide it",
        plant: |e| {
            e.written = |old, new| {
                let mut new = new.clone();
                let last = new.ncols() - 1;
                new.set_column(last, &old.column(last));
                new
            }
        },
    },
    Bug {
        id: "first-state-tensor-stale",
        what: "the first state tensor of an adapter is not written back",
        plant: |e| e.remembered = |tensors| tensors.into_iter().skip(1).collect(),
    },
    Bug {
        id: "last-state-tensor-stale",
        what: "the last state tensor of an adapter is not written back",
        plant: |e| {
            e.remembered = |mut tensors| {
                tensors.pop();
                tensors
            }
        },
    },
    Bug {
        id: "maxima-not-saved",
        what: "AMSGrad's maxima are zeros in a checkpoint",
        plant: |e| {
            e.downloaded = |tensor, bytes| match tensor.name().starts_with("max_") {
                true => zeros(tensor),
                false => bytes,
            }
        },
    },
    Bug {
        id: "second-moments-not-loaded",
        what: "second moments start from 0 again when a run is resumed: its first steps are far \
               too long",
        plant: |e| {
            e.uploaded = |tensor, bytes| match tensor.name().contains("_sq") {
                true => zeros(tensor),
                false => bytes,
            }
        },
    },
    Bug {
        id: "state-saved-in-f32",
        what: "f64 state goes through f32 on its way to a checkpoint: a resumed run differs in \
               the eighth digit",
        plant: |e| {
            e.downloaded = |tensor, bytes| match tensor.dtype {
                lora_pro_core::DType::F64 => through_f32(&bytes),
                _ => bytes,
            }
        },
    },
    Bug {
        id: "report-without-clip",
        what: "the report says that nothing was clipped",
        plant: |e| {
            e.report = |mut report, _| {
                report.clip = 1.0;
                report
            }
        },
    },
    Bug {
        id: "report-before-clip",
        what: "the report has the lengths of the updates before they were clipped",
        plant: |e| {
            e.report = |mut report, whole| {
                let (after, share) = (report.update_norm, report.relative_update);
                let before = [whole.a.norm(), whole.b.norm()];
                report.update_norm = before.into();
                report.relative_update = [
                    ratio_or_zero(before[0], ratio_or_zero(after.a, share.a)),
                    ratio_or_zero(before[1], ratio_or_zero(after.b, share.b)),
                ]
                .into();
                report
            }
        },
    },
    Bug {
        id: "report-of-squared-equivalent",
        what: "the report has |E|^2 for |E|",
        plant: |e| {
            e.report = |mut report, _| {
                report.equivalent_norm = report.equivalent_norm.powi(2);
                report
            }
        },
    },
    Bug {
        id: "nan-accepted",
        what: "nothing is checked for NaN: one bad batch and the adapter is NaN for good",
        plant: |e| e.finite = |_, _, _, _| Ok(()),
    },
    Bug {
        id: "infinity-accepted",
        what: "NaN is refused and infinity is not",
        plant: |e| {
            e.finite = |values, dtype, subject, tensor| {
                let finite = values.map(|x| if x.is_infinite() { 1.0 } else { x });
                lora_pro_reference::storage::check_representable(&finite, dtype, subject, tensor)
            }
        },
    },
    Bug {
        id: "refusal-names-nobody",
        what: "the error for a NaN does not say whose it is",
        plant: |e| {
            e.finite = |values, dtype, _, tensor| {
                lora_pro_reference::storage::check_representable(values, dtype, "a tensor", tensor)
            }
        },
    },
    Bug {
        id: "half-written",
        what: "A is written before gB is checked: a refused step has changed A",
        plant: |e| e.before_checks = a_before_b,
    },
    Bug {
        id: "skip-counts",
        what: "a skipped step raises the counters: the next one is corrected too little",
        plant: |e| {
            e.skipped = |slots| {
                slots
                    .adapters
                    .iter_mut()
                    .for_each(|slot| slot.state.step += 1)
            }
        },
    },
    Bug {
        id: "skip-ignored",
        what: "a gradient that is not finite is an error where it should be skipped: loss scaling \
               ends the run",
        plant: |e| {
            e.control = |control| Control {
                on_non_finite: OnNonFinite::Error,
                ..*control
            }
        },
    },
    Bug {
        id: "always-skips",
        what: "a gradient that is not finite is skipped where it should be an error: a run that \
               has died goes on in silence",
        plant: |e| {
            e.control = |control| Control {
                on_non_finite: OnNonFinite::Skip,
                ..*control
            }
        },
    },
];

fn zeros(tensor: &StateTensor) -> Vec<u8> {
    vec![0; tensor.bytes()]
}

fn through_f32(bytes: &[u8]) -> Vec<u8> {
    let (numbers, _) = bytes.as_chunks();
    let round = |x: &[u8; 8]| f64::from(f64::from_le_bytes(*x) as f32).to_le_bytes();
    numbers.iter().flat_map(round).collect()
}

/// Moves A along gA where gB is about to be refused.
fn a_before_b(io: &mut StepIo<'_, '_>) {
    for pair in io.adapters.iter_mut() {
        let [rows, cols] = pair.grad_b.shape();
        let broken = (0..rows).any(|i| (0..cols).any(|j| !pair.grad_b.get(i, j).is_finite()));
        if broken {
            let moved = pair.a.get(0, 0) - pair.grad_a.get(0, 0);
            pair.a.set(0, 0, moved);
        }
    }
}
