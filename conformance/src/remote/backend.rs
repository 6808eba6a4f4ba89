//! Core's contract, spoken by way of messages.

use std::collections::HashMap;
use std::sync::Arc;

use lora_pro_core::backend::{
    AdapterSlot, Buffer, Control, ParamSlot, Slots, State, StateTensor, StepIo, foreign_buffer,
};
use lora_pro_core::{AdapterIo, Backend, Error, HostTensor, Manifest, MatRef, StepReport};

use super::explain::explain;
use super::protocol::{self, Answer, Done, Request, StepRequest, Stepped};
use super::report::{summary, whole};
use super::tensors::{StepFile, copy};
use super::{Description, Remote, Session, failed, unsupported};

/// One session of a [`Remote`]. Dropping it ends the session.
pub struct RemoteBackend {
    remote: Remote,
    /// None before the first step.
    session: Option<Arc<Session>>,
    /// Why the child's memory and ours may differ, if they may.
    desynchronised: Option<String>,
    /// The steps that the child has taken in this session, by adapter or parameter.
    steps_done: HashMap<String, u64>,
}

/// Memory of a state tensor: the last that the child has shown, or what it is to load.
struct CachedState {
    values: HostTensor,
    uploaded: bool,
}

impl RemoteBackend {
    pub(super) fn new(remote: Remote) -> Self {
        RemoteBackend {
            remote,
            session: None,
            desynchronised: None,
            steps_done: HashMap::new(),
        }
    }

    /// Whether the child shows the state tensor called `name`.
    pub fn exposes(&self, name: &str) -> bool {
        self.description().exposes(name)
    }

    fn description(&self) -> &Description {
        self.remote.description()
    }

    fn name(&self) -> &str {
        &self.description().name
    }

    fn refuse<T>(&self, subject: &str, what: String) -> Result<T, Error> {
        Err(unsupported(subject, self.name(), what))
    }

    /// What the description rules out is not asked for.
    fn check(
        &self,
        slots: &Slots<'_>,
        io: &StepIo<'_, '_>,
        control: &Control,
    ) -> Result<(), Error> {
        if let Some(what) = self.description().lacks_for(control, io.params.len()) {
            return self.refuse("the optimizer", what);
        }
        for adapter in io.adapters.iter() {
            let slot = &slots.adapters[adapter.id.index()];
            if let Some(what) = self.description().lacks(&slot.hyper) {
                return self.refuse(&slot.spec.subject(), what);
            }
        }
        Ok(())
    }

    /// Whether the child must be told the state: it has been replaced, or belongs to steps that
    /// this session's child has not taken.
    fn load(&self, name: &str, state: &State) -> Result<bool, Error> {
        let mut uploaded = false;
        for (tensor, buffer) in &state.tensors {
            uploaded |= self.cached(tensor, buffer)?.uploaded;
        }
        let done = self.steps_done.get(name).copied().unwrap_or(0);
        Ok(uploaded || done != state.step)
    }

