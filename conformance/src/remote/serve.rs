//! The child's side for backends in Rust: a program that calls [`serve`] can be tested like any
//! other child.

use std::collections::HashMap;
use std::io::{self, BufRead, Write};

use lora_pro_core::backend::{
    AdapterSlot, Control, ParamSlot, Slots, State, StateTensor, StepIo, adapter_layout,
    param_layout,
};
use lora_pro_core::{
    AdapterId, AdapterIo, AdapterReport, AdapterSpec, Backend, Error, HostTensor, ParamId, ParamIo,
    ParamSpec, PerFactor, Scale, StepReport,
};
use serde::Serialize;

use super::Description;
use super::protocol::{
    Adapter, Answer, Done, Failure, FailureKind, Hello, PROTOCOL, Param, Report, Request, Skipped,
    StepRequest, Stepped,
};
use super::tensors::StepFile;

/// Answers every message with this backend until `stop` or the end of the input.
///
/// # Errors
/// What reading and writing gives; what a step gives goes to the other side.
pub fn serve(
    backend: &mut dyn Backend,
    description: &Description,
    input: impl BufRead,
    mut output: impl Write,
) -> io::Result<()> {
    let mut sessions: HashMap<u64, Session> = HashMap::new();
    for line in input.lines() {
        let answer = match serde_json::from_str(&line?) {
            Ok(Request::Hello { .. }) => line_of(&Answer::Ok(Hello { protocol: PROTOCOL })),
            Ok(Request::Describe) => line_of(&Answer::Ok(description)),
            Ok(Request::Run(run)) => {
                let session = sessions.entry(run.session).or_default();
                line_of(&session.run(backend, &run))
            }
            Ok(Request::End { session }) => {
                sessions.remove(&session);
                line_of(&Answer::Ok(Done {}))
            }
            Ok(Request::Stop) => return Ok(()),
            Err(error) => line_of(&Answer::<Done>::Error(other(error.to_string()))),
        };
        writeln!(output, "{}", answer?)?;
        output.flush()?;
    }
    Ok(())
}

fn line_of(answer: &Answer<impl Serialize>) -> io::Result<String> {
    Ok(serde_json::to_string(answer)?)
}

/// What is kept of a session: slots as core's front has them.
#[derive(Default)]
struct Session {
    adapters: Vec<AdapterSlot>,
    params: Vec<ParamSlot>,
}

impl Session {
    fn run(&mut self, backend: &mut dyn Backend, run: &StepRequest) -> Answer<Stepped> {
        match self.step(backend, run) {
            Ok(stepped) => Answer::Ok(stepped),
            Err(error) => refusal(error, run),
        }
    }

    fn step(&mut self, backend: &mut dyn Backend, run: &StepRequest) -> Result<Stepped, Error> {
        let tensors = StepFile::load(&run.input);
        let mut tensors = tensors.map_err(|reason| Error::file(&run.input, reason))?;
        let mut adapters = Vec::new();
        for (k, adapter) in run.adapters.iter().enumerate() {
            let mut take = taker(run, &mut tensors, format!("{k}."));
            let id = self.adapter_index(backend, adapter)?;
            let state = &mut self.adapters[id].state;
            prepare(backend, state, adapter.t, adapter.load, &mut take)?;
            adapters.push(FactorPair::read(id, adapter, &mut take)?);
        }
        let mut params = Vec::new();
        for (k, param) in run.params.iter().enumerate() {
            let mut take = taker(run, &mut tensors, format!("param.{k}."));
            let id = self.param(backend, param)?;
            let state = &mut self.params[id].state;
            prepare(backend, state, param.t, param.load, &mut take)?;
            let (value, grad) = (take("value")?, take("grad")?);
            params.push(Single { id, value, grad });
        }
        let io = StepIo {
            adapters: &mut adapters.iter_mut().map(FactorPair::io).collect::<Vec<_>>(),
            params: &mut params.iter_mut().map(Single::io).collect::<Vec<_>>(),
        };
        let report = backend.step(self.slots(), io, &control(run))?;
        backend.sync(self.slots())?;
        if report.skipped.is_none() {
            let after = self.after(backend, &adapters, &params)?;
            let saved = after.save(&run.output);
            saved.map_err(|reason| Error::file(&run.output, reason))?;
        }
        let reports = adapters
            .iter()
            .map(|adapter| self.adapters[adapter.id].report);
        Ok(report_message(&report, reports, run))
    }

