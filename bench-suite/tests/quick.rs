//! The whole machinery on tiny shapes.

use lora_pro_bench::Bench;
use lora_pro_bench::report::{Report, RowOutcome, SCHEMA};
use lora_pro_bench::rows::{Measure, Row, named, rows};
use lora_pro_bench::size::Size;
use lora_pro_bench::verdict::GoalVerdict;
use lora_pro_bench::work::Engine;
use lora_pro_core::backend::{self, Control, Slots, StepIo};
use lora_pro_core::{Backend, Error, Manifest, StepReport, XChoice};
use lora_pro_cpu::{CpuBackend, CpuOptions};
use lora_pro_reference::ReferenceBackend;

fn quick(rows: Vec<Row>, engine: Engine<'_>) -> Report {
    let bench = Bench {
        rows,
        size: Size::Quick,
        threads: 2,
        seconds: 0.0,
        engine,
        process: None,
        told: &|_, _, _| (),
    };
    bench.run().unwrap()
}

fn reference(_: usize) -> Result<Box<dyn Backend>, Error> {
    Ok(Box::new(ReferenceBackend::new()))
}

#[test]
fn a_report_comes_back_from_json() {
    let rows = named(&[
        "full-r8-f32".into(),
        "first-full".into(),
        "memory-full".into(),
    ])
    .unwrap();
    let report = quick(rows, &reference);
    let text = serde_json::to_string(&report).unwrap();
    let back: Report = serde_json::from_str(&text).unwrap();
    assert_eq!(back, report);
    assert_eq!(back.schema, SCHEMA);
    assert!(back.wrong().is_empty());
    for row in &back.rows[..2] {
        let RowOutcome::Measured(measured) = &row.outcome else {
            panic!("{row:?}");
        };
        assert!(measured.value.median > 0.0);
        let goal = &measured.goals[0];
        assert!(goal.ratio.median > 0.0);
        assert_eq!(goal.verdict, GoalVerdict::NotJudged);
    }
    assert!(matches!(
        back.rows[2].outcome,
        RowOutcome::NotAvailable { .. }
    ));
}

/// Every row, on the backend that the goals are about.
#[test]
fn the_cpu_backend_runs_every_row() {
    let engine = |threads: usize| {
        let options = CpuOptions::default().threads(threads);
        CpuBackend::with(options).map(|backend| Box::new(backend) as Box<dyn Backend>)
    };
    let report = quick(rows().unwrap(), &engine);
    for row in &report.rows {
        let measured = matches!(row.outcome, RowOutcome::Measured(_));
        assert_eq!(measured, row.measure != Measure::Memory, "{row:?}");
    }
}

/// The reference with a wrong X.
struct Wrong(ReferenceBackend);

impl Backend for Wrong {
    fn manifest(&self) -> Manifest {
        self.0.manifest()
    }

    backend::forward_memory!(0);

    fn step(
        &mut self,
        slots: Slots<'_>,
        io: StepIo<'_, '_>,
        control: &Control,
    ) -> Result<StepReport, Error> {
        for slot in slots.adapters.iter_mut() {
            slot.hyper.x = XChoice::Symmetric;
        }
        self.0.step(slots, io, control)
    }
}

#[test]
fn a_wrong_answer_is_not_timed() {
    let ids = ["full-r8-f32", "efficient-r8", "factored-r8"].map(String::from);
    let engine = |_: usize| Ok(Box::new(Wrong(ReferenceBackend::new())) as Box<dyn Backend>);
    let report = quick(named(&ids).unwrap(), &engine);
    assert_eq!(report.wrong(), ids);
}
