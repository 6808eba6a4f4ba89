//! The state of a method by type. It is fetched by exhaustive matches, so that a new method is a
//! compile error here, and what is missing or of another type is an error before a step writes.

use lora_pro_core::backend::{Factor, Moment, State, StateKind, foreign_buffer};
use lora_pro_core::{AdapterSpec, DType, Error, Hyper, Method, MomentDType, ParamSpec, Rounding};

use crate::NAME;
use crate::codes::Code;
use crate::panel::{Panel, WideMatrix};
use crate::parallel::{Splittable, splittable};
use crate::rounding::Seed;
use crate::simd::Real;
use crate::state::StateMemory;
use crate::storage::Storage;

/// Adam's moments, each in an `X`.
pub(crate) struct AdamMoments<X> {
    pub(crate) first: X,
    pub(crate) second: X,
    /// With AMSGrad.
    pub(crate) max_second: Option<X>,
}

splittable!([P: Splittable] AdamMoments<P> { first, second, max_second });

impl<X> AdamMoments<X> {
    pub(crate) fn map<Y>(self, mut each: impl FnMut(X) -> Y) -> AdamMoments<Y> {
        AdamMoments {
            first: each(self.first),
            second: each(self.second),
            max_second: self.max_second.map(each),
        }
    }

    #[inline(always)]
    pub(crate) fn as_mut(&mut self) -> AdamMoments<&mut X> {
        AdamMoments {
            first: &mut self.first,
            second: &mut self.second,
            max_second: self.max_second.as_mut(),
        }
    }
}

/// What the factored mode remembers of one side.
pub(crate) struct TangentState<'s, T> {
    /// Y, or Z'.
    pub(crate) y: &'s mut Panel<T>,
    /// Means of E.E over the other dimension, 1 x the side's.
    pub(crate) means: &'s mut Panel<T>,
    /// The largest means so far, with AMSGrad.
    pub(crate) max_means: Option<&'s mut Panel<T>>,
}

/// An 8-bit moment: codes with a scale for each tile.
pub(crate) struct QuantizedMatrix<'s> {
    pub(crate) codes: &'s mut WideMatrix<u8>,
    pub(crate) scales: &'s mut Vec<f32>,
    pub(crate) code: Code,
    pub(crate) seed: Seed,
}