    fn slots(&mut self) -> Slots<'_> {
        Slots {
            adapters: &mut self.adapters,
            params: &mut self.params,
        }
    }

    /// Place of the adapter's slot, made where it is new.
    fn adapter_index(
        &mut self,
        backend: &mut dyn Backend,
        adapter: &Adapter,
    ) -> Result<usize, Error> {
        let known = |slot: &AdapterSlot| slot.spec.name == adapter.name;
        if let Some(id) = self.adapters.iter().position(known) {
            return Ok(id);
        }
        let spec = AdapterSpec::new(adapter.name.clone(), adapter.m, adapter.n, adapter.r)
            .scale(Scale::Explicit(adapter.s))
            .dtype(adapter.dtype);
        let state = state(backend, adapter_layout(&spec, &adapter.hyper))?;
        self.adapters.push(AdapterSlot {
            spec,
            hyper: adapter.hyper,
            state,
            report: AdapterReport::default(),
        });
        Ok(self.adapters.len() - 1)
    }

    /// Place of the parameter's slot, made where it is new.
    fn param(&mut self, backend: &mut dyn Backend, param: &Param) -> Result<usize, Error> {
        let known = |slot: &ParamSlot| slot.spec.name == param.name;
        if let Some(id) = self.params.iter().position(known) {
            return Ok(id);
        }
        let spec = ParamSpec::new(param.name.clone(), param.rows, param.cols).dtype(param.dtype);
        let state = state(backend, param_layout(&spec, &param.hyper))?;
        let hyper = param.hyper;
        self.params.push(ParamSlot { spec, hyper, state });
        Ok(self.params.len() - 1)
    }

    /// Everything that the step has changed.
    fn after(
        &self,
        backend: &dyn Backend,
        adapters: &[FactorPair],
        params: &[Single],
    ) -> Result<StepFile, Error> {
        let mut after = StepFile::default();
        for (k, adapter) in adapters.iter().enumerate() {
            after.put(format!("{k}.A"), &adapter.a.view());
            after.put(format!("{k}.B"), &adapter.b.view());
            if let Some(base) = &adapter.base {
                after.put(format!("{k}.W0"), &base.view());
            }
            let state = &self.adapters[adapter.id].state;
            show(backend, state, &format!("{k}."), &mut after)?;
        }
        for (k, param) in params.iter().enumerate() {
            after.put(format!("param.{k}.value"), &param.value.view());
            let state = &self.params[param.id].state;
            show(backend, state, &format!("param.{k}."), &mut after)?;
        }
        Ok(after)
    }
}

/// The tensors of one adapter.
struct FactorPair {
    id: usize,
    a: HostTensor,
    b: HostTensor,
    grad_a: HostTensor,
    grad_b: HostTensor,
    base: Option<HostTensor>,
}

impl FactorPair {
    fn read(id: usize, adapter: &Adapter, take: &mut Take<'_>) -> Result<Self, Error> {
        let base = adapter.hyper.decay_base.then(|| take("W0"));
        Ok(FactorPair {
            id,
            a: take("A")?,
            b: take("B")?,
            grad_a: take("grad_A")?,
            grad_b: take("grad_B")?,
            base: base.transpose()?,
        })
    }

    fn io(&mut self) -> AdapterIo<'_> {
        AdapterIo::new(
            AdapterId::from_index(self.id),
            self.a.view_mut(),
            self.b.view_mut(),
            self.grad_a.view(),
            self.grad_b.view(),
        )
        .w0(self.base.as_mut().map(HostTensor::view_mut))
    }
}

/// The tensors of one parameter.
struct Single {
    id: usize,
    value: HostTensor,
    grad: HostTensor,
}

impl Single {
    fn io(&mut self) -> ParamIo<'_> {
        ParamIo::new(
            ParamId::from_index(self.id),
            self.value.view_mut(),
            self.grad.view(),
        )
    }
}

