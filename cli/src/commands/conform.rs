//! `lora-pro conform`: holds implementations against the laws.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use lora_pro_conformance::check::Check;
use lora_pro_conformance::matrix::Listener;
use lora_pro_conformance::record::{Cell, End, Line};
use lora_pro_conformance::regression::Regression;
use lora_pro_conformance::report;
use lora_pro_conformance::suite::{Implementation, Plan, Skip};
use lora_pro_conformance::verdict::Verdict;
use lora_pro_core::{DType, Error, Method};
use lora_pro_report::format::plural;

use crate::failure::Failure;
use crate::output::{note, say};
use crate::progress::Progress;
use crate::subjects;

/// Hold implementations of LoRA-Pro against the laws that they must obey
///
/// Each cell of the matrix is one check on one subject in one storage type and for one method. It
/// tries random cases (a few numbers each, never raw matrices) and judges the largest ratio of
/// error and what rounding explains: PASS below 30, MARGINAL below 300, else FAIL. A failing case
/// is shrunk and stored, and `conform replay` repeats it.
///
/// Subjects are built in, or commands that speak the kit's protocol (JSON lines, tensors as
/// safetensors files; the book's chapter on the protocol): in any language.
#[derive(Args, Debug)]
#[command(
    verbatim_doc_comment,
    args_conflicts_with_subcommands = true,
    after_long_help = "\
Verdicts, from best to worst; the worst one counts:
  PASS         every ratio is below the threshold
  SKIPPED      left out on purpose, with a reason (--skip)
  UNSUPPORTED  the subject says that it does not do this
  MARGINAL     past the threshold, below ten times that
  FAIL         further off
  ERROR        the subject gave up: an error where none is due, a crash, a time-out
  UNKNOWN      the checker itself failed, or the subject answers nothing sensible at all

Examples:
  lora-pro conform                                   all that is built in
  lora-pro conform --subject cpu --cases 2000        one subject, thoroughly
  lora-pro conform --command \"python my_impl.py\" --report out
  lora-pro conform --subject cpu --check balance --dtype f32 --method full
  lora-pro conform replay out/failures/law-15-balance-full-f32-0123abcd.json

The exit code is 0 only where every required check is PASS, SKIPPED or UNSUPPORTED."
)]
pub struct ConformArgs {
    #[command(subcommand)]
    again: Option<Again>,
    /// A subject that is built in; may be given more than once
    #[arg(long, value_name = "NAME")]
    subject: Vec<String>,
    /// A command that speaks the protocol; may be given more than once
    #[arg(long, value_name = "COMMAND")]
    command: Vec<String>,
    /// Every subject that is built in [default where none is named]
    #[arg(long)]
    all: bool,
    /// Only checks whose name contains this; may be given more than once
    #[arg(long, visible_alias = "law", value_name = "NAME")]
    check: Vec<String>,
    /// Only this method: lora, sgd, efficient, factored, full
    #[arg(long, value_name = "METHOD")]
    method: Vec<Method>,
    /// Only this storage type: f64, f32, bf16, f16
    #[arg(long, value_name = "DTYPE")]
    dtype: Vec<DType>,
    /// Only the smoke set: does the subject answer at all?
    #[arg(long)]
    smoke: bool,
    /// Random cases for each cell
    #[arg(long, default_value_t = 100, value_name = "N")]
    cases: u32,
    /// What all random numbers follow from
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    /// Seconds for each cell
    #[arg(long, default_value_t = 60, value_name = "S")]
    limit: u64,
    /// Seconds that a command may take to answer
    #[arg(long, default_value_t = 60, value_name = "S")]
    timeout: u64,
    /// Write record.jsonl, report.html, junit.xml and failures/ here
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// What not to look at, and why: a JSON list of {subject, check, method, dtype, reason}
    #[arg(long, value_name = "FILE.json")]
    skip: Option<PathBuf>,
    /// Failures of the past, tried before anything else
    #[arg(long, value_name = "DIR", default_value = "conformance/regressions")]
    regressions: PathBuf,
    /// Print subjects, checks and faults, and run nothing
    #[arg(long)]
    list: bool,
}

