//! The front: what can be set between steps, what is saved, and that an error changes nothing.

use lora_pro_core::{
    AdapterId, AdapterIo, AdapterSpec, Config, DType, Error, Factor, HostTensor, Hyper, Method,
    Moment, Optimizer, ParamIo, ParamSpec, Preset, Rounding, Scale, Schedule, StateKind,
    TensorData, TensorFile,
};
use lora_pro_reference::ReferenceBackend;

/// An optimizer with one adapter (4 x 3, rank 2) in the group `q` and one unpaired parameter, and
/// their tensors.
struct Model {
    optimizer: Optimizer,
    tensors: [HostTensor; 3],
}

impl Model {
    fn new(config: Config) -> Self {
        let mut optimizer = Optimizer::new(ReferenceBackend::new(), config).unwrap();
        let spec = AdapterSpec::new("layers.0.q", 4, 3, 2)
            .alpha(4.0)
            .group("q");
        optimizer.add_adapter(spec).unwrap();
        optimizer.add_param(ParamSpec::new("bias", 1, 4)).unwrap();
        let tensor = |rows, cols| {
            let entry = |i: usize, j: usize| ((3 * i + 5 * j) % 7) as f64 / 7.0 - 0.4;
            HostTensor::from_fn(DType::F32, [rows, cols], entry)
        };
        let tensors = [tensor(2, 3), tensor(4, 2), tensor(1, 4)];
        Model { optimizer, tensors }
    }

    /// Steps with gradients equal to the parameters.
    fn step(&mut self) {
        let gradients = self.tensors.clone();
        let [a, b, bias] = &mut self.tensors;
        let adapter = self.optimizer.adapter_id("layers.0.q").unwrap();
        let param = self.optimizer.param_id("bias").unwrap();
        let (grad_a, grad_b) = (gradients[0].view(), gradients[1].view());
        let mut adapters = [AdapterIo::new(
            adapter,
            a.view_mut(),
            b.view_mut(),
            grad_a,
            grad_b,
        )];
        let mut params = [ParamIo::new(param, bias.view_mut(), gradients[2].view())];
        let optimizer = &mut self.optimizer;
        optimizer
            .step_with_params(&mut adapters, &mut params)
            .unwrap();
    }

    fn saved(&mut self) -> TensorFile {
        let mut file = TensorFile::new();
        self.optimizer.save_to(&mut file).unwrap();
        file
    }

    fn adapter(&self) -> AdapterId {
        self.optimizer.adapter_id("layers.0.q").unwrap()
    }
}

fn config() -> Config {
    let hyper = Hyper::default().lr(1e-2);
    Config::from(hyper).group("q", hyper.lr(3e-2))
}

/// The change of A in one step of `model`.
fn update_norm(mut model: Model) -> f64 {
    model.step();
    let id = model.adapter();
    model.optimizer.report(id).unwrap().update_norm.a
}

#[test]
fn a_scale_that_is_set_steps_as_one_that_was_registered() {
    let mut set = Model::new(config());
    let id = set.adapter();
    let before = update_norm(Model::new(config()));
    let message = set.optimizer.set_scale(id, Scale::Explicit(0.0));
    let message = message.unwrap_err().to_string();
    assert!(
        message.starts_with("adapter `layers.0.q`: scale is 0"),
        "{message}"
    );
    assert_eq!(set.optimizer.adapter(id).unwrap().spec.s(), 2.0);

    set.optimizer.set_scale(id, Scale::Explicit(3.0)).unwrap();
    let mut registered = Model::new(config());
    let mut optimizer = Optimizer::new(ReferenceBackend::new(), config()).unwrap();
    let spec = set.optimizer.adapter(id).unwrap().spec.clone();
    optimizer.add_adapter(spec).unwrap();
    optimizer.add_param(ParamSpec::new("bias", 1, 4)).unwrap();
    registered.optimizer = optimizer;
    let (set, registered) = (update_norm(set), update_norm(registered));
    assert_eq!(set, registered);
    assert_ne!(set, before);
}

