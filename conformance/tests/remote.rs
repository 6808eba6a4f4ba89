//! Children that speak the protocol: a faithful one is its backend to the last bit, and whatever a
//! bad one does gives an error in time.

mod common;

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use common::{Batch, METHODS, adapter, differing, hyper, reference};
use lora_pro_conformance::laws::LAWS;
use lora_pro_conformance::record::Stability;
use lora_pro_conformance::remote::protocol::{
    Adapter, Answer, Control, Failure, FailureKind, Hello, PROTOCOL, Param, Report, Request,
    Skipped, StepRequest, Stepped,
};
use lora_pro_conformance::remote::{Description, Limits, Opt, Remote};
use lora_pro_conformance::residual::holds;
use lora_pro_conformance::sample::CaseSpec;
use lora_pro_conformance::subject::Subject;
use lora_pro_core::{
    Backend, Config, DType, Damping, Error, HostTensor, Method, OnNonFinite, ParamId, ParamIo,
    ParamSpec, PerFactor, Preset,
};

/// The child in Rust with one of its faults, or with none.
fn child(fault: &str) -> String {
    format!("'{CHILD}' {fault}")
}

const CHILD: &str = env!("CARGO_BIN_EXE_conformance-subject");

fn limits() -> Limits {
    Limits {
        time: Duration::from_secs(30),
        ..Limits::default()
    }
}

fn start(fault: &str) -> Result<Remote, Error> {
    Remote::start(&child(fault), limits())
}

/// The faithful child, one for all tests.
fn faithful() -> &'static Remote {
    static REMOTE: OnceLock<Remote> = OnceLock::new();
    REMOTE.get_or_init(|| start("").expect("starts"))
}

fn remote() -> Box<dyn Backend> {
    faithful().backend()
}

fn cases(dtype: DType) -> [CaseSpec; 3] {
    [
        adapter(3, 2, 1, dtype),
        adapter(15, 9, 5, dtype),
        adapter(7, 20, 7, dtype),
    ]
}

#[test]
fn a_served_backend_is_the_backend_to_the_last_bit() {
    for dtype in DType::PARAMETERS {
        for method in METHODS {
            let config = Config::from(hyper(method)).max_grad_norm(Some(0.5));
            let run = |make| Batch::start(make, &cases(dtype), config.clone())?.finish(5);
            let here = run(&reference).expect("steps");
            let there = run(&remote).expect("steps");
            assert_eq!(differing(&here, &there), [""; 0], "{method} in {dtype}");
        }
    }
}

#[test]
fn state_moves_between_here_and_there() {
    for method in METHODS {
        let straight = Batch::start(&reference, &cases(DType::F32), hyper(method));
        let straight = straight.expect("valid").finish(6).expect("steps");
        let mut batch = Batch::start(&remote, &cases(DType::F32), hyper(method)).expect("valid");
        for t in 1..=6 {
            batch.step(t).expect("steps");
            let next: fn() -> Box<dyn Backend> = if t % 2 == 0 { remote } else { reference };
            batch = batch.moved_to(&next).expect("loads");
        }
        let moved = batch.bits().expect("saved");
        assert_eq!(differing(&straight, &moved), [""; 0], "{method}");
    }
}

#[test]
fn reports_come_along() {
    let run = |make| {
        let mut batch = Batch::start(make, &cases(DType::F64), hyper(Method::Full)).expect("valid");
        let report = batch.step(1).expect("steps");
        let slot = &batch.run.optimizer.adapters()[1];
        (report, slot.report)
    };
    let ((here, adapter_here), (there, adapter_there)) = (run(&reference), run(&remote));
    assert_eq!(here, there);
    assert_eq!(adapter_here, adapter_there);
}

/// The kit's own view of a child, kept thin: laws belong to their own tests.
#[test]
fn laws_hold_through_the_protocol() {
    let subject = Subject::new("reference, remote", DType::F64, remote);
    let case = CaseSpec {
        m: 6,
        n: 5,
        r: 3,
        rank_a: 3,
        rank_b: 3,
        kappa_a: 10.0,
        kappa_b: 20.0,
        s: 2.0,
        ..CaseSpec::default()
    };
    for law in LAWS {
        for method in law.methods {
            let ratio = law.ratio(&subject, &case, *method);
            let ratio = ratio.unwrap_or_else(|error| panic!("{}: {error}", law.id()));
            assert!(holds(ratio), "{} ({method}): {ratio}", law.id());
        }
    }
}