#[derive(Subcommand, Debug)]
enum Again {
    /// Repeat one stored failure exactly
    Replay(AgainArgs),
}

#[derive(Args, Debug)]
struct AgainArgs {
    /// The failure
    #[arg(value_name = "FILE.json")]
    file: PathBuf,
    /// The subject that runs it; without this, the one that failed
    #[arg(long, value_name = "NAME")]
    subject: Option<String>,
    /// The same, as a command
    #[arg(long, value_name = "COMMAND", conflicts_with = "subject")]
    command: Option<String>,
}

/// Runs the matrix, or repeats a failure.
pub fn run(args: &ConformArgs) -> Result<(), Failure> {
    if let Some(Again::Replay(again)) = &args.again {
        return repeat(
            &again.file,
            again.subject.as_deref(),
            again.command.as_deref(),
        );
    }
    if args.list {
        return list();
    }
    let implementations = implementations(args)?;
    let plan = plan(args)?;
    let command: Vec<String> = std::env::args().collect();
    let mut listener = Console::new(args.report.as_deref())?;
    let end = plan.run(&implementations, &command.join(" "), &mut listener);
    listener.progress.finish();
    let end = end?;
    listener.write_reports(args.report.as_deref())?;
    say(&listener.text(&end))?;
    match end.verdict.is_fine() {
        true => Ok(()),
        false => Err(Failure::Run(format!(
            "the worst verdict is {}",
            end.verdict.name()
        ))),
    }
}

fn implementations(args: &ConformArgs) -> Result<Vec<Implementation>, Failure> {
    let all = args.all || (args.subject.is_empty() && args.command.is_empty());
    let mut names = args.subject.clone();
    if all {
        names.extend(subjects::names());
    }
    let built_in = names.iter().map(|name| subjects::built_in(name));
    let commands = args
        .command
        .iter()
        .map(|command| subjects::command(command, args.timeout));
    built_in.chain(commands).collect()
}

fn plan(args: &ConformArgs) -> Result<Plan, Failure> {
    let wanted = |check: &Check| {
        let id = check.id();
        let named = args.check.is_empty() || args.check.iter().any(|name| id.contains(name));
        // Without the smoke set a harness that is broken would look like a wrong implementation.
        let smoke = matches!(check, Check::Smoke(_));
        smoke || (named && !args.smoke)
    };
    let checks: Vec<Check> = Check::all().into_iter().filter(wanted).collect();
    if !args.smoke && !checks.iter().any(|check| !matches!(check, Check::Smoke(_))) {
        return Err(Failure::Input(format!(
            "no check has a name with {}: `lora-pro conform --list` names them",
            args.check.join(" or ")
        )));
    }
    let mut plan = Plan::new(args.seed, args.cases);
    plan.checks = checks;
    plan.methods = args.method.clone();
    plan.limit = Duration::from_secs(args.limit);
    plan.regressions = Regression::load_all(&args.regressions)?;
    plan.failures = args.report.as_ref().map(|folder| folder.join("failures"));
    if !args.dtype.is_empty() {
        plan.dtypes = args.dtype.clone();
    }
    if let Some(path) = &args.skip {
        plan.skips = skips(path)?;
    }
    Ok(plan)
}

fn skips(path: &Path) -> Result<Vec<Skip>, Error> {
    let text = std::fs::read_to_string(path).map_err(|error| Error::file(path, error))?;
    serde_json::from_str(&text).map_err(|error| Error::file(path, error))
}

fn list() -> Result<(), Failure> {
    say(&format!(
        "subjects: {}\n\nchecks:",
        subjects::names().join(" ")
    ))?;
    for check in Check::all() {
        say(&format!("  {:<28} {}", check.id(), check.title()))?;
    }
    say("\nfaults (--subject fault:NAME):")?;
    for fault in &lora_pro_variants::FAULTS {
        say(&format!("  {:<36} {}", fault.id, fault.what))?;
    }
    Ok(())
}