    fn cached<'b>(
        &self,
        tensor: &StateTensor,
        buffer: &'b Buffer,
    ) -> Result<&'b CachedState, Error> {
        buffer
            .get()
            .ok_or_else(|| foreign_buffer(self.name(), tensor.kind))
    }

    fn request(
        &self,
        session: &Session,
        slots: &Slots<'_>,
        io: &StepIo<'_, '_>,
        control: &Control,
    ) -> Result<Request, Error> {
        let mut tensors = StepFile::default();
        let mut adapters = Vec::new();
        for (k, adapter) in io.adapters.iter().enumerate() {
            let slot = &slots.adapters[adapter.id.index()];
            for (name, view) in views(adapter, slot) {
                tensors.put(format!("{k}.{name}"), &view);
            }
            let load = self.load(&slot.spec.name, &slot.state)?;
            if load {
                self.put_state(&mut tensors, &format!("{k}."), &slot.state)?;
            }
            adapters.push(adapter_message(slot, load));
        }
        let mut params = Vec::new();
        for (k, param) in io.params.iter().enumerate() {
            let slot = &slots.params[param.id.index()];
            tensors.put(format!("param.{k}.value"), &param.value.view());
            tensors.put(format!("param.{k}.grad"), &param.grad);
            let load = self.load(&slot.spec.name, &slot.state)?;
            if load {
                self.put_state(&mut tensors, &format!("param.{k}."), &slot.state)?;
            }
            params.push(param_message(slot, load));
        }
        let (input, output) = (session.input(), session.output());
        // The last step's answer must not be taken for this one's. There is none before the first.
        let _ = std::fs::remove_file(&output);
        tensors
            .save(&input)
            .map_err(|reason| failed(self.name(), &reason))?;
        Ok(Request::Run(StepRequest {
            session: session.number,
            input,
            output,
            control: protocol::Control {
                lr_factor: control.lr_factor,
                grad_scale: control.grad_scale,
                max_grad_norm: control.max_grad_norm,
                on_non_finite: control.on_non_finite,
            },
            adapters,
            params,
        }))
    }

    fn put_state(&self, tensors: &mut StepFile, prefix: &str, state: &State) -> Result<(), Error> {
        for (tensor, buffer) in &state.tensors {
            if self.exposes(tensor.name()) {
                let bytes = self.cached(tensor, buffer)?.values.bytes();
                tensors.put_state(format!("{prefix}{}", tensor.name()), tensor, bytes);
            }
        }
        Ok(())
    }

    /// The tensors after the step, all of them checked, none of them written.
    fn read(
        &self,
        session: &Session,
        slots: &Slots<'_>,
        io: &StepIo<'_, '_>,
        stepped: &Stepped,
    ) -> Result<After, String> {
        if ![0, io.adapters.len()].contains(&stepped.reports.len()) {
            let (got, needed) = (stepped.reports.len(), io.adapters.len());
            return Err(format!("{got} reports for {needed} adapters"));
        }
        let mut file = StepFile::load(&session.output())?;
        let mut adapters = Vec::new();
        for (k, adapter) in io.adapters.iter().enumerate() {
            let slot = &slots.adapters[adapter.id.index()];
            let spec = &slot.spec;
            let base = adapter.w0.as_ref().filter(|_| slot.hyper.decay_base);
            adapters.push(PairAfter {
                a: file.expect(&format!("{k}.A"), spec.dtype, spec.a_shape())?,
                b: file.expect(&format!("{k}.B"), spec.dtype, spec.b_shape())?,
                base: base
                    .map(|base| file.expect(&format!("{k}.W0"), base.dtype(), base.shape()))
                    .transpose()?,
                state: self.take_state(&mut file, &format!("{k}."), &slot.state)?,
            });
        }
        let mut params = Vec::new();
        for (k, param) in io.params.iter().enumerate() {
            let slot = &slots.params[param.id.index()];
            let key = format!("param.{k}.value");
            let value = file.expect(&key, slot.spec.dtype, slot.spec.shape())?;
            let state = self.take_state(&mut file, &format!("param.{k}."), &slot.state)?;
            params.push((value, state));
        }
        Ok(After { adapters, params })
    }

    fn take_state(
        &self,
        file: &mut StepFile,
        prefix: &str,
        state: &State,
    ) -> Result<Vec<Option<HostTensor>>, String> {
        let tensors = state.tensors.iter();
        tensors
            .map(|(tensor, _)| {
                self.exposes(tensor.name())
                    .then(|| {
                        let key = format!("{prefix}{}", tensor.name());
                        file.expect(&key, tensor.dtype, tensor.shape)
                    })
                    .transpose()
            })
            .collect()
    }

    /// Nothing can fail any more.
    fn commit(
        &mut self,
        slots: Slots<'_>,
        io: StepIo<'_, '_>,
        control: &Control,
        after: After,
        stepped: &Stepped,
    ) {
        let reports = stepped.reports.iter().copied().map(Some);
        let reports = reports.chain(std::iter::repeat(None));
        for ((adapter, after), report) in io.adapters.iter_mut().zip(after.adapters).zip(reports) {
            let slot = &mut slots.adapters[adapter.id.index()];
            slot.report = summary(
                slot,
                adapter,
                [&after.a, &after.b],
                control,
                report.unwrap_or_default(),
            );
            copy(&after.a, &mut adapter.a);
            copy(&after.b, &mut adapter.b);
            if let (Some(base), Some(after)) = (&mut adapter.w0, &after.base) {
                copy(after, base);
            }
            advance(&mut slot.state, after.state);
            self.steps_done
                .insert(slot.spec.name.clone(), slot.state.step);
        }
        for (param, (value, state)) in io.params.iter_mut().zip(after.params) {
            let slot = &mut slots.params[param.id.index()];
            copy(&value, &mut param.value);
            advance(&mut slot.state, state);
            self.steps_done
                .insert(slot.spec.name.clone(), slot.state.step);
        }
    }
}

impl Backend for RemoteBackend {
    fn manifest(&self) -> Manifest {
        self.description().manifest()
    }

    fn allocate(&mut self, tensor: &StateTensor) -> Result<Buffer, Error> {
        Ok(Buffer::new(CachedState {
            values: HostTensor::zeros(tensor.dtype, tensor.shape),
            uploaded: false,
        }))
    }

