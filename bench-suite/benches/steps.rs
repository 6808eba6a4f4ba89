//! The rows' steps on moderate shapes, for `cargo bench`: to compare one version with another.
//! Goals are judged by `lora-pro bench`, at full size and against floors.

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use lora_pro_bench::rows::{Measure, rows};
use lora_pro_bench::work::{Job, Workload};
use lora_pro_core::{Backend, Error};
use lora_pro_cpu::{CpuBackend, CpuOptions};

/// What sides and layers are divided by: 1024 x 1024, and a model of eight layers.
const DIVISOR: usize = 4;

const THREADS: usize = 2;

fn engine(threads: usize) -> Result<Box<dyn Backend>, Error> {
    let options = CpuOptions::default().threads(threads);
    Ok(Box::new(CpuBackend::with(options)?))
}

fn steps(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("step");
    group
        .sample_size(20)
        .measurement_time(Duration::from_secs(2));
    let rows = rows().expect("the rows are embedded and tested");
    for row in rows.iter().filter(|row| row.measure == Measure::Step) {
        let job = Job::new(&row.work, DIVISOR, THREADS).expect("the row is tested");
        let cost = job.cost();
        let mut work = Workload::new(&job, &engine).expect("the backend takes the row");
        group.throughput(Throughput::Bytes(cost.traffic()));
        group.bench_function(BenchmarkId::from_parameter(&row.id), |bencher| {
            bencher.iter(|| work.step().expect("a step"));
        });
    }
    group.finish();
}

criterion_group!(benches, steps);
criterion_main!(benches);
