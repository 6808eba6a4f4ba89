//! Adapters and parameters in device memory, and everything they consist of as bits.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use lora_pro_conformance::sample::{CaseSpec, uniform};
use lora_pro_core::{
    AdapterId, AdapterIo, AdapterSpec, Config, DType, Error, HostTensor, Hyper, Method,
    MomentDType, Optimizer, ParamId, ParamIo, ParamSpec, Rounding, Scale, StepReport, TensorFile,
};
use lora_pro_cuda::{CudaBackend, GraphParameters, Options};
use lora_pro_reference::storage::host;

use crate::common::device_view::DeviceView;
use crate::common::layout::Layout;
use crate::common::{Bits, METHODS, hyper, name};
use crate::counting::Counting;

/// An adapter that is to be, and whether an unpaired parameter is stepped beside it. The name
/// follows from the seed.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    pub spec: CaseSpec,
    pub hyper: Hyper,
    pub unpaired: bool,
}

/// An adapter, and perhaps a parameter: of its storage type, and in its group.
pub struct Member {
    pub part: Part,
    id: AdapterId,
    param_id: Option<ParamId>,
    pub tensors: BTreeMap<&'static str, DeviceView>,
}

/// What a step writes, and what it only reads.
const WRITTEN: [&str; 4] = ["A", "B", "W0", "value"];
const READ: [&str; 3] = ["grad A", "grad B", "grad"];

pub struct TestModel {
    pub device: Arc<Counting>,
    pub optimizer: Optimizer,
    pub graph_parameters: GraphParameters,
    pub members: Vec<Member>,
}

