//! A child of the protocol in Rust: the reference, or one of a dozen ways to misbehave.
//!
//! `conformance-subject` serves the reference, `conformance-subject dies` (and so on, see `main`)
//! goes wrong on purpose, in its third step where the fault is one of steps.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{self, Read, Write};
use std::process::exit;
use std::thread::sleep;
use std::time::Duration;

use lora_pro_conformance::record::Stability;
use lora_pro_conformance::remote::protocol::{
    Answer, Done, Hello, NOT_IMPLEMENTED, PROTOCOL, Request, Stepped,
};
use lora_pro_conformance::remote::{Description, serve};
use lora_pro_core::backend::{self, Control, Slots, StepIo};
use lora_pro_core::{
    Backend, Error, Manifest, Method, StepReport, TensorData, encode_tensors, read_tensors,
};
use lora_pro_reference::ReferenceBackend;

/// The step in which a misbehaviour shows.
const WHEN: u64 = 3;

fn main() -> io::Result<()> {
    let fault = std::env::args().nth(1).unwrap_or_default();
    let mut backend = Faulty {
        inner: ReferenceBackend::new(),
        fault: fault.clone(),
        steps: 0,
    };
    let manifest = backend.manifest();
    let mut description = Description::of(&manifest, Stability::KappaSquared);
    match fault.as_str() {
        "absent" => exit(NOT_IMPLEMENTED),
        "mute" => sleep(Duration::from_secs(3600)),
        "hungry" => drop(std::hint::black_box(vec![1u8; 1 << 40])),
        "protocol" => {
            println!(r#"{{"ok":{{"protocol":2}}}}"#);
            return io::stdin().lock().read_to_end(&mut Vec::new()).map(drop);
        }
        "babble" => {
            println!("Hello! I am ready.");
            return io::stdin().lock().read_to_end(&mut Vec::new()).map(drop);
        }
        "flood" => loop {
            io::stdout().write_all(&[b'x'; 4096])?;
        },
        "typo" => description.state = vec!["exp_avg_A".into()],
        "secretive" => description.state.clear(),
        "modest" => {
            description.methods = vec![Method::Efficient];
            description.dampings = vec!["absolute 1e-8".into()];
            description.options.clear();
        }
        "lazy" => {
            description.state.clear();
            return copycat(&description, |_| ());
        }
        "shape" => {
            return copycat(&description, |after| {
                if let Some(gradient) = after.get("0.grad_B").cloned() {
                    after.insert("0.A".into(), gradient);
                }
            });
        }
        "missing" => return copycat(&description, |_| ()),
        "stale" => {
            description.state.clear();
            let steps = Cell::new(0);
            return copycat(&description, |after| {
                steps.set(steps.get() + 1);
                if steps.get() == WHEN {
                    after.clear();
                }
            });
        }
        _ => {}
    }
    serve(&mut backend, &description, io::stdin().lock(), io::stdout())
}

/// A child that leaves all tensors as they are, spoilt: messages by hand, without a backend. It
/// writes no file where no tensor is left.
fn copycat(
    description: &Description,
    spoil: impl Fn(&mut BTreeMap<String, TensorData>),
) -> io::Result<()> {
    for line in io::stdin().lines() {
        let answer = match serde_json::from_str(&line?)? {
            Request::Hello { .. } => {
                serde_json::to_string(&Answer::Ok(Hello { protocol: PROTOCOL }))
            }
            Request::Describe => serde_json::to_string(&Answer::Ok(description)),
            Request::Run(run) => {
                let mut tensors = read_tensors(&fs::read(run.input)?).map_err(io::Error::other)?;
                spoil(&mut tensors);
                if !tensors.is_empty() {
                    let bytes =
                        encode_tensors(&tensors, HashMap::new()).map_err(io::Error::other)?;
                    fs::write(run.output, bytes)?;
                }
                serde_json::to_string(&Answer::Ok(Stepped::default()))
            }
            Request::End { .. } => serde_json::to_string(&Answer::Ok(Done {})),
            Request::Stop => return Ok(()),
        };
        println!("{}", answer?);
    }
    Ok(())
}

/// The reference, up to its fault.
struct Faulty {
    inner: ReferenceBackend,
    fault: String,
    steps: u64,
}

impl Backend for Faulty {
    fn manifest(&self) -> Manifest {
        self.inner.manifest()
    }

    backend::forward_memory!(inner);

    fn step(
        &mut self,
        slots: Slots<'_>,
        io: StepIo<'_, '_>,
        control: &Control,
    ) -> Result<StepReport, Error> {
        self.steps += 1;
        if self.steps == WHEN {
            match self.fault.as_str() {
                "dies" => {
                    eprintln!("warming up\nthe dog ate my moments");
                    exit(3);
                }
                "hangs" => sleep(Duration::from_secs(3600)),
                "garbage" => println!("step 3 done, loss 0.5"),
                "refuses" => {
                    return Err(Error::Unsupported {
                        subject: "the step".into(),
                        backend: "reference".into(),
                        what: "third steps".into(),
                    });
                }
                _ => {}
            }
        }
        self.inner.step(slots, io, control)
    }
}
