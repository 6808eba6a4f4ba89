//! Which modules get adapters, by PEFT's rules, and with which rank and alpha.

use fancy_regex::Regex;
use indexmap::IndexMap;
use lora_pro_core::Error;
use serde::{Deserialize, Serialize};

use crate::patterns::{PLACE, Patterns, compile, matches, refuse};

/// All linear modules but the head.
const ALL_LINEAR: &str = "all-linear";

/// What PEFT's `LoraConfig` says about modules.
///
/// A name in a list fits the module of that name and all modules that end with it after a dot:
/// `query` fits `layer.0.attention.self.query`. A text that stands alone is a regular expression
/// and must match a module's whole name.
///
/// ```
/// use lora_pro_candle::{TargetModules, Targets};
/// # fn main() -> Result<(), lora_pro_core::Error> {
/// let linear = ["layers.0.query", "layers.0.value", "layers.1.query", "head"].map(String::from);
/// let mut targets = Targets::new(TargetModules::Names(vec!["query".into()]));
/// assert_eq!(targets.select(&linear, Some("head"))?, ["layers.0.query", "layers.1.query"]);
/// targets.target_modules = TargetModules::Pattern("all-linear".into());
/// assert_eq!(targets.select(&linear, Some("head"))?.len(), 3);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Targets {
    /// The modules with adapters.
    pub target_modules: TargetModules,
    /// Modules without adapters, though they be targets.
    #[serde(default)]
    pub exclude_modules: Option<TargetModules>,
    /// The layers whose modules have adapters; all of them where it is absent or empty. It does not
    /// concern a target that is a module's whole name.
    #[serde(default)]
    pub layers_to_transform: Option<OneOrMore<u64>>,
    /// What stands before a layer's number in a module's name, as a regular expression: `layer` in
    /// `encoder.layer.3.output`. Without it, the first number after two names is the layer's.
    #[serde(default)]
    pub layers_pattern: Option<OneOrMore<String>>,
    /// The modules trained without an adapter, such as the head: all whose names end with an entry,
    /// after a dot or not. Neither they nor what is in them gets adapters.
    #[serde(default)]
    pub modules_to_save: Option<Vec<String>>,
    /// Ranks of single modules. A key is a regular expression for a module's name or for the end of
    /// it after a dot; the first that fits counts.
    #[serde(default)]
    pub rank_pattern: IndexMap<String, usize>,
    /// Alphas of single modules, likewise.
    #[serde(default)]
    pub alpha_pattern: IndexMap<String, f64>,
}

impl Default for Targets {
    /// All linear modules but the head.
    fn default() -> Self {
        Self::new(TargetModules::Pattern(ALL_LINEAR.into()))
    }
}

/// Some modules.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TargetModules {
    /// Their names, or the ends of them after a dot.
    Names(Vec<String>),
    /// A regular expression for the whole name; as targets also `all-linear`, all linear modules but
    /// the head.
    Pattern(String),
}

/// A value, or a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OneOrMore<T> {
    /// One value.
    One(T),
    /// A list.
    More(Vec<T>),
}

impl<T> OneOrMore<T> {
    fn values(&self) -> &[T] {
        match self {
            OneOrMore::One(value) => std::slice::from_ref(value),
            OneOrMore::More(values) => values,
        }
    }
}

/// Whether a module is a target.
#[derive(Clone, Copy, PartialEq)]
enum Verdict {
    Chosen,
    Excluded,
    Other,
}

impl Targets {
    /// These modules, without exceptions.
    pub fn new(target_modules: TargetModules) -> Self {
        Targets {
            target_modules,
            exclude_modules: None,
            layers_to_transform: None,
            layers_pattern: None,
            modules_to_save: None,
            rank_pattern: IndexMap::new(),
            alpha_pattern: IndexMap::new(),
        }
    }

    /// The modules among `linear` that get adapters; `head` is the model's output layer.
    ///
    /// Rejects a regular expression that cannot be read, rules that contradict each other, and rules
    /// that choose nothing.
    pub fn select(&self, linear: &[String], head: Option<&str>) -> Result<Vec<String>, Error> {
        self.validate()?;
        let rules = Rules::new(self, head)?;
        let verdicts = linear.iter().map(|module| rules.verdict(module));
        let verdicts: Vec<Verdict> = verdicts.collect::<Result<_, _>>()?;
        let chosen = linear.iter().zip(&verdicts);
        let chosen = chosen.filter(|(_, verdict)| **verdict == Verdict::Chosen);
        let chosen: Vec<String> = chosen.map(|(module, _)| module.clone()).collect();
        if chosen.is_empty() {
            let excluded = verdicts.contains(&Verdict::Excluded);
            return Err(self.nothing_chosen(linear, excluded));
        }
        Ok(chosen)
    }

