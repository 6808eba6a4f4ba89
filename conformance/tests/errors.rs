//! The words of errors: they name the adapter, the value and what would have been right.

use lora_pro_conformance::subject::Subject;
use lora_pro_core::{
    AdapterId, AdapterIo, AdapterSpec, Config, DType, Damping, Error, HostTensor, Hyper, Method,
    MomentDType, Optimizer, ParamSpec, Preset, Scale, Schedule,
};
use lora_pro_reference::ReferenceBackend;
use lora_pro_reference::factors::Factors;
use nalgebra::DMatrix;

fn subject() -> Subject {
    Subject::new(
        "reference",
        DType::F64,
        || Box::new(ReferenceBackend::new()),
    )
}

fn spec() -> AdapterSpec {
    let mut spec = subject().spec(&factors());
    spec.name = "layers.0.q".into();
    spec
}

fn factors() -> Factors {
    Factors {
        b: DMatrix::zeros(4, 2),
        a: DMatrix::from_element(2, 3, 1.0),
        s: 2.0,
    }
}

fn optimizer(config: impl Into<Config>) -> Result<Optimizer, Error> {
    Optimizer::new(Box::new(ReferenceBackend::new()), config.into())
}

fn adding(spec: AdapterSpec) -> Error {
    let mut optimizer = optimizer(Preset::Paper).expect("valid");
    optimizer.add_adapter(spec).expect_err("refused")
}

fn configuring(config: impl Into<Config>) -> Error {
    optimizer(config).expect_err("refused")
}

/// The error of one step whose tensors were changed.
fn stepping(spoil: impl Fn(&mut [HostTensor; 4]), hyper: Hyper) -> Error {
    let mut optimizer = optimizer(hyper).expect("valid");
    optimizer.add_adapter(spec()).expect("valid");
    let factors = factors();
    let host = |values: &DMatrix<f64>| subject().host(values);
    let ones = |rows, cols| host(&DMatrix::from_element(rows, cols, 1.0));
    let mut tensors = [host(&factors.a), host(&factors.b), ones(2, 3), ones(4, 2)];
    spoil(&mut tensors);
    let [a, b, grad_a, grad_b] = &mut tensors;
    let io = AdapterIo::new(
        AdapterId::from_index(0),
        a.view_mut(),
        b.view_mut(),
        grad_a.view(),
        grad_b.view(),
    );
    optimizer.step(&mut [io]).expect_err("refused")
}

#[test]
fn adapters() {
    let of_rank = |r| {
        let mut spec = spec();
        spec.r = r;
        spec
    };
    let messages = [
        adding(of_rank(0)),
        adding(of_rank(9)),
        adding(spec().scale(Scale::Explicit(0.0))),
        adding(spec().scale(Scale::Alpha(f64::NAN))),
        adding(spec().group("head")),
    ]
    .map(|error| error.to_string());
    insta::assert_snapshot!(messages.join("\n"));
}

#[test]
fn duplicates() {
    let mut optimizer = optimizer(Preset::Paper).expect("valid");
    optimizer.add_adapter(spec()).expect("valid");
    let bias = |name: &str| ParamSpec::new(name, 1, 4).dtype(DType::F64);
    let messages = [
        optimizer.add_adapter(spec()).expect_err("refused"),
        optimizer
            .add_param(bias("layers.0.q"))
            .expect_err("refused"),
    ]
    .map(|error| error.to_string());
    insta::assert_snapshot!(messages.join("\n"));
}

#[test]
fn configurations() {
    let good = Preset::Paper.hyper();
    let mut grouped = Config::from(good);
    grouped.groups.insert("head".into(), good.beta2(1.0));
    let clipped = Config::from(good).max_grad_norm(Some(-1.0));
    let schedule = Schedule::Cosine {
        warmup: 10,
        total: 5,
    };
    let scheduled = Config::from(good).schedule(schedule);
    let messages = [
        configuring(good.lr(-1e-3)),
        configuring(good.eps(0.0)),
        configuring(good.damping(Damping::Relative(2.0))),
        configuring(good.update_clip(Some(0.0))),
        configuring(good.lr(1.0).weight_decay(3.0)),
        configuring(good.momentum(0.9)),
        configuring(good.method(Method::Sgd).amsgrad(true)),
        configuring(good.method(Method::Sgd).weight_decay(0.1)),
        configuring(grouped),
        configuring(clipped),
        configuring(scheduled),
    ]
    .map(|error| error.to_string());
    insta::assert_snapshot!(messages.join("\n"));
}

#[test]
fn steps() {
    let good = Preset::Paper.hyper();
    let messages = [
        stepping(|tensors| tensors[0].view_mut().set(1, 2, f64::NAN), good),
        stepping(
            |tensors| tensors[3].view_mut().set(3, 0, f64::INFINITY),
            good,
        ),
        stepping(
            |tensors| tensors[2] = HostTensor::zeros(DType::F64, [3, 2]),
            good,
        ),
        stepping(
            |tensors| tensors[1] = HostTensor::zeros(DType::F32, [4, 2]),
            good,
        ),
        stepping(|_| (), good.decay_base(true)),
        stepping(|tensors| tensors[0].view_mut().set(0, 0, 1e200), good),
    ]
    .map(|error| error.to_string());
    insta::assert_snapshot!(messages.join("\n"));
}

#[test]
fn files() {
    let parse = |text: &str| {
        serde_json::from_str::<Config>(text)
            .expect_err("refused")
            .to_string()
    };
    let messages = [
        parse(r#"{ "lrr": 1e-3 }"#),
        parse(r#"{ "method": "fast" }"#),
        parse(r#"{ "groups": { "head": { "learning_rate": 1 } } }"#),
        parse(r#"{ "preset": "best" }"#),
        "absolute"
            .parse::<Damping>()
            .expect_err("refused")
            .to_string(),
        "slow".parse::<Method>().expect_err("refused").to_string(),
        "f8".parse::<DType>().expect_err("refused").to_string(),
        "int8"
            .parse::<MomentDType>()
            .expect_err("refused")
            .to_string(),
    ];
    insta::assert_snapshot!(messages.join("\n"));
}
