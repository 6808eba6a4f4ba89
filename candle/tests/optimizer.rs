//! candle's variables are stepped as core steps host tensors, and saved with the state.

use candle_core::{DType, Device::Cpu, Module, Tensor, Var};
use candle_nn::{Linear, Optimizer as _};
use lora_pro::{
    AdapterIo, AdapterSpec, Config, HostTensor, Hyper, Optimizer, ReferenceBackend, Scale,
};
use lora_pro_candle::{LoraLinear, LoraPro, LoraProConfig, bridge};

fn layer(dtype: DType) -> LoraLinear {
    let frozen = Tensor::arange(0f32, 12., &Cpu)
        .unwrap()
        .reshape((4, 3))
        .unwrap();
    let frozen = ((frozen / 6.).unwrap() - 1.)
        .unwrap()
        .to_dtype(dtype)
        .unwrap();
    LoraLinear::new("q", Linear::new(frozen, None), 2, Scale::Alpha(4.0), 7).unwrap()
}

fn loss(layer: &LoraLinear) -> Tensor {
    let x = Tensor::arange(0f32, 15., &Cpu)
        .unwrap()
        .reshape((5, 3))
        .unwrap();
    let x = (x / 8.).unwrap().to_dtype(layer.a().dtype()).unwrap();
    layer
        .forward(&x)
        .unwrap()
        .sqr()
        .unwrap()
        .mean_all()
        .unwrap()
}

fn optimizer(layer: &LoraLinear) -> LoraPro {
    let config = Config::from(Hyper::default().lr(0.1));
    let mut optimizer = LoraPro::new(ReferenceBackend::new(), config).unwrap();
    optimizer.add_layer(layer).unwrap();
    optimizer
}

fn numbers(layer: &LoraLinear) -> [Vec<u8>; 2] {
    [layer.a(), layer.b()].map(|var| bridge::to_data(var).unwrap().bytes)
}

#[test]
fn it_steps_as_core_steps_the_same_numbers() {
    for dtype in [DType::F64, DType::F32, DType::BF16, DType::F16] {
        let layer = layer(dtype);
        let host = |tensor: &Tensor| {
            let data = bridge::to_data(tensor).unwrap();
            let [rows, cols] = bridge::matrix_shape(&data.shape);
            HostTensor::from_bytes(data.dtype, [rows, cols], data.bytes).unwrap()
        };
        let gradients = loss(&layer).backward().unwrap();
        let [mut a, mut b] = [layer.a(), layer.b()].map(|var| host(var));
        let [grad_a, grad_b] = [layer.a(), layer.b()].map(|var| host(gradients.get(var).unwrap()));

        let mut on_candle = optimizer(&layer);
        let config = on_candle.optimizer().config().clone();
        on_candle.step(&gradients).unwrap();

        let mut on_host = Optimizer::new(ReferenceBackend::new(), config).unwrap();
        let spec = AdapterSpec::new("q", 4, 3, 2).alpha(4.0).dtype(a.dtype());
        let id = on_host.add_adapter(spec).unwrap();
        let (a_view, b_view) = (a.view_mut(), b.view_mut());
        let io = AdapterIo::new(id, a_view, b_view, grad_a.view(), grad_b.view());
        on_host.step(&mut [io]).unwrap();
        assert_eq!(numbers(&layer), [a.bytes(), b.bytes()], "{dtype:?}");
    }
}

#[test]
fn what_the_caller_writes_between_steps_counts() {
    let (one, two) = (layer(DType::F32), layer(DType::F32));
    let (mut first, mut second) = (optimizer(&one), optimizer(&two));
    first.backward_step(&loss(&one)).unwrap();
    second.backward_step(&loss(&two)).unwrap();
    let other = Tensor::ones((4, 2), DType::F32, &Cpu).unwrap();
    one.b().set(&other).unwrap();
    two.b().set(&other).unwrap();
    first.backward_step(&loss(&one)).unwrap();
    // The same state on variables of its own.
    let file = tempfile::NamedTempFile::new().unwrap();
    second.save(file.path()).unwrap();
    let three = layer(DType::F32);
    let mut third = optimizer(&three);
    third.load(file.path()).unwrap();
    third.backward_step(&loss(&three)).unwrap();
    assert_eq!(numbers(&one), numbers(&three));
}

