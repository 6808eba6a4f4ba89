//! A child process that answers lines with lines, within limits.
//!
//! Every wait has an end: threads move the lines, so that a child which reads nothing, writes
//! nothing or writes without end stops only itself, and a child that is given up is killed
//! with all that it has started.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::protocol::NOT_IMPLEMENTED;

/// What a child may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Time for one answer; the first includes the start.
    pub time: Duration,
    /// Bytes of address space, where the system's shell can limit it (`ulimit -v`).
    pub memory: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            time: Duration::from_secs(60),
            memory: None,
        }
    }
}

/// Why a child is of no more use.
#[derive(Debug)]
pub(super) enum Ended {
    /// It says that it implements nothing of this.
    NotImplemented,
    /// It failed, with the last lines of its standard error.
    Failed(String),
}

/// Longest line that is read; a message is far shorter.
const LONGEST: u64 = 1 << 22;

/// Lines of standard error that are kept, and bytes of each.
const TAIL: (usize, usize) = (8, 400);

/// How long a child that is to go may take before it is killed.
const GRACE: Duration = Duration::from_millis(500);

/// A running child.
pub(super) struct Process {
    child: Child,
    /// None once it has been told to stop.
    requests: Option<Sender<String>>,
    answers: Receiver<String>,
    tail: Arc<Mutex<VecDeque<String>>>,
    errors: Option<JoinHandle<()>>,
    time: Duration,
}

impl Process {
    pub fn start(command: &str, limits: Limits) -> Result<Self, Ended> {
        let mut child = shell(command, limits.memory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| Ended::Failed(format!("cannot be started: {error}")))?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
            // Cannot happen: all three were asked for.
            return Err(Ended::Failed("has no pipes".into()));
        };
        let (requests, to_write) = channel::<String>();
        thread::spawn(move || write_lines(stdin, &to_write));
        let (found, answers) = sync_channel::<String>(1);
        thread::spawn(move || {
            read_lines(stdout, |line| found.send(line).is_ok());
        });
        let tail = Arc::new(Mutex::new(VecDeque::new()));
        let kept = Arc::clone(&tail);
        let errors = thread::spawn(move || read_lines(stderr, |line| keep(&kept, line)));
        Ok(Process {
            child,
            requests: Some(requests),
            answers,
            tail,
            errors: Some(errors),
            time: limits.time,
        })
    }

    /// The line that answers a line.
    pub fn ask(&mut self, line: String) -> Result<String, Ended> {
        let sent = self.requests.as_ref().map(|requests| requests.send(line));
        let answer = match sent {
            Some(Ok(())) => self.answers.recv_timeout(self.time),
            _ => Err(RecvTimeoutError::Disconnected),
        };
        answer.map_err(|error| match error {
            RecvTimeoutError::Timeout => {
                let seconds = self.time.as_secs_f64();
                self.failed(&format!("did not answer within {seconds} s"))
            }
            RecvTimeoutError::Disconnected => self.died(),
        })
    }

    /// Gives the child up.
    pub fn failed(&mut self, what: &str) -> Ended {
        self.kill();
        Ended::Failed(format!("{what}{}", self.last_words()))
    }

    fn died(&mut self) -> Ended {
        match self.wait(GRACE) {
            Some(status) if status.code() == Some(NOT_IMPLEMENTED) => Ended::NotImplemented,
            Some(status) => self.failed(&format!("died ({status})")),
            None => self.failed("closed its output"),
        }
    }

    fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let end = Instant::now() + limit;
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            if Instant::now() >= end {
                return None;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn kill(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            kill_group(&self.child);
        }
        // Fails only where it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The last lines of standard error, once they have arrived.
    fn last_words(&mut self) -> String {
        let end = Instant::now() + GRACE;
        while let Some(errors) = &self.errors
            && !errors.is_finished()
            && Instant::now() < end
        {
            thread::sleep(Duration::from_millis(5));
        }
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        match tail.len() {
            0 => String::new(),
            _ => format!(": {}", Vec::from_iter(tail.iter().cloned()).join(" | ")),
        }
    }
}

/// The end of its input tells the child to go; what stays is killed.
impl Drop for Process {
    fn drop(&mut self) {
        self.requests = None;
        self.wait(GRACE);
        self.kill();
    }
}

fn write_lines(mut pipe: impl Write, lines: &Receiver<String>) {
    for line in lines {
        // A broken pipe means a dead child, which is noticed where the answer is awaited.
        if writeln!(pipe, "{line}")
            .and_then(|()| pipe.flush())
            .is_err()
        {
            return;
        }
    }
}

/// Hands on line by line until the end, or until no more is wanted.
fn read_lines(pipe: impl Read, mut wanted: impl FnMut(String) -> bool) {
    let mut pipe = BufReader::new(pipe);
    loop {
        let mut line = Vec::new();
        let read = (&mut pipe).take(LONGEST).read_until(b'\n', &mut line);
        let line = String::from_utf8_lossy(&line).trim_end().to_string();
        if !matches!(read, Ok(1..)) || !wanted(line) {
            return;
        }
    }
}

fn keep(tail: &Mutex<VecDeque<String>>, line: String) -> bool {
    let mut tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
    if tail.len() == TAIL.0 {
        tail.pop_front();
    }
    tail.push_back(line.chars().take(TAIL.1).collect());
    true
}

/// The command in a shell that limits itself and then becomes the command, in a process group of
/// its own, so that all of it can be killed.
#[cfg(unix)]
fn shell(command: &str, memory: Option<u64>) -> Command {
    use std::os::unix::process::CommandExt;
    let limit = memory.map_or(String::new(), |bytes| {
        format!("ulimit -v {} && ", bytes.div_ceil(1024))
    });
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("{limit}exec {command}")]);
    shell.process_group(0);
    shell
}

#[cfg(not(unix))]
fn shell(command: &str, _memory: Option<u64>) -> Command {
    let mut shell = Command::new("cmd");
    shell.args(["/C", command]);
    shell
}

/// The child has not been waited for yet, so its number is still its own.
#[cfg(unix)]
fn kill_group(child: &Child) {
    let group = format!("kill -s KILL -- -{}", child.id());
    // What cannot be killed like this is killed alone, by the caller.
    let _ = Command::new("sh")
        .args(["-c", &group])
        .stderr(Stdio::null())
        .status();
}

#[cfg(not(unix))]
fn kill_group(_child: &Child) {}