#[test]
fn what_is_set_steps_as_what_was_configured() {
    let mut set = Model::new(config());
    set.optimizer.set_lr(0.5).unwrap();
    let hyper = set.optimizer.config().groups["q"].lr(0.25);
    set.optimizer.set_hyper(Some("q"), hyper).unwrap();

    let hyper = Hyper::default().lr(0.5);
    let mut configured = Model::new(Config::from(hyper).group("q", hyper.lr(0.25)));
    set.step();
    configured.step();
    assert_eq!(set.tensors, configured.tensors);
    assert_eq!(set.optimizer.config(), configured.optimizer.config());
    assert_eq!(set.saved(), configured.saved());
}

#[test]
fn the_common_rate_is_not_a_groups() {
    let (plain, mut set) = (Model::new(config()), Model::new(config()));
    set.optimizer.set_lr(0.5).unwrap();
    assert_eq!(update_norm(plain), update_norm(set));
}

#[test]
fn the_factor_multiplies_every_rate_and_the_schedule() {
    let linear = Schedule::Linear {
        warmup: 4,
        total: 9,
    };
    let mut scheduled = Model::new(config().schedule(linear));
    scheduled.optimizer.set_lr_factor(2.0).unwrap();
    let mut plain = Model::new(config());
    plain.optimizer.set_lr_factor(0.5).unwrap();
    assert_eq!(update_norm(scheduled), update_norm(plain));
    let mut still = Model::new(config());
    let before = still.tensors.clone();
    still.optimizer.set_lr_factor(0.0).unwrap();
    still.step();
    assert_eq!(still.tensors, before);
}

#[test]
fn an_error_changes_nothing() {
    type Change = fn(&mut Optimizer) -> Result<(), Error>;
    let changes: [(Change, &str); 9] = [
        (|o| o.set_lr(f64::NAN), "lr is NaN"),
        (|o| o.set_lr_factor(f64::NAN), "lr_factor is NaN"),
        (|o| o.set_lr_factor(-1.0), "finite and at least 0"),
        (|o| o.set_grad_scale(0.0), "grad_scale is 0"),
        (
            |o| o.set_hyper(Some("k"), Hyper::default()),
            "configured groups [q]",
        ),
        (
            |o| o.set_hyper(Some("q"), Hyper::default().method(Method::Full)),
            "adapter `layers.0.q`: hyper-parameters is of another state",
        ),
        (
            |o| o.set_hyper(None, Hyper::default().amsgrad(true)),
            "parameter `bias`: hyper-parameters is of another state",
        ),
        (
            |o| o.set_hyper(Some("q"), Hyper::default().rounding(Rounding::Stochastic)),
            "does not support rounding stochastic",
        ),
        (
            |o| o.set_config(Config::from(Preset::Recommended)),
            "group is `q`",
        ),
    ];
    let mut model = Model::new(config());
    model.step();
    let before = model.saved();
    for (change, message) in changes {
        let error = change(&mut model.optimizer).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
        assert_eq!(model.saved(), before, "{error}");
    }
}

#[test]
fn a_step_of_nothing_is_an_error() {
    let mut model = Model::new(config());
    let error = model.optimizer.step(&mut []).unwrap_err().to_string();
    assert!(error.contains("list is empty"), "{error}");
    assert_eq!(model.optimizer.steps(), 0);
}

#[test]
fn a_checkpoint_continues_to_the_last_bit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("optimizer.safetensors");
    let cosine = Schedule::Cosine {
        warmup: 1,
        total: 9,
    };
    let mut model = Model::new(config().schedule(cosine));
    model.optimizer.set_grad_scale(0.125).unwrap();
    model.optimizer.set_lr_factor(0.5).unwrap();
    model.step();
    model.optimizer.save(&path).unwrap();

    let loaded = Optimizer::load(&path, ReferenceBackend::new()).unwrap();
    let mut restored = Model::new(config());
    restored.optimizer.restore(&path).unwrap();
    for optimizer in [loaded, restored.optimizer] {
        let tensors = model.tensors.clone();
        let mut resumed = Model { optimizer, tensors };
        let mut straight = Model::new(config().schedule(cosine));
        straight.optimizer.set_grad_scale(0.125).unwrap();
        straight.optimizer.set_lr_factor(0.5).unwrap();
        straight.step();
        straight.step();
        resumed.step();
        assert_eq!(resumed.tensors, straight.tensors);
        assert_eq!(resumed.saved(), straight.saved());
    }
}