#[test]
fn sessions_do_not_meet() {
    let cases = cases(DType::F64);
    let start = |method| Batch::start(&remote, &cases, hyper(method)).expect("valid");
    let mut batches = METHODS.map(start);
    for t in 1..=3 {
        for batch in &mut batches {
            batch.step(t).expect("steps");
        }
    }
    for (mut batch, method) in batches.into_iter().zip(METHODS) {
        let alone = Batch::start(&reference, &cases, hyper(method)).expect("valid");
        let alone = alone.finish(3).expect("steps");
        assert_eq!(differing(&batch.bits().expect("saved"), &alone), [""; 0]);
    }
}

#[test]
fn parameters_without_a_pair_are_stepped() {
    let run = |make| {
        let mut batch = Batch::start(make, &cases(DType::F32), hyper(Method::Full)).expect("valid");
        let bias = ParamSpec::new("bias", 1, 4);
        batch.run.optimizer.add_param(bias).expect("valid");
        let mut value = HostTensor::from_fn(DType::F32, [1, 4], |_, j| j as f64);
        let grad = HostTensor::from_fn(DType::F32, [1, 4], |_, j| 0.5 - j as f64);
        for _ in 0..3 {
            let param = ParamIo::new(ParamId::from_index(0), value.view_mut(), grad.view());
            batch
                .run
                .optimizer
                .step_with_params(&mut [], &mut [param])
                .expect("steps");
        }
        (value, batch.bits().expect("saved"))
    };
    assert!(run(&reference) == run(&remote));
}

/// Steps a child until it gives an error; nothing must have changed by then.
fn fails(remote: &Remote, config: impl Into<Config>) -> String {
    let make = || remote.backend();
    let mut batch = Batch::start(&make, &cases(DType::F64)[..1], config).expect("valid");
    for t in 1..=4 {
        let before = batch.run.adapters[0].factors();
        if let Err(error) = batch.step(t) {
            assert!(batch.run.adapters[0].factors() == before);
            assert_eq!(batch.run.optimizer.adapters()[0].state.step, t - 1);
            let again = batch.step(t).map(|_| "steps again".to_string());
            return format!(
                "{error}\n  then: {}",
                again.unwrap_or_else(|e| e.to_string())
            );
        }
    }
    "no error".into()
}

