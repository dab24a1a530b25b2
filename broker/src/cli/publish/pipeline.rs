//! Many messages on their way at once, their results in the order of the lines.

use std::collections::{HashMap, VecDeque};
use std::future::ready;
use std::io::{self, IsTerminal};

use carillon_client::{MessageKind, PublishHandle, Published, To};
use serde_json::Value;
use tokio::signal::unix::SignalKind;

use super::held::{self, Held};
use super::input::{Bad, Line, Lines, Target, Wanted};
use super::{Defaults, check_text, object, resolve};
use crate::cli::failure::{Exit, Failure};
use crate::cli::out::Out;
use crate::cli::progress::{Progress, Unit};
use crate::cli::running::on;
use crate::cli::session::Session;

/// Publishes on their way at once: what a producer may have unsettled. Lines beyond it are not sent yet.
const PIPELINE_MAX: usize = 1_024;

/// Targets of lines whose ids are remembered; when there are more, all are forgotten and asked for again.
const TARGETS_MAX: usize = 10_000;

/// What is done about a line that cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnBad {
    /// Nothing after it is sent.
    Stop,
    /// It is reported, and the others are sent.
    KeepGoing,
}

/// A line that was read and has not been told of.
struct Entry {
    number: u64,
    end: u64,
    id: Option<Value>,
    outcome: Outcome,
}

enum Outcome {
    /// On its way.
    Sent(PublishHandle),
    /// Not sent; taken when it is told.
    Bad(Option<Failure>),
}

/// Lines that are on their way, in order, and how it went so far.
pub(super) struct Pipeline<'a> {
    session: &'a Session,
    defaults: &'a Defaults,
    on_bad: OnBad,
    out: &'a mut Out,
    progress: Progress,
    counts_bytes: bool,
    targets: HashMap<Target, To>,
    open: VecDeque<Entry>,
    durable: u64,
    failed: u64,
    /// Why no more lines are taken: the first failure, or that nobody reads the output any more.
    ended: Option<Failure>,
    /// A line could not be sent, and no other is to follow it.
    is_stopped: bool,
    /// Lines were printed and not shown.
    is_unshown: bool,
}

impl<'a> Pipeline<'a> {
    pub(super) fn new(session: &'a Session, defaults: &'a Defaults, on_bad: OnBad, out: &'a mut Out) -> Self {
        let total = file_bytes();
        let unit = if total.is_some() { Unit::Bytes } else { Unit::Things("lines") };
        // With an object for each line the screen moves anyhow.
        let progress = if defaults.json {
            Progress::beside_output("publishing", total, unit)
        } else {
            Progress::new("publishing", total, unit)
        };
        Self {
            session,
            defaults,
            on_bad,
            out,
            progress,
            counts_bytes: total.is_some(),
            targets: HashMap::new(),
            open: VecDeque::new(),
            durable: 0,
            failed: 0,
            ended: None,
            is_stopped: false,
            is_unshown: false,
        }
    }

    /// Sends lines until the end, an interrupt, or one that cannot be sent; waits for what is on its way, and says how it went.
    pub(super) async fn run(mut self, mut lines: Lines) -> Result<(), Failure> {
        let mut interrupt = on(SignalKind::interrupt())?;
        let (mut held, mut looks) = (Held::default(), held::looks());
        let mut is_reading = true;
        while is_reading || !self.open.is_empty() {
            let has_room = self.open.len() < PIPELINE_MAX;
            tokio::select! {
                biased;
                _ = interrupt.recv() => {
                    if !is_reading {
                        let text = "interrupted again; the next `pub` of this user sends what is on its way";
                        return Err(Failure::new(Exit::Failed, text));
                    }
                    self.progress.note("carillon: interrupted; waiting for the lines that were sent");
                    is_reading = false;
                }
                result = oldest(&mut self.open), if !self.open.is_empty() => self.settle(result),
                line = lines.recv(), if is_reading && has_room => match line {
                    Some(Ok(line)) => tokio::select! {
                        biased;
                        _ = interrupt.recv() => {
                            self.progress.note("carillon: interrupted; waiting for the lines that were sent");
                            is_reading = false;
                        }
                        () = self.send(line) => {}
                    },
                    Some(Err(failure)) => self.end(failure),
                    None => is_reading = false,
                },
                () = ready(()), if self.is_unshown => self.show(),
                _ = looks.tick() => {
                    if let Some(text) = held.look(self.session.client.held_back()) {
                        self.progress.note(text);
                    }
                }
            }
            is_reading &= self.ended.is_none() && !self.is_stopped;
        }
        self.finish()
    }

