//! Training does what it says, and says so when it cannot.

mod common;

use common::{backend, experiment, small, task, trainer};
use lora_pro_core::Error;
use lora_pro_finetune::{
    Compare, Comparison, Dataset, METHODS, MakeBackend, MethodSpec, OnProgress, RunLog, RunResult,
    Task, Trainable, Trainer, gap_curve,
};

#[test]
fn adapters_start_where_the_frozen_network_is() {
    let task = task();
    let start = trainer(&task, "lora-pro-factored")
        .evaluate(task.test.as_ref())
        .unwrap();
    assert_eq!(start, task.base.evaluate(task.test.as_ref()).unwrap());
}

#[test]
fn every_method_lowers_the_loss() {
    let task = task();
    for method in &METHODS {
        let mut trainer = trainer(&task, method.id);
        let before = trainer.evaluate(task.train.as_ref()).unwrap().loss;
        while !trainer.finished() {
            trainer.step().unwrap();
        }
        let after = trainer.evaluate(task.train.as_ref()).unwrap().loss;
        assert!(
            after < 0.95 * before,
            "{}: {before} to {after}",
            method.name
        );
        assert_eq!(trainer.history().losses.len(), 20);
    }
}

#[test]
fn preparing_twice_gives_the_same_bits() {
    let values = |task: &Task| {
        let weights = task
            .base
            .parameters
            .tensors()
            .values()
            .map(|tensor| tensor.flatten_all());
        weights
            .map(|weight| weight.unwrap().to_vec1::<f32>().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(values(&task()), values(&task()));
}

#[test]
fn a_rate_out_of_all_measure_diverges_without_a_panic() {
    let task = task();
    for method in &METHODS {
        let run = method.run(&experiment(), 1e30, 0);
        let mut trainer =
            Trainer::new(&task.base, task.train.clone(), run, backend().unwrap()).unwrap();
        while !trainer.finished() {
            trainer.step().unwrap();
        }
        assert!(trainer.diverged(), "{}", method.name);
        assert!(trainer.history().losses.iter().all(|loss| loss.is_finite()));
    }
}

#[test]
fn impossible_runs_are_refused() {
    let task = task();
    let refusal = |change: &dyn Fn(&mut lora_pro_finetune::RunConfig)| {
        let mut run = MethodSpec::find("lora")
            .unwrap()
            .run(&experiment(), 1e-3, 0);
        change(&mut run);
        let trainer = Trainer::new(&task.base, task.train.clone(), run, backend().unwrap());
        trainer.err().unwrap().to_string()
    };
    let rank = |rank| {
        move |run: &mut lora_pro_finetune::RunConfig| {
            if let Trainable::Adapters { rank: old, .. } = &mut run.trainable {
                *old = rank;
            }
        }
    };
    let message = "adapter `layers.1`: r is 10, but it must be at most min(m, n) = 8";
    assert_eq!(refusal(&rank(10)), message);
    let message = "adapter `layers.0`: r is 0, but it must be at least 1";
    assert_eq!(refusal(&rank(0)), message);
    let message = "the run: batch is 0, but it must be from 1 to 399, the number of training rows";
    assert_eq!(refusal(&|run| run.batch = 0), message);
    assert!(refusal(&|run| run.batch = usize::MAX).contains("from 1 to 399, the number"));
    let message = "the optimizer: lr is NaN, but it must be finite and at least 0";
    assert_eq!(refusal(&|run| run.config.hyper.lr = f64::NAN), message);
}

/// Law 10: with B of full rank m, every g is in the tangent space. B is 0 at first.
#[test]
fn at_full_rank_the_gap_closes_after_the_first_steps() {
    let (mut experiment, mut small) = (experiment(), small());
    (small.hidden, experiment.rank, experiment.steps) = (vec![8], 8, 6);
    let digits = Dataset::digits().unwrap();
    let task = small.prepare(&digits, backend().unwrap()).unwrap();
    let run = MethodSpec::find("lora-pro-full")
        .unwrap()
        .run(&experiment, 1e-2, 0);
    let mut trainer =
        Trainer::new(&task.base, task.train.clone(), run, backend().unwrap()).unwrap();
    let curve = gap_curve(&mut trainer, 2, &|_, _| ()).unwrap();
    let steps: Vec<usize> = curve.iter().map(|point| point.step).collect();
    assert_eq!(steps, [1, 3, 5, 6]);
    assert!(
        curve[0].gap.raw > 0.5 && curve[3].gap.raw < 1e-5,
        "{curve:?}"
    );
}

#[test]
fn a_projection_needs_no_rescaling_and_plain_lora_does() {
    let task = task();
    for (id, projection) in [("lora", false), ("lora-pro-factored", true)] {
        let mut trainer = trainer(&task, id);
        (0..3).for_each(|_| trainer.step().unwrap());
        let gap = trainer.gap().unwrap();
        assert_eq!(
            (gap.raw - gap.rescaled).abs() < 1e-7,
            projection,
            "{id}: {gap:?}"
        );
        assert!(gap.rescaled > 0.0 && gap.rescaled <= 1.0);
    }
}

fn compare(
    task: &Task,
    make_backend: MakeBackend<'_>,
    progress: OnProgress<'_>,
    log: &mut RunLog,
) -> Result<Comparison, Error> {
    let compare = Compare {
        experiment: &experiment(),
        task,
        make_backend,
        progress,
        time_limit: None,
    };
    compare.run(log)
}

#[test]
fn a_comparison_does_not_depend_on_chance() {
    let task = task();
    let told = std::sync::atomic::AtomicUsize::new(0);
    let count = |done: usize, total: usize, _: &str| {
        assert!(done <= total);
        told.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    };
    let once = compare(&task, &backend, &count, &mut RunLog::default()).unwrap();
    let again = compare(&task, &backend, &|_, _, _| (), &mut RunLog::default()).unwrap();
    assert_eq!(told.into_inner(), 7 * 5 * 2);
    for (one, other) in once.methods.iter().zip(&again.methods) {
        assert_eq!(format!("{:?}", one.rates), format!("{:?}", other.rates));
        assert_eq!(one.best_lr, other.best_lr);
    }
    let full = once.methods[0].at(1e-2).unwrap();
    assert!(full.runs[0].distance_to_full.is_none() && full.runs[0].distance_by_order.is_some());
    let factored = once.methods[5].at(1e-2).unwrap();
    assert_eq!(
        factored.runs.iter().map(|run| run.seed).collect::<Vec<_>>(),
        [0, 1]
    );
    assert!(factored.runs[0].distance_to_full.unwrap() > 0.0);
    assert_eq!(
        factored.runs[0]
            .gap
            .iter()
            .map(|(step, _)| *step)
            .collect::<Vec<_>>(),
        [1, 10, 20]
    );
}

#[test]
fn a_backend_that_cannot_be_made_is_an_error() {
    let fail = || Err(Error::backend("none", "absent"));
    let error = compare(&task(), &fail, &|_, _, _| (), &mut RunLog::default()).unwrap_err();
    assert_eq!(error.to_string(), "the none backend: absent");
}

#[test]
fn a_comparison_goes_on_where_it_was_interrupted() {
    let (folder, task) = (tempfile::tempdir().unwrap(), task());
    let path = folder.path().join("runs.jsonl");
    let whole = compare(
        &task,
        &backend,
        &|_, _, _| (),
        &mut RunLog::open(&path).unwrap(),
    )
    .unwrap();
    assert_eq!(whole.setup.runs, [70, 70]);
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 70);

    // Half a line at the end is what an interruption leaves.
    std::fs::write(
        &path,
        format!("{}\n{}", lines[..40].join("\n"), &lines[40][..99]),
    )
    .unwrap();
    let told = std::sync::atomic::AtomicUsize::new(0);
    let count = |_: usize, total: usize, _: &str| {
        told.store(total, std::sync::atomic::Ordering::Relaxed);
    };
    let resumed = compare(&task, &backend, &count, &mut RunLog::open(&path).unwrap()).unwrap();
    assert!(told.into_inner() < 70);
    for (one, other) in whole.methods.iter().zip(&resumed.methods) {
        let scores = |rate: &lora_pro_finetune::RateResult| {
            let runs = rate.runs.iter();
            runs.map(|run| {
                let RunResult {
                    distance_to_full,
                    distance_by_order,
                    ..
                } = *run;
                (run.test_right.clone(), distance_to_full, distance_by_order)
            })
            .collect::<Vec<_>>()
        };
        let both = one.rates.iter().zip(&other.rates);
        both.for_each(|(one, other)| assert_eq!(scores(one), scores(other)));
    }
    // Nothing is there twice.
    assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 70);

    std::fs::write(&path, "no run\n").unwrap();
    let error = RunLog::open(&path).unwrap_err().to_string();
    assert!(error.contains("line 1"), "{error}");
}