/// How the tensor of this name is laid out.
pub type Lay<'l> = &'l dyn Fn(&'static str) -> Layout;

/// Every method in every storage type, with every way to store moments and to round.
pub fn settings() -> Vec<(DType, Hyper)> {
    let mut all = Vec::new();
    for dtype in DType::PARAMETERS {
        for method in METHODS {
            let plain = hyper(method);
            let with_moments = |moment_dtype| plain.moment_dtype(moment_dtype);
            let with_rounding = |rounding| plain.rounding(rounding);
            all.push((dtype, plain));
            if method == Method::Full {
                all.push((dtype, with_moments(MomentDType::Bf16)));
            }
            if method == Method::Full && dtype != DType::F64 {
                all.push((dtype, with_moments(MomentDType::F64)));
                all.push((dtype, with_moments(MomentDType::EightBit)));
            }
            if matches!(dtype, DType::Bf16 | DType::F16) {
                all.push((dtype, with_rounding(Rounding::Stochastic)));
                all.push((dtype, with_rounding(Rounding::MasterCopy)));
            }
        }
    }
    all
}

impl TestModel {
    /// Everything row by row.
    pub fn start(device: &Arc<Counting>, options: Options, parts: &[Part]) -> Self {
        let config = config(parts);
        Self::with(device, options, parts, config, &|_| Layout::Rows).expect("valid")
    }

    pub fn with(
        device: &Arc<Counting>,
        options: Options,
        parts: &[Part],
        config: Config,
        lay: Lay,
    ) -> Result<Self, Error> {
        let backend = CudaBackend::on(device.clone(), options);
        let mut model = TestModel {
            device: device.clone(),
            graph_parameters: backend.graph_parameters(),
            optimizer: Optimizer::new(Box::new(backend), config)?,
            members: vec![],
        };
        for part in parts {
            model.add(*part, lay)?;
        }
        Ok(model)
    }

    /// Registers one more, whose group the configuration knows.
    pub fn add(&mut self, part: Part, lay: Lay) -> Result<(), Error> {
        let spec = &part.spec;
        let group = Some(name(spec));
        let id = self.optimizer.add_adapter({
            let mut spec = AdapterSpec::new(name(spec), spec.m, spec.n, spec.r)
                .scale(Scale::Explicit(spec.s))
                .dtype(spec.dtype);
            spec.group = group.clone();
            spec
        })?;
        let param = {
            let mut spec =
                ParamSpec::new(format!("beside {}", name(spec)), spec.n, spec.r).dtype(spec.dtype);
            spec.group = group;
            spec
        };
        let param_id = match part.unpaired {
            true => Some(self.optimizer.add_param(param)?),
            false => None,
        };
        let put = |(name, tensor)| {
            (
                name,
                DeviceView::new(self.device.clone(), &tensor, lay(name)),
            )
        };
        let tensors = starting(spec).into_iter().chain(gradients(spec, 1));
        let tensors = tensors.map(put).collect();
        self.members.push(Member {
            part,
            id,
            param_id,
            tensors,
        });
        Ok(())
    }

    /// Puts the gradients of step t where those of the last one were.
    pub fn set_gradients(&mut self, which: &[usize], t: u64) {
        for k in which {
            let Member { part, tensors, .. } = &mut self.members[*k];
            for (name, gradient) in gradients(&part.spec, t) {
                tensors.get_mut(name).expect("there is one").put(&gradient);
            }
        }
    }

    /// One step of some members, in this order, with the gradients that are there.
    pub fn step_current(&mut self, which: &[usize]) -> Result<StepReport, Error> {
        let (mut adapters, mut params) = (Vec::new(), Vec::new());
        let mut members: Vec<_> = self.members.iter_mut().map(Some).collect();
        for k in which {
            let member = members[*k].take().expect("listed once");
            let tensors = member.tensors.iter_mut();
            let mut rest: BTreeMap<_, _> = tensors.map(|(name, view)| (*name, view)).collect();
            let mut take = |name: &str| rest.remove(name).expect("there is one");
            adapters.push(
                AdapterIo::new(
                    member.id,
                    take("A").view_mut(),
                    take("B").view_mut(),
                    take("grad A").view(),
                    take("grad B").view(),
                )
                .w0(Some(take("W0").view_mut())),
            );
            let io = |id| ParamIo::new(id, take("value").view_mut(), take("grad").view());
            params.extend(member.param_id.map(io));
        }
        self.optimizer.step_with_params(&mut adapters, &mut params)
    }

    /// One step of some members.
    pub fn step_of(&mut self, which: &[usize], t: u64) -> Result<StepReport, Error> {
        self.set_gradients(which, t);
        self.step_current(which)
    }

    /// One step of all.
    pub fn step(&mut self, t: u64) -> Result<StepReport, Error> {
        self.step_of(&self.all(), t)
    }

    pub fn all(&self) -> Vec<usize> {
        (0..self.members.len()).collect()
    }

    /// All tensors, state and step counters by name; canaries and gradients are as they were.
    pub fn bits(&mut self) -> Bits {
        let saved = self.saved().tensors.into_iter();
        let mut all: Bits = saved.map(|(name, data)| (name, data.bytes)).collect();
        for member in &self.members {
            let owner = name(&member.part.spec);
            for tensor in WRITTEN {
                let laid = member.tensors[tensor].home();
                assert!(laid.guards_intact(), "{owner}: around {tensor}");
                all.insert(format!("{owner}.{tensor}"), laid.tensor().bytes().to_vec());
            }
            for tensor in READ {
                let untouched = member.tensors[tensor].is_untouched();
                assert!(untouched, "{owner}: {tensor} is only read");
            }
        }
        let adapters = self.optimizer.adapters().iter();
        let adapters = adapters.map(|slot| (&slot.spec.name, slot.state.step));
        let params = self.optimizer.params().iter();
        let params = params.map(|slot| (&slot.spec.name, slot.state.step));
        for (name, step) in adapters.chain(params) {
            all.insert(format!("{name}.step"), step.to_le_bytes().to_vec());
        }
        all
    }

    pub fn saved(&mut self) -> TensorFile {
        let mut file = TensorFile::new();
        self.optimizer.save_to(&mut file).expect("saves");
        file
    }

    /// The same tensors with an optimizer loaded from what this one saved.
    pub fn resumed(mut self, options: Options) -> Self {
        let file = self.saved();
        let backend = CudaBackend::on(self.device.clone(), options);
        let loaded = Optimizer::load_from(Box::new(backend), &file, Path::new("checkpoint"));
        self.optimizer = loaded.expect("loads");
        self
    }
}

/// A group for each part, so that methods may be mixed.
pub fn config(parts: &[Part]) -> Config {
    let common = Config::from(hyper(Method::Efficient));
    parts.iter().fold(common, |config, part| {
        config.group(name(&part.spec), part.hyper)
    })
}

/// Which storage type W0 has: not that of the adapter where that is f32.
fn base_dtype(spec: &CaseSpec) -> DType {
    match spec.dtype {
        DType::F32 => DType::Bf16,
        other => other,
    }
}

fn starting(spec: &CaseSpec) -> [(&'static str, HostTensor); 4] {
    let factors = spec.factors();
    let base = uniform(&mut spec.random(101), spec.m, spec.n);
    let value = uniform(&mut spec.random(100), spec.n, spec.r);
    [
        ("A", host(&factors.a, spec.dtype)),
        ("B", host(&factors.b, spec.dtype)),
        ("W0", host(&base, base_dtype(spec))),
        ("value", host(&value, spec.dtype)),
    ]
}

/// The gradients of step t. They do not follow the factors, which stay where they are.
fn gradients(spec: &CaseSpec, t: u64) -> [(&'static str, HostTensor); 3] {
    let pair = spec.gradients(&spec.factors(), t);
    let grad = uniform(&mut spec.random(200 + t), spec.n, spec.r);
    [
        ("grad A", host(&pair.a, spec.dtype)),
        ("grad B", host(&pair.b, spec.dtype)),
        ("grad", host(&grad, spec.dtype)),
    ]
}