#[test]
fn a_checkpoint_that_does_not_fit_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    let (large, small) = (layer(DType::F64), layer(DType::F32));
    optimizer(&large).save(&path).unwrap();
    let mut optimizer = optimizer(&small);
    optimizer.backward_step(&loss(&small)).unwrap();
    let before = numbers(&small);
    let error = optimizer.load(&path).unwrap_err().to_string();
    assert!(
        error.contains("tensor `trained.q.lora_A` does not fit: it is f64"),
        "{error}"
    );
    assert_eq!(
        (numbers(&small), optimizer.optimizer().steps()),
        (before, 1)
    );
}

#[test]
fn what_the_loss_does_not_use_stays() {
    let layer = layer(DType::F32);
    let mut optimizer = optimizer(&layer);
    let unused = Var::ones((2, 3, 4), DType::F32, &Cpu).unwrap();
    optimizer.add_var("conv", &unused).unwrap();
    optimizer.backward_step(&loss(&layer)).unwrap();
    assert_eq!(optimizer.optimizer().params()[0].state.step, 0);
    let total = (loss(&layer) + unused.transpose(0, 2).unwrap().sqr().unwrap().sum_all()).unwrap();
    optimizer.backward_step(&total).unwrap();
    let stepped = unused.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert!(stepped.iter().all(|x| *x < 1.0));

    let other = Var::ones(3, DType::F32, &Cpu).unwrap();
    let error = optimizer
        .backward_step(&other.sum_all().unwrap())
        .unwrap_err();
    assert!(error.to_string().contains("list is empty"), "{error}");
}

#[test]
fn one_variable_is_registered_once() {
    let layer = layer(DType::F32);
    let error = optimizer(&layer).add_var("tied", layer.a()).unwrap_err();
    let expected = "parameter `tied` has a variable that is registered already";
    assert_eq!(error.to_string(), expected);
}

/// A loop that knows candle's trait alone.
fn train<O: candle_nn::Optimizer>(vars: Vec<Var>, config: O::Config, layer: &LoraLinear) -> O {
    let mut optimizer = O::new(vars, config).unwrap();
    for _ in 0..3 {
        optimizer.backward_step(&loss(layer)).unwrap();
    }
    optimizer
}

#[test]
fn it_is_an_optimizer_of_candles() {
    let layer = layer(DType::F32);
    let bias = Var::zeros(4, DType::F32, &Cpu).unwrap();
    let vars = vec![layer.a().clone(), bias, layer.b().clone()];
    let config = LoraProConfig {
        backend: Box::new(ReferenceBackend::new()),
        config: Config::from(Hyper::default().lr(0.1)),
        layers: vec![layer.clone()],
    };
    let before = loss(&layer).to_scalar::<f32>().unwrap();
    let mut optimizer: LoraPro = train(vars, config, &layer);
    assert!(loss(&layer).to_scalar::<f32>().unwrap() < before);
    assert_eq!(optimizer.optimizer().params()[0].spec.name, "param.0");

    optimizer.set_learning_rate(0.5);
    assert_eq!(optimizer.learning_rate(), 0.5);
    optimizer.set_learning_rate(f64::NAN);
    assert_eq!(optimizer.learning_rate(), 0.5);
    let error = optimizer
        .backward_step(&loss(&layer))
        .unwrap_err()
        .to_string();
    assert!(error.contains("lr is NaN"), "{error}");
    optimizer.backward_step(&loss(&layer)).unwrap();
}