/// The full mode's moments, m x n.
pub(crate) enum WideMoments<'s, T> {
    /// Stored as computed.
    Exact(AdamMoments<&'s mut WideMatrix<T>>),
    /// f32 moments of f64 parameters.
    F32(AdamMoments<&'s mut WideMatrix<f32>>),
    Bf16(AdamMoments<&'s mut WideMatrix<half::bf16>>),
    EightBit(AdamMoments<QuantizedMatrix<'s>>),
}

/// What a method remembers, by side where it is of the factors.
pub(crate) enum MethodState<'s, T> {
    Lora([AdamMoments<&'s mut Panel<T>>; 2]),
    /// With momentum.
    Sgd(Option<[&'s mut Panel<T>; 2]>),
    Efficient([AdamMoments<&'s mut Panel<T>>; 2]),
    Factored([TangentState<'s, T>; 2]),
    Full(WideMoments<'s, T>),
}

/// Master copies of A and B'; none for f32, f64, and other roundings.
pub(crate) type Masters<'s> = [Option<&'s mut Panel<f32>>; 2];

/// All that is remembered of one adapter.
pub(crate) struct AdapterState<'s, T> {
    pub(crate) method: MethodState<'s, T>,
    pub(crate) masters: Masters<'s>,
}

/// All that is remembered of one unpaired parameter.
pub(crate) struct ParamState<'s, T> {
    pub(crate) moments: AdamMoments<&'s mut WideMatrix<T>>,
    pub(crate) master: Option<&'s mut WideMatrix<f32>>,
}

/// A number type that moments are computed in.
pub(crate) trait MomentElement: Real {
    const DTYPE: DType;

    fn thin_panel(memory: &mut StateMemory) -> Option<&mut Panel<Self>>;
    fn wide_matrix(memory: &mut StateMemory) -> Option<&mut WideMatrix<Self>>;
}

macro_rules! moment_element {
    ($type:ty, $dtype:expr, $thin:path, $wide:path) => {
        impl MomentElement for $type {
            const DTYPE: DType = $dtype;

            fn thin_panel(memory: &mut StateMemory) -> Option<&mut Panel<Self>> {
                match memory {
                    $thin(panel) => Some(panel),
                    _ => None,
                }
            }

            fn wide_matrix(memory: &mut StateMemory) -> Option<&mut WideMatrix<Self>> {
                match memory {
                    $wide(matrix) => Some(matrix),
                    _ => None,
                }
            }
        }
    };
}

moment_element!(f32, DType::F32, StateMemory::ThinF32, StateMemory::WideF32);
moment_element!(f64, DType::F64, StateMemory::ThinF64, StateMemory::WideF64);

impl<'s, T: MomentElement> AdapterState<'s, T> {
    /// The state of an adapter, to write.
    ///
    /// # Errors
    /// [`Error::Backend`] for memory of another backend, and where a tensor that the method needs
    /// is missing or of another type.
    pub(crate) fn of(
        spec: &AdapterSpec,
        hyper: &Hyper,
        state: &'s mut State,
    ) -> Result<Self, Error> {
        let t = state.step + 1;
        let mut tensors = StateTensors::of(state)?;
        let method = match hyper.method {
            Method::Lora => MethodState::Lora(tensors.factor_moments(hyper)?),
            Method::Sgd if hyper.momentum == 0.0 => MethodState::Sgd(None),
            Method::Sgd => MethodState::Sgd(Some([
                tensors.thin(StateKind::Momentum(Factor::A))?,
                tensors.thin(StateKind::Momentum(Factor::B))?,
            ])),
            Method::Efficient => MethodState::Efficient(tensors.factor_moments(hyper)?),
            Method::Factored => MethodState::Factored(tensors.tangent(hyper)?),
            Method::Full => {
                let seeds = [8, 9, 10].map(|tensor| Seed::new(&spec.name, tensor, t));
                MethodState::Full(tensors.wide_moments(hyper, seeds)?)
            }
        };
        let masters = tensors.masters(spec.dtype, hyper)?;
        Ok(AdapterState { method, masters })
    }
}

/// The master copies alone, for the pass that reads A and B before the method is known to step.
pub(crate) fn masters<'s>(
    spec: &AdapterSpec,
    hyper: &Hyper,
    state: &'s mut State,
) -> Result<Masters<'s>, Error> {
    StateTensors::of(state)?.masters(spec.dtype, hyper)
}

impl<'s, T: MomentElement> ParamState<'s, T> {
    /// The state of a parameter, to write.
    ///
    /// # Errors
    /// As for [`AdapterState::of`].
    pub(crate) fn of(spec: &ParamSpec, hyper: &Hyper, state: &'s mut State) -> Result<Self, Error> {
        let mut tensors = StateTensors::of(state)?;
        let [first, second, max_second] = Moment::ALL.map(StateKind::Param);
        Ok(ParamState {
            moments: AdamMoments {
                first: tensors.wide(first)?,
                second: tensors.wide(second)?,
                max_second: when(hyper.amsgrad, || tensors.wide(max_second))?,
            },
            master: when(has_master(spec.dtype, hyper), || {
                tensors.wide(StateKind::ParamMaster)
            })?,
        })
    }
}

/// Whether a tensor of this type has a master copy.
fn has_master(dtype: DType, hyper: &Hyper) -> bool {
    let short = match Storage::of(dtype) {
        Some(Storage::Bf16 | Storage::F16) => true,
        Some(Storage::F64 | Storage::F32) | None => false,
    };
    short && hyper.rounding == Rounding::MasterCopy
}

/// A tensor that is there on a condition.
fn when<X>(there: bool, fetch: impl FnOnce() -> Result<X, Error>) -> Result<Option<X>, Error> {
    there.then(fetch).transpose()
}

/// The tensors of one state, each to be taken once.
struct StateTensors<'s>([Option<(StateKind, &'s mut StateMemory)>; StateKind::ALL.len()]);

impl<'s> StateTensors<'s> {
    fn of(state: &'s mut State) -> Result<Self, Error> {
        let mut all = [const { None }; StateKind::ALL.len()];
        for (place, (tensor, buffer)) in all.iter_mut().zip(&mut state.tensors) {
            let memory = buffer.get_mut::<StateMemory>();
            let memory = memory.ok_or_else(|| foreign_buffer(NAME, tensor.kind))?;
            *place = Some((tensor.kind, memory));
        }
        Ok(StateTensors(all))
    }

    fn take(&mut self, kind: StateKind) -> Result<&'s mut StateMemory, Error> {
        let mut all = self.0.iter_mut();
        let found = all.find(|place| place.as_ref().is_some_and(|(found, _)| *found == kind));
        match found.and_then(Option::take) {
            Some((_, memory)) => Ok(memory),
            None => Err(unusable(kind, "is missing")),
        }
    }

    fn thin<T: MomentElement>(&mut self, kind: StateKind) -> Result<&'s mut Panel<T>, Error> {
        T::thin_panel(self.take(kind)?).ok_or_else(|| unusable(kind, "is of another type"))
    }

    fn wide<T: MomentElement>(&mut self, kind: StateKind) -> Result<&'s mut WideMatrix<T>, Error> {
        T::wide_matrix(self.take(kind)?).ok_or_else(|| unusable(kind, "is of another type"))
    }

    fn bf16(&mut self, kind: StateKind) -> Result<&'s mut WideMatrix<half::bf16>, Error> {
        match self.take(kind)? {
            StateMemory::WideBf16(matrix) => Ok(matrix),
            _ => Err(unusable(kind, "is of another type")),
        }
    }

    fn quantized(&mut self, moment: Moment, seed: Seed) -> Result<QuantizedMatrix<'s>, Error> {
        let (kind, scales) = (StateKind::Weight(moment), StateKind::WeightScale(moment));
        let code = match moment {
            Moment::First => Code::Signed,
            Moment::Second | Moment::MaxSecond => Code::Positive,
        };
        match (self.take(kind)?, self.take(scales)?) {
            (StateMemory::Codes(codes), StateMemory::Scales(scales)) => Ok(QuantizedMatrix {
                codes,
                scales,
                code,
                seed,
            }),
            _ => Err(unusable(kind, "is of another type")),
        }
    }

    /// The moments of both factors.
    fn factor_moments<T: MomentElement>(
        &mut self,
        hyper: &Hyper,
    ) -> Result<[AdamMoments<&'s mut Panel<T>>; 2], Error> {
        let mut of = |factor| {
            let kind = |moment| StateKind::Factor(moment, factor);
            moments(hyper, |moment| self.thin(kind(moment)))
        };
        Ok([of(Factor::A)?, of(Factor::B)?])
    }

    fn tangent<T: MomentElement>(
        &mut self,
        hyper: &Hyper,
    ) -> Result<[TangentState<'s, T>; 2], Error> {
        use StateKind::{ColMeans, MaxColMeans, MaxRowMeans, RowMeans, TangentY, TangentZ};
        let mut of = |y, means, max_means| {
            Ok(TangentState {
                y: self.thin(y)?,
                means: self.thin(means)?,
                max_means: when(hyper.amsgrad, || self.thin(max_means))?,
            })
        };
        Ok([
            of(TangentY, ColMeans, MaxColMeans)?,
            of(TangentZ, RowMeans, MaxRowMeans)?,
        ])
    }

    fn wide_moments<T: MomentElement>(
        &mut self,
        hyper: &Hyper,
        [first, second, max_second]: [Seed; 3],
    ) -> Result<WideMoments<'s, T>, Error> {
        let kind = StateKind::Weight;
        Ok(match hyper.moment_dtype {
            MomentDType::F32 if T::DTYPE != DType::F32 => {
                WideMoments::F32(moments(hyper, |moment| self.wide(kind(moment)))?)
            }
            MomentDType::Auto | MomentDType::F64 | MomentDType::F32 => {
                WideMoments::Exact(moments(hyper, |moment| self.wide(kind(moment)))?)
            }
            MomentDType::Bf16 => {
                WideMoments::Bf16(moments(hyper, |moment| self.bf16(kind(moment)))?)
            }
            MomentDType::EightBit => WideMoments::EightBit(moments(hyper, |moment| {
                let seed = match moment {
                    Moment::First => first,
                    Moment::Second => second,
                    Moment::MaxSecond => max_second,
                };
                self.quantized(moment, seed)
            })?),
        })
    }

    fn masters(&mut self, dtype: DType, hyper: &Hyper) -> Result<Masters<'s>, Error> {
        let mut of = |factor| {
            when(has_master(dtype, hyper), || {
                self.thin(StateKind::Master(factor))
            })
        };
        Ok([of(Factor::A)?, of(Factor::B)?])
    }
}

/// Adam's moments by kind, the third with AMSGrad.
fn moments<X>(
    hyper: &Hyper,
    mut fetch: impl FnMut(Moment) -> Result<X, Error>,
) -> Result<AdamMoments<X>, Error> {
    Ok(AdamMoments {
        first: fetch(Moment::First)?,
        second: fetch(Moment::Second)?,
        max_second: when(hyper.amsgrad, || fetch(Moment::MaxSecond))?,
    })
}

fn unusable(kind: StateKind, why: &str) -> Error {
    Error::backend(NAME, format!("state tensor `{kind}` {why}"))
}