/// An error's words without the folders of this machine.
fn plain(words: &str) -> String {
    let folder = std::env::temp_dir();
    let folder = folder.to_string_lossy();
    let word = |word: &str| match word.starts_with(&*folder) {
        true => "<file>:".into(),
        false => word.replace(&format!("'{CHILD}'"), "conformance-subject"),
    };
    words.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

#[test]
fn bad_starts() {
    let mute = Limits {
        time: Duration::from_millis(300),
        ..limits()
    };
    let mut messages = Vec::new();
    for fault in ["absent", "protocol", "babble", "flood", "typo", "mute"] {
        let limits = if fault == "mute" { mute } else { limits() };
        let error = Remote::start(&child(fault), limits).err().expect("refused");
        let words = plain(&error.to_string());
        messages.push(format!("{fault}: {words}"));
    }
    insta::assert_snapshot!(messages.join("\n"));
}

#[test]
fn what_is_no_program() {
    let error = Remote::start("/nowhere/at-all", limits())
        .err()
        .expect("refused");
    assert!(matches!(error, Error::Backend { .. }), "{error}");
    assert!(error.to_string().contains("/nowhere/at-all"), "{error}");
}

#[test]
fn bad_steps() {
    let quick = Limits {
        time: Duration::from_secs(2),
        ..limits()
    };
    let mut messages = Vec::new();
    let begin = Instant::now();
    for fault in [
        "dies", "hangs", "garbage", "refuses", "shape", "missing", "stale",
    ] {
        let remote = Remote::start(&child(fault), quick).expect("starts");
        let words = plain(&fails(&remote, hyper(Method::Efficient)));
        messages.push(format!("{fault}: {words}"));
    }
    assert!(begin.elapsed() < Duration::from_secs(20));
    insta::assert_snapshot!(messages.join("\n"));
}

#[test]
fn the_session_after_a_death_has_a_new_child() {
    let remote = start("dies").expect("starts");
    let config = hyper(Method::Sgd);
    let first = fails(&remote, config);
    assert!(first.contains("the dog ate my moments"), "{first}");
    assert!(fails(&remote, config).contains("the dog ate my moments"));
    // Sessions that were open when the child died are lost, and say so.
    let make = || remote.backend();
    let mut open = Batch::start(&make, &cases(DType::F64), config).expect("valid");
    open.step(1).expect("steps");
    assert!(fails(&remote, config).contains("the dog ate my moments"));
    let error = open.step(2).expect_err("lost").to_string();
    assert!(
        error.contains("the child of this session is gone"),
        "{error}"
    );
}

/// Not every system limits address space.
#[cfg(target_os = "linux")]
#[test]
fn memory_is_limited() {
    let limits = Limits {
        memory: Some(1 << 30),
        ..limits()
    };
    let error = Remote::start(&child("hungry"), limits)
        .err()
        .expect("refused");
    assert!(error.to_string().contains("allocation"), "{error}");
    assert!(Remote::start(&child(""), limits).is_ok());
}

#[test]
fn what_is_not_described_is_not_asked() {
    let remote = start("modest").expect("starts");
    let good = Preset::Paper
        .hyper()
        .method(Method::Efficient)
        .damping(Damping::Absolute(1e-8));
    assert_eq!(fails(&remote, good), "no error");
    let mut messages = vec![
        fails(&remote, good.method(Method::Full)),
        fails(&remote, good.damping(Damping::Absolute(1e-6))),
        fails(&remote, good.damping(Damping::None)),
        fails(&remote, good.amsgrad(true)),
        fails(&remote, good.maximize(true)),
        fails(&remote, good.weight_decay(0.1)),
        fails(&remote, good.lr_ratio(2.0)),
        fails(&remote, good.update_clip(Some(0.1))),
        fails(&remote, Config::from(good).max_grad_norm(Some(1.0))),
        fails(&remote, Config::from(good).on_non_finite(OnNonFinite::Skip)),
    ];
    for message in &mut messages {
        let end = message.find('\n').expect("two lines");
        message.truncate(end);
    }
    insta::assert_snapshot!(messages.join("\n"));
}

#[test]
fn state_that_is_not_shown_is_unsupported() {
    let remote = start("secretive").expect("starts");
    assert!(faithful().exposes("exp_avg_a") && !remote.exposes("exp_avg_a"));
    let make = || remote.backend();
    let mut batch =
        Batch::start(&make, &cases(DType::F64), hyper(Method::Efficient)).expect("valid");
    batch.step(1).expect("steps");
    let error = batch.saved().expect_err("refused");
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    insta::assert_snapshot!(error, @"the optimizer: the reference backend does not support reading `exp_avg_a`");
}

#[test]
fn what_a_child_leaves_out_is_computed() {
    let remote = start("lazy").expect("starts");
    let make = || remote.backend();
    let config = Config::from(hyper(Method::Full)).max_grad_norm(Some(1e-3));
    let mut batch = Batch::start(&make, &cases(DType::F64), config).expect("valid");
    let report = batch.step(1).expect("steps");
    assert!((report.grad_clip * report.grad_norm - 1e-3).abs() < 1e-15);
    let adapter = batch.run.optimizer.adapters()[0].report;
    assert_eq!((adapter.step, adapter.clip), (1, 1.0));
    assert_eq!(
        (adapter.update_norm, adapter.relative_update),
        (PerFactor::default(), PerFactor::default())
    );
    assert!(adapter.equivalent_norm.is_nan());
}

/// A script around the program is no place to hide: its children go with it.
#[cfg(target_os = "linux")]
#[test]
fn what_a_child_has_started_is_killed_too() {
    let quick = Limits {
        time: Duration::from_millis(300),
        ..limits()
    };
    let error = Remote::start("sh -c 'sleep 100 & echo pid $! >&2; wait'", quick);
    let words = error.err().expect("refused").to_string();
    let pid = words.rsplit(' ').next().expect("a number");
    // A zombie that is not collected yet has no memory map.
    let gone = || std::fs::read(format!("/proc/{pid}/maps")).is_ok_and(|maps| maps.is_empty());
    let end = Instant::now() + Duration::from_secs(5);
    while !gone() && PathBuf::from(format!("/proc/{pid}")).exists() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(Instant::now() < end, "{words}");
}

#[test]
fn a_dropped_child_is_gone() {
    let remote = start("").expect("starts");
    let backend = remote.backend();
    drop(remote);
    let begin = Instant::now();
    drop(backend);
    assert!(begin.elapsed() < Duration::from_secs(2));
}

/// One message per line, as they cross the pipe.
#[test]
fn messages() {
    let run = StepRequest {
        session: 7,
        input: PathBuf::from("/tmp/kit/7-in.safetensors"),
        output: PathBuf::from("/tmp/kit/7-out.safetensors"),
        control: Control {
            lr_factor: 1.0,
            grad_scale: 0.5,
            max_grad_norm: Some(1.0),
            on_non_finite: OnNonFinite::Error,
        },
        adapters: vec![Adapter {
            name: "layers.0.q".into(),
            m: 4,
            n: 3,
            r: 2,
            s: 2.0,
            dtype: DType::F32,
            hyper: Preset::Paper.hyper(),
            t: 1,
            load: false,
        }],
        params: vec![Param {
            name: "bias".into(),
            rows: 1,
            cols: 4,
            dtype: DType::F32,
            hyper: Preset::Paper.hyper().damping(Damping::None),
            t: 1,
            load: false,
        }],
    };
    let requests = [
        Request::Hello {
            protocol: PROTOCOL,
            kit: "0.1.0".into(),
        },
        Request::Describe,
        Request::Run(run),
        Request::End { session: 7 },
        Request::Stop,
    ];
    let mut lines: Vec<String> = requests
        .iter()
        .map(|request| serde_json::to_string(request).expect("JSON"))
        .collect();
    for (line, request) in lines.iter().zip(&requests) {
        assert_eq!(
            &serde_json::from_str::<Request>(line).expect("read"),
            request
        );
    }
    let stepped = Stepped {
        grad_norm: Some(1.25),
        grad_clip: Some(0.8),
        reports: vec![Report {
            update_norm: Some([0.25, 0.5]),
            relative_update: Some([0.01, 0.02]),
            equivalent_norm: Some(3.0),
            clip: Some(1.0),
        }],
        ..Stepped::default()
    };
    let skipped = Stepped {
        skipped: Some(Skipped {
            adapter: "layers.0.q".into(),
            reason: "grad A[0, 0] is inf".into(),
        }),
        ..Stepped::default()
    };
    let failure = Failure {
        kind: FailureKind::NonFinite,
        adapter: Some("layers.0.q".into()),
        message: "grad A[0, 0] is inf".into(),
    };
    let description = Description {
        methods: vec![Method::Efficient],
        options: vec![Opt::WeightDecay],
        ..Description::of(&reference().manifest(), Stability::KappaSquared)
    };
    lines.push(line(&Answer::Ok(Hello { protocol: PROTOCOL })));
    lines.push(line(&Answer::Ok(description)));
    lines.push(line(&Answer::Ok(stepped)));
    lines.push(line(&Answer::Ok(skipped)));
    lines.push(line(&Answer::<Stepped>::Unsupported("rank 1".into())));
    lines.push(line(&Answer::<Stepped>::Error(failure)));
    insta::assert_snapshot!(lines.join("\n"));
}

fn line(answer: &Answer<impl serde::Serialize>) -> String {
    serde_json::to_string(answer).expect("JSON")
}

/// A script in Python against the reference, on steps that a state saved half-way interrupts.
/// Skipped, with the reason, where its modules are missing.
fn python(script: &str, modules: &str, method: Method) {
    let python = std::env::var("PYTHON").unwrap_or("python3".into());
    let found = Command::new(&python)
        .args(["-c", &format!("import {modules}")])
        .output();
    if !found.is_ok_and(|output| output.status.success()) {
        println!("skipped: there is no {python} with {modules}");
        return;
    }
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("python/examples");
    let command = format!("'{python}' '{}'", folder.join(script).display());
    let remote = Remote::start(&command, Limits::default()).expect("starts");
    let config = hyper(method).amsgrad(false).damping(Damping::None);
    let cases = cases(DType::F64);
    let make = || remote.backend();
    let mut there = Batch::start(&make, &cases, config).expect("valid");
    let mut here = Batch::start(&reference, &cases, config).expect("valid");
    for t in 1..=6 {
        there.step(t).expect("steps");
        here.step(t).expect("steps");
        if t == 3 {
            there = there.moved_to(&make).expect("loads");
        }
    }
    for (x, y) in there.run.adapters.iter().zip(&here.run.adapters) {
        let (x, y) = (x.factors(), y.factors());
        let off = (&x.a - &y.a).norm() / y.a.norm() + (&x.b - &y.b).norm() / y.b.norm();
        assert!(off < 1e-9, "{off}");
    }
}

#[test]
fn functions_in_numpy() {
    python(
        "numpy_efficient.py",
        "numpy, safetensors",
        Method::Efficient,
    );
}

#[test]
fn optimizers_in_torch() {
    python("torch_adamw.py", "torch, safetensors", Method::Lora);
}