/// A batch in parts is the same step up to rounding.
#[test]
fn micro_batches_give_the_same_step() {
    let task = task();
    let losses = |micro_batches| {
        let mut run = MethodSpec::find("lora-pro-full")
            .unwrap()
            .run(&experiment(), 1e-2, 5);
        run.micro_batches = micro_batches;
        let mut trainer =
            Trainer::new(&task.base, task.train.clone(), run, backend().unwrap()).unwrap();
        (0..4).for_each(|_| trainer.step().unwrap());
        trainer.history().losses.clone()
    };
    let (whole, parts) = (losses(1), losses(3));
    for (one, other) in whole.iter().zip(&parts) {
        assert!(
            (one - other).abs() < 1e-4 * one.abs(),
            "{whole:?} {parts:?}"
        );
    }
}

#[test]
fn dropout_changes_training_and_not_evaluation() {
    let task = task();
    let start = |lora_dropout| {
        let mut run = MethodSpec::find("lora")
            .unwrap()
            .run(&experiment(), 1e-2, 5);
        run.lora_dropout = lora_dropout;
        Trainer::new(&task.base, task.train.clone(), run, backend().unwrap())
    };
    let losses = |lora_dropout| {
        let mut trainer = start(lora_dropout).unwrap();
        (0..6).for_each(|_| trainer.step().unwrap());
        let test = task.test.as_ref();
        assert_eq!(
            trainer.evaluate(test).unwrap(),
            trainer.evaluate(test).unwrap()
        );
        trainer.history().losses.clone()
    };
    assert_ne!(losses(0.0), losses(0.5));
    assert_eq!(losses(0.5), losses(0.5));
    let error = start(1.0).err().unwrap().to_string();
    assert_eq!(
        error,
        "the run: lora_dropout is 1, but it must be at least 0 and below 1"
    );
}
