//! A case's string metadata, read key by key and written.

use std::collections::{BTreeMap, HashMap};
use std::str::FromStr;

use lora_pro_core::{AdapterSpec, DType, Damping, Error, Hyper, Method, Preset, Scale};

use crate::sample::CaseSpec;

/// Something that the program behind a recording does, and the formulas do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quirk {
    /// From the second step on, E is rounded to bf16 before it is squared into the second moment.
    Bf16Square,
}

/// Hyper-parameters that change a trajectory and are not read: better refused than ignored.
const NOT_RECORDED: [&str; 5] = [
    "decay_base",
    "max_grad_norm",
    "moment_dtype",
    "rounding",
    "schedule",
];

/// The metadata as it stands in the file.
pub struct Metadata(pub HashMap<String, String>);

impl Metadata {
    fn text(&self, key: &str) -> Result<&str, String> {
        let text = self.0.get(key).map(String::as_str);
        text.ok_or_else(|| format!("its metadata has no `{key}`"))
    }

    fn parsed<T: FromStr>(&self, key: &str, kind: &str) -> Result<T, String> {
        let text = self.text(key)?;
        text.parse()
            .map_err(|_| format!("its metadata `{key}` is `{text}`, which is not {kind}"))
    }

    fn real(&self, key: &str) -> Result<f64, String> {
        self.parsed(key, "a number")
    }

    fn count(&self, key: &str) -> Result<usize, String> {
        self.parsed(key, "a whole number")
    }

    fn optional<T: FromStr>(&self, key: &str, kind: &str) -> Result<Option<T>, String> {
        match self.0.contains_key(key) {
            true => self.parsed(key, kind).map(Some),
            false => Ok(None),
        }
    }

    fn flag(&self, key: &str) -> Result<bool, String> {
        Ok(self.optional(key, "true or false")?.unwrap_or(false))
    }

    /// A value whose own parser has the words for what is wrong.
    fn named<T: FromStr<Err = Error>>(&self, key: &str) -> Result<T, String> {
        self.text(key)?
            .parse()
            .map_err(|error| format!("its metadata `{key}`: {error}"))
    }

    /// Shape, rank and scale, checked.
    pub fn spec(&self) -> Result<AdapterSpec, String> {
        let spec = AdapterSpec::new("case", self.count("m")?, self.count("n")?, self.count("r")?)
            .scale(Scale::Explicit(self.real("scale")?))
            .dtype(DType::F64);
        spec.validate().map_err(|error| error.to_string())?;
        Ok(spec)
    }

    /// Method, X, damping and numbers, checked.
    pub fn hyper(&self) -> Result<Hyper, String> {
        if let Some(key) = NOT_RECORDED.iter().find(|key| self.0.contains_key(**key)) {
            return Err(format!(
                "its metadata has `{key}`, which a case cannot prescribe"
            ));
        }
        let hyper = Preset::Paper
            .hyper()
            .method(self.named("method")?)
            .x(self.named("x")?)
            .damping(damping(self.text("damping")?)?)
            .lr(self.real("lr")?)
            .beta1(self.real("beta1")?)
            .beta2(self.real("beta2")?)
            .eps(self.real("eps")?)
            .weight_decay(self.weight_decay()?)
            .lr_ratio(self.optional("lr_ratio", "a number")?.unwrap_or(1.0))
            .momentum(self.optional("momentum", "a number")?.unwrap_or(0.0))
            .amsgrad(self.flag("amsgrad")?)
            .maximize(self.flag("maximize")?)
            .update_clip(self.optional("update_clip", "a number")?);
        hyper
            .validate("its metadata")
            .map_err(|error| error.to_string())?;
        Ok(hyper)
    }

    /// The recordings of SGD carry the case's number too, and do not apply it.
    fn weight_decay(&self) -> Result<f64, String> {
        let recorded = self.real("weight_decay")?;
        match self.named("method")? {
            Method::Sgd if recorded >= 0.0 => Ok(0.0),
            _ => Ok(recorded),
        }
    }

    /// Number of steps, at least 1.
    pub fn steps(&self) -> Result<usize, String> {
        match self.count("steps")? {
            0 => Err("its metadata `steps` is 0, but it must be at least 1".into()),
            steps => Ok(steps),
        }
    }

    /// What a backend has to imitate.
    pub fn quirk(&self) -> Result<Option<Quirk>, String> {
        match self.0.get("quirk").map(String::as_str) {
            None => Ok(None),
            Some("bf16_square") => Ok(Some(Quirk::Bf16Square)),
            Some(other) => Err(format!(
                "its metadata `quirk` is `{other}`, but only `bf16_square` is known"
            )),
        }
    }
}

/// The first recordings say `none` with the cut that their program makes.
fn damping(text: &str) -> Result<Damping, String> {
    match text {
        "none (eigenvalues under 1e-12 of the largest cut)" => Ok(Damping::Cutoff(1e-12)),
        _ => text
            .parse()
            .map_err(|error| format!("its metadata `damping`: {error}")),
    }
}

/// The metadata of a case, as [`Case`](super::Case) reads it. Optional keys are written where they say
/// something; options that a case cannot prescribe are left out.
pub fn metadata(adapter: &CaseSpec, hyper: &Hyper, source: &str) -> BTreeMap<String, String> {
    let real = |x: f64| format!("{x:?}");
    let mut all = BTreeMap::from([
        ("source", source.to_string()),
        ("m", adapter.m.to_string()),
        ("n", adapter.n.to_string()),
        ("r", adapter.r.to_string()),
        ("scale", real(adapter.s)),
        ("steps", adapter.steps.to_string()),
        ("method", hyper.method.to_string()),
        ("x", hyper.x.to_string()),
        ("damping", written(hyper.damping)),
        ("lr", real(hyper.lr)),
        ("beta1", real(hyper.beta1)),
        ("beta2", real(hyper.beta2)),
        ("eps", real(hyper.eps)),
        ("weight_decay", real(hyper.weight_decay)),
    ]);
    let options = [
        ("lr_ratio", hyper.lr_ratio != 1.0, real(hyper.lr_ratio)),
        ("momentum", hyper.momentum != 0.0, real(hyper.momentum)),
        ("amsgrad", hyper.amsgrad, "true".to_string()),
        ("maximize", hyper.maximize, "true".to_string()),
    ];
    let chosen = options.into_iter().filter(|option| option.1);
    all.extend(chosen.map(|(key, _, value)| (key, value)));
    all.extend(hyper.update_clip.map(|clip| ("update_clip", real(clip))));
    let owned = all.into_iter().map(|(key, value)| (key.to_string(), value));
    owned.collect()
}

fn written(damping: Damping) -> String {
    match damping {
        Damping::None => "none".into(),
        Damping::Absolute(d) => format!("absolute {d:?}"),
        Damping::Relative(c) => format!("relative {c:?}"),
        Damping::Cutoff(c) => format!("cutoff {c:?}"),
    }
}