    fn download(&self, tensor: &StateTensor, buffer: &Buffer) -> Result<Vec<u8>, Error> {
        if !self.exposes(tensor.name()) {
            return self.refuse("the optimizer", format!("reading `{}`", tensor.name()));
        }
        Ok(self.cached(tensor, buffer)?.values.bytes().to_vec())
    }

    fn upload(
        &mut self,
        tensor: &StateTensor,
        buffer: &mut Buffer,
        bytes: &[u8],
    ) -> Result<(), Error> {
        if !self.exposes(tensor.name()) {
            return self.refuse("the optimizer", format!("loading `{}`", tensor.name()));
        }
        let values = HostTensor::from_bytes(tensor.dtype, tensor.shape, bytes.to_vec());
        let values = values.ok_or_else(|| {
            let expected = format!("{} bytes", tensor.bytes());
            Error::invalid("the optimizer", tensor.name(), bytes.len(), expected)
        })?;
        let cached = buffer
            .get_mut::<CachedState>()
            .ok_or_else(|| foreign_buffer(self.name(), tensor.kind))?;
        *cached = CachedState {
            values,
            uploaded: true,
        };
        Ok(())
    }

    fn step(
        &mut self,
        slots: Slots<'_>,
        io: StepIo<'_, '_>,
        control: &Control,
    ) -> Result<StepReport, Error> {
        self.check(&slots, &io, control)?;
        if let Some(reason) = &self.desynchronised {
            return Err(failed(
                self.name(),
                &format!("this session is lost: {reason}"),
            ));
        }
        let session = match &self.session {
            Some(session) => Arc::clone(session),
            None => Arc::clone(self.session.insert(Arc::new(self.remote.open()?))),
        };
        let request = self.request(&session, &slots, &io, control)?;
        let stepped: Stepped = match self.remote.ask(&session, &request)? {
            Answer::Ok(stepped) => stepped,
            Answer::Unsupported(what) => return self.refuse("the step", what),
            Answer::Error(failure) => return Err(explain(self.name(), failure, &slots, &io)),
        };
        let report = whole(&stepped, &slots, &io, control);
        if report.skipped.is_none() {
            let after = self.read(&session, &slots, &io, &stepped);
            let after = after.map_err(|reason| {
                // The child has taken a step that its caller has not.
                self.desynchronised = Some(reason.clone());
                failed(self.name(), &format!("gave a wrong answer: {reason}"))
            })?;
            self.commit(slots, io, control, after, &stepped);
        }
        Ok(report)
    }
}

impl Drop for RemoteBackend {
    fn drop(&mut self) {
        let Some(session) = &self.session else {
            return;
        };
        let end = Request::End {
            session: session.number,
        };
        // A child that cannot even do this is gone now, and its session with it.
        let _ = self.remote.ask::<Done>(session, &end);
    }
}

/// What a valid answer replaces; state in the order of the layout, where it is shown.
struct After {
    adapters: Vec<PairAfter>,
    params: Vec<(HostTensor, Vec<Option<HostTensor>>)>,
}

struct PairAfter {
    a: HostTensor,
    b: HostTensor,
    base: Option<HostTensor>,
    state: Vec<Option<HostTensor>>,
}

/// What an adapter's step needs, by the names in the file.
fn views<'p>(adapter: &'p AdapterIo<'_>, slot: &AdapterSlot) -> Vec<(&'static str, MatRef<'p>)> {
    let mut all = vec![
        ("A", adapter.a.view()),
        ("B", adapter.b.view()),
        ("grad_A", adapter.grad_a),
        ("grad_B", adapter.grad_b),
    ];
    if let Some(base) = adapter.w0.as_ref().filter(|_| slot.hyper.decay_base) {
        all.push(("W0", base.view()));
    }
    all
}

fn adapter_message(slot: &AdapterSlot, load: bool) -> protocol::Adapter {
    let spec = &slot.spec;
    protocol::Adapter {
        name: spec.name.clone(),
        m: spec.m,
        n: spec.n,
        r: spec.r,
        s: spec.s(),
        dtype: spec.dtype,
        hyper: slot.hyper,
        t: slot.state.step + 1,
        load,
    }
}

fn param_message(slot: &ParamSlot, load: bool) -> protocol::Param {
    let spec = &slot.spec;
    protocol::Param {
        name: spec.name.clone(),
        rows: spec.rows,
        cols: spec.cols,
        dtype: spec.dtype,
        hyper: slot.hyper,
        t: slot.state.step + 1,
        load,
    }
}

fn advance(state: &mut State, shown: Vec<Option<HostTensor>>) {
    state.step += 1;
    for ((_, buffer), values) in state.tensors.iter_mut().zip(shown) {
        if let (Some(cached), Some(values)) = (buffer.get_mut::<CachedState>(), values) {
            *cached = CachedState {
                values,
                uploaded: false,
            };
        }
    }
}