    /// Puts a line on its way, or in its place as one that cannot be sent.
    async fn send(&mut self, line: Line) {
        let Line { number, end, wanted } = line;
        let (id, outcome) = match wanted {
            Ok(Wanted { id, target, kind, payload }) => {
                let kind = kind.unwrap_or(self.defaults.kind).message_kind();
                (id, self.enqueue(target, kind, payload).await)
            }
            Err(Bad { id, failure }) => (id, Err(failure)),
        };
        self.is_stopped |= outcome.is_err() && self.on_bad == OnBad::Stop;
        let outcome = outcome.map_or_else(|failure| Outcome::Bad(Some(failure)), Outcome::Sent);
        self.open.push_back(Entry { number, end, id, outcome });
    }

    async fn enqueue(
        &mut self,
        target: Option<Target>,
        kind: MessageKind,
        payload: bytes::Bytes,
    ) -> Result<PublishHandle, Failure> {
        check_text(kind, &payload, "it")?;
        let to = match (target, self.defaults.to) {
            (Some(target), _) => self.resolve(target).await?,
            (None, Some(to)) => to,
            (None, None) => return Err(Failure::usage("it does not say to whom: `to` or `conversation` is missing")),
        };
        Ok(self.session.client.enqueue(to, kind, payload).await?)
    }

    async fn resolve(&mut self, target: Target) -> Result<To, Failure> {
        if let Some(to) = self.targets.get(&target) {
            return Ok(*to);
        }
        let to = resolve(&self.session.names, &target).await?;
        if self.targets.len() >= TARGETS_MAX {
            self.targets.clear();
        }
        self.targets.insert(target, to);
        Ok(to)
    }

    /// Tells of the oldest line.
    fn settle(&mut self, result: Result<Published, Failure>) {
        let Some(Entry { number, end, id, .. }) = self.open.pop_front() else { return };
        let told = match result {
            Ok(published) => {
                self.durable += 1;
                if self.defaults.json { self.tell(number, id, object(&published)) } else { Ok(()) }
            }
            Err(failure) => self.settle_bad(number, id, failure),
        };
        self.progress.at(if self.counts_bytes { end } else { self.durable + self.failed });
        if let Err(error) = told {
            self.end(error.into());
        }
    }

    fn settle_bad(&mut self, number: u64, id: Option<Value>, failure: Failure) -> io::Result<()> {
        self.failed += 1;
        let is_final = failure.exit() == Some(Exit::Unreachable) || failure.is_reset();
        let code = failure.refusal();
        let failure = failure.about(&format!("line {number}"));
        let report = failure.report(false).unwrap_or_default();
        if is_final || self.on_bad == OnBad::Stop {
            self.end(failure);
        } else if !self.defaults.json {
            self.progress.note(&report);
        }
        if !self.defaults.json {
            return Ok(());
        }
        let error = report.trim_start_matches("carillon: ");
        self.tell(number, id, serde_json::json!({ "error": error, "code": code.map(|code| code.to_string()) }))
    }

    fn tell(&mut self, number: u64, id: Option<Value>, mut object: Value) -> io::Result<()> {
        object["line"] = number.into();
        if let Some(id) = id {
            object["id"] = id;
        }
        self.is_unshown = true;
        self.out.json(&object)
    }

    fn show(&mut self) {
        self.is_unshown = false;
        if let Err(error) = self.out.flush() {
            self.end(error.into());
        }
    }

    /// No more is sent; the first reason counts.
    fn end(&mut self, failure: Failure) {
        self.ended.get_or_insert(failure);
    }

    fn finish(self) -> Result<(), Failure> {
        let Self { durable, failed, .. } = self;
        drop(self.progress);
        if !self.defaults.json {
            let lines = if durable == 1 { "line" } else { "lines" };
            self.out.line(format_args!("{durable} {lines} published, all durable"))?;
        }
        self.out.flush()?;
        match self.ended {
            Some(failure) => Err(failure),
            None if failed > 0 => {
                let text = format!("{failed} of {} lines were not published", durable + failed);
                Err(Failure::new(Exit::Failed, text))
            }
            None => Ok(()),
        }
    }
}

/// Waits for the oldest line's result; pending without one. Cancel safe.
async fn oldest(open: &mut VecDeque<Entry>) -> Result<Published, Failure> {
    let Some(entry) = open.front_mut() else { return std::future::pending().await };
    match &mut entry.outcome {
        Outcome::Sent(handle) => Ok(handle.await?),
        Outcome::Bad(failure) => Err(failure.take().expect("a line is told of once")),
    }
}

/// How long standard input is, if it is a file.
fn file_bytes() -> Option<u64> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        return None;
    }
    let status = rustix::fs::fstat(&stdin).ok()?;
    let is_file = rustix::fs::FileType::from_raw_mode(status.st_mode).is_file();
    u64::try_from(status.st_size).ok().filter(|_| is_file)
}