#[test]
fn what_does_not_fit_is_not_restored() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("optimizer.safetensors");
    let mut model = Model::new(config());
    model.step();
    let before = model.saved();
    let mut refused = |file: &TensorFile, message: &str| {
        file.save(&path).unwrap();
        let error = model.optimizer.restore(&path).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
        assert_eq!(model.saved(), before);
    };

    let mut other = Optimizer::new(ReferenceBackend::new(), config()).unwrap();
    other
        .add_adapter(AdapterSpec::new("layers.0.q", 4, 3, 1))
        .unwrap();
    let mut file = TensorFile::new();
    other.save_to(&mut file).unwrap();
    refused(
        &file,
        "its adapters and parameters do not fit this optimizer",
    );

    let full = config().group("q", Hyper::default().method(Method::Efficient));
    let file = Model::new(full).saved();
    refused(&file, "tensor `state.layers.0.q.exp_avg_y` is missing");

    let mut file = before.clone();
    file.document["optimizer"]["grad_scale"] = 0.into();
    refused(&file, "grad_scale is 0");
}

#[test]
fn state_is_given_and_taken_by_kind() {
    let mut model = Model::new(config());
    model.step();
    let (id, kind) = (model.adapter(), StateKind::TangentY);
    let y = model.optimizer.adapter_state(id, kind).unwrap();
    assert_eq!(y.shape, [2, 3]);
    assert!(y.to_vec::<f32>().unwrap().iter().any(|y| *y != 0.0));

    let zero = TensorData::from_slice([2, 3], &[0.0f32; 6]);
    let optimizer = &mut model.optimizer;
    optimizer.set_adapter_state(id, kind, &zero).unwrap();
    optimizer.set_adapter_steps(id, 7).unwrap();
    assert_eq!(optimizer.adapter_state(id, kind).unwrap(), zero);
    assert_eq!(optimizer.adapter(id).unwrap().state.step, 7);
    let bias = optimizer.param_id("bias").unwrap();
    let second = optimizer.param_state(bias, StateKind::Param(Moment::Second));
    optimizer
        .set_param_state(bias, StateKind::Param(Moment::First), &second.unwrap())
        .unwrap();
}

#[test]
fn state_that_does_not_fit_is_an_error() {
    let mut model = Model::new(config());
    model.step();
    let before = model.saved();
    let (id, optimizer) = (model.adapter(), &mut model.optimizer);
    let kind = StateKind::Factor(Moment::First, Factor::A);
    let absent = optimizer.adapter_state(id, kind).unwrap_err().to_string();
    assert!(
        absent.contains("adapter `layers.0.q`: state is exp_avg_a"),
        "{absent}"
    );
    let turned = TensorData::from_slice([3, 2], &[0.0f32; 6]);
    let error = optimizer.set_adapter_state(id, StateKind::TangentY, &turned);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("it must be f32 [2, 3]"), "{error}");
    let unknown = optimizer.report(AdapterId::from_index(1)).unwrap_err();
    assert_eq!(
        unknown.to_string(),
        "adapter number 1 is unknown: 1 are registered"
    );
    assert_eq!(model.saved(), before);
}

#[test]
fn an_error_has_its_source() {
    use std::error::Error as _;
    let error = Optimizer::load("absent.safetensors", ReferenceBackend::new()).unwrap_err();
    let source = error.source().unwrap();
    assert!(source.downcast_ref::<std::io::Error>().is_some());
}