/// Repeats the check of a stored failure on a command, on a built-in subject, or on what failed.
pub fn repeat(file: &Path, subject: Option<&str>, command: Option<&str>) -> Result<(), Failure> {
    let known = Regression::load(file)?;
    let implementation = match (command, subject) {
        (Some(command), _) => subjects::command(command, 60)?,
        (None, Some(name)) => subjects::built_in(name)?,
        (None, None) => subjects::built_in(&known.subject)?,
    };
    let Some(check) = Check::all()
        .into_iter()
        .find(|check| check.id() == known.check)
    else {
        return Err(Failure::Input(format!(
            "{}: there is no check `{}` in this version",
            file.display(),
            known.check
        )));
    };
    let mut plan = Plan::new(0, 0);
    let (method, dtype) = (known.method, known.dtype);
    let stored = format!("{} found {}", known.subject, known.found);
    plan.regressions = vec![known];
    let cell = plan.cell(&implementation, check, dtype, method);
    say(&format!("{}\nnow: {}", stored, line(&cell)))?;
    match cell.verdict.is_fine() {
        true => Ok(()),
        false => Err(Failure::Run(format!("it is {}", cell.verdict.name()))),
    }
}

/// Progress on standard error, the record in its file, what is not fine in memory.
struct Console {
    progress: Progress,
    record: Option<(PathBuf, File)>,
    cells: Vec<Cell>,
}

impl Console {
    fn new(folder: Option<&Path>) -> Result<Self, Failure> {
        let record = match folder {
            None => None,
            Some(folder) => {
                std::fs::create_dir_all(folder).map_err(|error| Error::file(folder, error))?;
                let path = folder.join("record.jsonl");
                let file = File::create(&path).map_err(|error| Error::file(&path, error))?;
                Some((path, file))
            }
        };
        Ok(Console {
            progress: Progress::new(),
            record,
            cells: vec![],
        })
    }

    fn write_reports(&self, folder: Option<&Path>) -> Result<(), Failure> {
        if let (Some(folder), Some((path, _))) = (folder, &self.record) {
            let record = report::read(path)?;
            report::write_all(folder, &record)?;
            note(&format!("report: {}", folder.join("report.html").display()));
        }
        Ok(())
    }

    /// What is not fine, and how many cells are of which kind.
    fn text(&self, end: &End) -> String {
        let failed = self.cells.iter().filter(|cell| !cell.verdict.is_fine());
        let (not_run, run): (Vec<&Cell>, Vec<&Cell>) = failed.partition(|cell| cell.was_not_run());
        let mut lines: Vec<String> = run.into_iter().map(line).collect();
        if !not_run.is_empty() {
            let checks = plural(not_run.len(), "check");
            lines.push(format!(
                "{checks} not run: the subject failed the smoke test"
            ));
        }
        let counts = end.counts.iter();
        let counts: Vec<String> = counts
            .map(|(verdict, count)| format!("{count} {}", verdict.name()))
            .collect();
        lines.push(format!("{} in {:.1} s", counts.join(", "), end.seconds));
        lines.join("\n")
    }
}

impl Listener for Console {
    fn line(&mut self, line: &Line) -> Result<(), Error> {
        if let Some((path, file)) = &mut self.record {
            let text = serde_json::to_string(line).map_err(|error| Error::file(&*path, error))?;
            writeln!(file, "{text}").map_err(|error| Error::file(&*path, error))?;
        }
        if let Line::Cell(cell) = line {
            self.cells.push(cell.clone());
        }
        Ok(())
    }

    fn progress(&mut self, done: usize, total: usize, what: &str) {
        self.progress.set(done, total, what);
    }
}

/// One cell in a line.
fn line(cell: &Cell) -> String {
    let method = cell.method.map(|method| method.to_string());
    let ratio = match cell.verdict {
        Verdict::Pass | Verdict::Marginal | Verdict::Fail => format!(" ratio {:.3e}", cell.ratio),
        _ => String::new(),
    };
    let reason = cell.reason.as_ref().map(|reason| format!(": {reason}"));
    let replay = cell.replay.as_ref();
    let replay = replay.map(|file| format!("\n  lora-pro conform replay {file}"));
    format!(
        "{:<11} {} {} {} {}{ratio}{}{}",
        cell.verdict.name(),
        cell.subject,
        cell.check,
        cell.dtype,
        method.unwrap_or_default(),
        reason.unwrap_or_default(),
        replay.unwrap_or_default(),
    )
}