    /// Rejects what [`Targets::select`] lets pass, as PEFT does, although it does nothing: a name that
    /// fits no module, and a layer without any.
    pub fn refuse_idle(&self, linear: &[String]) -> Result<(), Error> {
        self.validate()?;
        let idle = |field, value: &dyn std::fmt::Display, expected: &str| {
            let expected = format!("{expected}; there are {}", few(linear));
            Err(Error::invalid(PLACE, field, value, expected))
        };
        let lists = [
            ("target_modules", Some(&self.target_modules)),
            ("exclude_modules", self.exclude_modules.as_ref()),
        ];
        for (field, modules) in lists {
            let Some(TargetModules::Names(names)) = modules else {
                continue;
            };
            let fits = |name: &&String| linear.iter().any(|module| ends_with(module, name));
            if let Some(name) = names.iter().find(|name| !fits(name)) {
                return idle(field, name, "the name of a module, or the end of it");
            }
        }
        let rules = Rules::new(self, None)?;
        let Some((numbers, layers)) = &rules.layers else {
            return Ok(());
        };
        let found = linear.iter().map(|module| layer_of(numbers, module));
        let found: Vec<Option<u64>> = found.collect::<Result<_, _>>()?;
        match layers.iter().find(|layer| !found.contains(&Some(**layer))) {
            Some(layer) => idle("layers_to_transform", layer, "the number of a layer"),
            None => Ok(()),
        }
    }

    /// The names among `tensors` that belong to [`Targets::modules_to_save`].
    ///
    /// Rejects an entry that fits no module.
    pub fn saved<'n>(
        &self,
        tensors: impl Iterator<Item = &'n str> + Clone,
    ) -> Result<Vec<&'n str>, Error> {
        let mut saved = Vec::new();
        for entry in self.modules_to_save.iter().flatten() {
            let before = saved.len();
            saved.extend(tensors.clone().filter(|name| is_in(name, entry)));
            if saved.len() == before {
                let modules = tensors.filter_map(|name| Some(name.rsplit_once('.')?.0));
                let mut modules = Vec::from_iter(modules);
                modules.dedup();
                let there = few(&modules);
                let expected = format!("the end of a module's name; there are {there}");
                return Err(Error::invalid(PLACE, "modules_to_save", entry, expected));
            }
        }
        Ok(saved)
    }

    /// Ranks and alphas of single modules. Rejects a regular expression that cannot be read.
    pub fn patterns(&self) -> Result<Patterns, Error> {
        Patterns::new(&self.rank_pattern, &self.alpha_pattern)
    }

    fn validate(&self) -> Result<(), Error> {
        let needless = |field, expected| Err(Error::invalid(PLACE, field, "set", expected));
        let pattern = matches!(self.target_modules, TargetModules::Pattern(_));
        let layers = self.layers_to_transform.is_some();
        let named = !self.layer_names().is_empty();
        match () {
            _ if pattern && layers => needless("layers_to_transform", WITH_A_LIST),
            _ if pattern && self.layers_pattern.is_some() => {
                needless("layers_pattern", WITH_A_LIST)
            }
            _ if named && !layers => {
                needless("layers_pattern", "absent without layers_to_transform")
            }
            _ => Ok(()),
        }
    }

    /// `layers_pattern` as a list; an empty text is no pattern.
    fn layer_names(&self) -> &[String] {
        match &self.layers_pattern {
            Some(OneOrMore::One(text)) if text.is_empty() => &[],
            Some(names) => names.values(),
            None => &[],
        }
    }

    fn nothing_chosen(&self, linear: &[String], excluded: bool) -> Error {
        let field = match excluded {
            true => "target_modules without exclude_modules and modules_to_save",
            false => "target_modules",
        };
        let there = few(linear);
        let expected = format!("such that a linear module is chosen; there are {there}");
        let value = serde_json::to_string(&self.target_modules).unwrap_or_default();
        Error::invalid(PLACE, field, value, expected)
    }
}

const WITH_A_LIST: &str = "absent where target_modules is a regular expression or all-linear";

/// Whether the tensor called `name` is in a module whose name ends with `entry`.
pub(crate) fn is_in(name: &str, entry: &str) -> bool {
    let mut modules = name.match_indices('.').map(|(end, _)| &name[..end]);
    modules.any(|module| module.ends_with(entry))
}

/// Names as an error lists them.
pub(crate) fn few(names: &[impl AsRef<str>]) -> String {
    const FEW: usize = 8;
    let listed: Vec<&str> = names.iter().take(FEW).map(AsRef::as_ref).collect();
    let listed = listed.join(", ");
    match names.len() > FEW {
        true => format!("{listed} and {} more", names.len() - FEW),
        false => listed,
    }
}