/// Takes a tensor of one adapter or parameter out of the input file.
type Take<'t> = dyn FnMut(&str) -> Result<HostTensor, Error> + 't;

fn taker<'t>(
    run: &'t StepRequest,
    tensors: &'t mut StepFile,
    prefix: String,
) -> impl FnMut(&str) -> Result<HostTensor, Error> + 't {
    move |name| {
        let taken = tensors.take(&format!("{prefix}{name}"));
        taken.map_err(|reason| Error::file(&run.input, reason))
    }
}

fn control(run: &StepRequest) -> Control {
    Control {
        lr_factor: run.control.lr_factor,
        grad_scale: run.control.grad_scale,
        max_grad_norm: run.control.max_grad_norm,
        on_non_finite: run.control.on_non_finite,
        stream: 0,
    }
}

fn state(backend: &mut dyn Backend, layout: Vec<StateTensor>) -> Result<State, Error> {
    let tensors = layout.into_iter();
    let tensors = tensors.map(|tensor| Ok((tensor, backend.allocate(&tensor)?)));
    Ok(State {
        step: 0,
        tensors: tensors.collect::<Result<_, Error>>()?,
    })
}

/// The counter is the other side's, and so is the state where it says so.
fn prepare(
    backend: &mut dyn Backend,
    state: &mut State,
    t: u64,
    load: bool,
    take: &mut Take<'_>,
) -> Result<(), Error> {
    state.step = t.saturating_sub(1);
    if load {
        for (tensor, buffer) in &mut state.tensors {
            backend.upload(tensor, buffer, take(tensor.name())?.bytes())?;
        }
    }
    Ok(())
}

fn show(
    backend: &dyn Backend,
    state: &State,
    prefix: &str,
    after: &mut StepFile,
) -> Result<(), Error> {
    for (tensor, buffer) in &state.tensors {
        let bytes = backend.download(tensor, buffer)?;
        after.put_state(format!("{prefix}{}", tensor.name()), tensor, &bytes);
    }
    Ok(())
}

/// The report as a message. A number that JSON cannot write is left out.
fn report_message(
    report: &StepReport,
    reports: impl Iterator<Item = AdapterReport>,
    run: &StepRequest,
) -> Stepped {
    let finite = |x: f64| x.is_finite().then_some(x);
    let both =
        |of: PerFactor| Some(of.into()).filter(|of: &[f64; 2]| of.iter().all(|x| x.is_finite()));
    Stepped {
        skipped: report.skipped.as_ref().map(|skip| Skipped {
            adapter: name_in(&skip.subject, run).unwrap_or_else(|| skip.subject.clone()),
            reason: skip.reason.clone(),
        }),
        grad_norm: finite(report.grad_norm),
        grad_clip: finite(report.grad_clip),
        reports: reports
            .map(|report| Report {
                update_norm: both(report.update_norm),
                relative_update: both(report.relative_update),
                equivalent_norm: finite(report.equivalent_norm),
                clip: finite(report.clip),
            })
            .collect(),
    }
}

/// What an error says to the other side.
fn refusal(error: Error, run: &StepRequest) -> Answer<Stepped> {
    match &error {
        Error::Unsupported { what, .. } => Answer::Unsupported(what.clone()),
        Error::NonFinite {
            subject,
            tensor,
            row,
            col,
            value,
        } => Answer::Error(Failure {
            kind: FailureKind::NonFinite,
            adapter: name_in(subject, run),
            message: format!("{tensor}[{row}, {col}] is {value}"),
        }),
        _ => Answer::Error(other(error.to_string())),
    }
}

fn other(message: String) -> Failure {
    Failure {
        kind: FailureKind::Other,
        adapter: None,
        message,
    }
}

/// The name that an error's subject quotes.
fn name_in(subject: &str, run: &StepRequest) -> Option<String> {
    let adapters = run.adapters.iter().map(|adapter| &adapter.name);
    let mut names = adapters.chain(run.params.iter().map(|param| &param.name));
    let quoted = |name: &&String| subject.ends_with(&format!(" `{name}`"));
    names.find(quoted).cloned()
}