/// The rules with their regular expressions compiled.
struct Rules<'t> {
    target: Names<'t>,
    exclude: Option<Names<'t>>,
    saved: Vec<Regex>,
    /// Where a module's name has its layer's number, and the layers that are chosen.
    layers: Option<(Vec<Regex>, &'t [u64])>,
}

/// [`TargetModules`], ready to match.
enum Names<'t> {
    List(&'t [String]),
    Whole(Regex),
    AllBut(Option<&'t str>),
}

impl<'t> Rules<'t> {
    fn new(targets: &'t Targets, head: Option<&'t str>) -> Result<Self, Error> {
        let names = |field: &'static str, modules: &'t TargetModules| match modules {
            TargetModules::Names(names) => Ok(Names::List(names)),
            TargetModules::Pattern(text) => {
                compile(field, text, &format!(r"\A(?:{text})\z")).map(Names::Whole)
            }
        };
        let target = match &targets.target_modules {
            TargetModules::Pattern(text) if text.eq_ignore_ascii_case(ALL_LINEAR) => {
                Names::AllBut(head)
            }
            modules => names("target_modules", modules)?,
        };
        let exclude = targets.exclude_modules.as_ref();
        let exclude = exclude.filter(|modules| match modules {
            TargetModules::Names(names) => !names.is_empty(),
            TargetModules::Pattern(text) => !text.is_empty(),
        });
        let exclude = exclude.map(|modules| names("exclude_modules", modules));
        let saved = targets.modules_to_save.iter().flatten().map(|text| {
            let inside = format!(r"\A(?:(^|.*\.){text}($|\..*))");
            compile("modules_to_save", text, &inside)
        });
        let layers = targets.layers_to_transform.as_ref().map(OneOrMore::values);
        let layers = layers.filter(|layers| !layers.is_empty());
        let layers = layers.map(|layers| Ok((layer_numbers(targets)?, layers)));
        Ok(Rules {
            target,
            exclude: exclude.transpose()?,
            saved: saved.collect::<Result<_, _>>()?,
            layers: layers.transpose()?,
        })
    }

    fn verdict(&self, module: &str) -> Result<Verdict, Error> {
        if let Some(exclude) = &self.exclude
            && exclude.fit(module)?
        {
            return Ok(Verdict::Excluded);
        }
        for saved in &self.saved {
            if matches(saved, module)? {
                return Ok(Verdict::Excluded);
            }
        }
        let chosen = match &self.target {
            Names::List(names) if names.iter().any(|name| name == module) => true,
            target => target.fit(module)? && self.in_chosen_layer(module)?,
        };
        Ok(if chosen {
            Verdict::Chosen
        } else {
            Verdict::Other
        })
    }

    fn in_chosen_layer(&self, module: &str) -> Result<bool, Error> {
        let Some((numbers, layers)) = &self.layers else {
            return Ok(true);
        };
        let layer = layer_of(numbers, module)?;
        Ok(layer.is_some_and(|layer| layers.contains(&layer)))
    }
}

/// The number of a module's layer.
fn layer_of(numbers: &[Regex], module: &str) -> Result<Option<u64>, Error> {
    for number in numbers {
        let found = number.captures(module);
        let found = found.map_err(|error| refuse("layers_pattern", number.as_str(), error))?;
        if let Some(found) = found {
            return Ok(found.name("idx").and_then(|idx| idx.as_str().parse().ok()));
        }
    }
    Ok(None)
}

impl Names<'_> {
    fn fit(&self, module: &str) -> Result<bool, Error> {
        match self {
            Names::List(names) => Ok(names.iter().any(|name| ends_with(module, name))),
            Names::Whole(pattern) => matches(pattern, module),
            Names::AllBut(head) => Ok(*head != Some(module)),
        }
    }
}

/// Whether a module has this name, or one that ends with it after a dot.
fn ends_with(module: &str, name: &str) -> bool {
    let rest = module.strip_suffix(name);
    rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Expressions whose group `idx` is the number of a module's layer.
fn layer_numbers(targets: &Targets) -> Result<Vec<Regex>, Error> {
    match targets.layer_names() {
        [] => {
            let any = r"\A.*?\.[^.]*\.(?P<idx>\d+)\.";
            Ok(vec![compile("layers_pattern", any, any)?])
        }
        named => {
            let number = |text: &String| {
                let number = format!(r"\A(?:^|.*?\.){text}\.(?P<idx>\d+)\.");
                compile("layers_pattern", text, &number)
            };
            named.iter().map(number).collect()
        }
    }
}
