//! The real broker is killed under load, again and again, and nothing that it has acknowledged may be missing afterwards.
//!
//! The checker is another process than the broker. It publishes over QUIC with the SDK, and an acknowledgement counts once it
//! is noted in a file and synced. The broker gets SIGKILL at a random moment and is started again on its directory, where it
//! may be killed again while it recovers. What was acknowledged is read back by the readers that were there all the time, by
//! new devices from the beginning, and by history.
//!
//! A *life* ends with a kill. A *chapter* is some lives on one data directory, with one configuration.
//!
//! # The map
//!
//! [`payload`] what is in a message · [`notes`] acknowledgements on disk, [`ledger`] what they say · [`crew`] the load ·
//! [`shape`] what is drawn from the seed · [`victim`] the process · [`tide`] a disk that fills up · [`reading`] one reading and its judgement · [`audit`]
//! reading everything back · [`summary`] what is told.

use std::path::PathBuf;
use std::time::Duration;

use carillon::clock::SystemClock;
use carillon_transport::Clock;

use crate::harness::PATIENCE;
use crate::sim::rng::Rng;
use audit::{Audit, judge_readers};
use crew::Crew;
use ledger::Fault;
use notes::Desk;
use shape::{Death, Shape};
use summary::Summary;
use tide::Tide;
use victim::{Victim, VictimError};

pub mod audit;
pub mod crew;
pub mod ledger;
pub mod notes;
pub mod payload;
pub mod reading;
pub mod shape;
pub mod summary;
pub mod tide;
pub mod victim;

/// What is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The broker's binary.
    pub broker: PathBuf,
    /// Kills in all.
    pub cycles: u32,
    /// Kills on one data directory.
    pub chapter: u32,
    /// Everything is read back after so many kills, and at the end of each chapter.
    pub audit_every: u32,
    /// The choices.
    pub seed: u64,
    /// A life under load ends within this.
    pub window: Duration,
    /// Publishes of one producer without an answer.
    pub in_flight: usize,
    /// A small disk for the data directories, which is filled up again and again.
    pub disk: Option<PathBuf>,
}

/// How far it is: kills, and acknowledged messages.
pub type Show<'a> = &'a mut dyn FnMut(u32, u64);

/// Runs all of it, or up to the chapter in which something was found wrong, whose directory is then kept.
pub async fn run(options: &Options, show: Show<'_>) -> Summary {
    let mut summary = Summary::new(options.seed);
    let begun = SystemClock.now();
    let mut rng = Rng::new(options.seed);
    let mut nth = 0;
    while summary.kills() < options.cycles && summary.findings.is_empty() {
        let cycles = options.chapter.min(options.cycles - summary.kills());
        let mut chapter = match Chapter::begin(options, rng.fork(), nth).await {
            Ok(chapter) => chapter,
            Err(error) => {
                summary.findings.add(Fault::Broken, error);
                break;
            }
        };
        if let Err(error) = chapter.live(cycles, &mut summary, show).await {
            summary.findings.add(Fault::Broken, error);
        }
        chapter.end(&mut summary).await;
        nth += 1;
    }
    summary.took = SystemClock.now().duration_since(begun);
    summary
}

/// One data directory and everything around it.
struct Chapter<'a> {
    options: &'a Options,
    rng: Rng,
    shape: Shape,
    victim: Victim,
    desk: Desk,
    writer: notes::Writer,
    crew: Crew,
    /// Of this chapter's payloads.
    seed: u64,
    /// How long the last undisturbed start took.
    start: Duration,
    audits: u64,
    /// Acknowledged in the chapters before.
    before: u64,
    tide: Option<Tide>,
}

impl<'a> Chapter<'a> {
    async fn begin(options: &'a Options, mut rng: Rng, nth: u32) -> Result<Self, VictimError> {
        let shape = Shape::draw(&mut rng, nth);
        let failed = |source| VictimError::Io { what: "the disk cannot be filled".into(), source };
        let tide = options.disk.as_deref().map(Tide::new).transpose().map_err(failed)?;
        let temporary = std::env::temp_dir();
        let root = tide.as_ref().map_or(&*temporary, Tide::root);
        let mut victim = Victim::new(options.broker.clone(), &shape, root)?;
        let begun = SystemClock.now();
        victim.spawn()?;
        victim.served().await?;
        let start = SystemClock.now().duration_since(begun);
        let failed = |source| VictimError::Io { what: "acknowledgements cannot be noted".into(), source };
        let (desk, writer) = notes::begin(&victim.notes_path()).map_err(failed)?;
        let seed = options.seed ^ u64::from(nth);
        let crew = Crew::muster(&victim, &desk, (seed, options.in_flight, tide.is_some())).await;
        Ok(Self { options, rng, shape, victim, desk, writer, crew, seed, start, audits: 0, before: 0, tide })
    }

    /// So many lives and deaths, and audits between them.
    async fn live(&mut self, cycles: u32, summary: &mut Summary, show: Show<'_>) -> Result<(), VictimError> {
        self.before = summary.acknowledged;
        for cycle in 1..=cycles {
            let death = Death::draw(&mut self.rng, self.start, self.options.window);
            let death = if cycle == 1 { Death::UnderLoad(self.options.window / 2) } else { death };
            if self.tide.is_some() {
                self.at_high_tide(death, summary).await?;
            } else {
                self.die(death, summary).await?;
            }
            show(summary.kills(), self.before + self.count());
            let due = cycle.is_multiple_of(self.options.audit_every) || cycle == cycles;
            if due {
                self.audit(summary).await;
            }
            if !self.desk.book().findings.is_empty() || !summary.findings.is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// A life that ends on a full disk, mostly, and one that begins on it: everybody comes back to it all the same. Then there is room again.
    async fn at_high_tide(&mut self, death: Death, summary: &mut Summary) -> Result<(), VictimError> {
        let failed = |source| VictimError::Io { what: "the disk cannot be filled".into(), source };
        let Some(tide) = &self.tide else { return Ok(()) };
        // Also to publish: from the life before there may be no room yet.
        self.under_load().await;
        tide.rise(Tide::draw(&mut self.rng)).map_err(failed)?;
        summary.filled += 1;
        // Long enough for the broker to see it, or not.
        tokio::time::sleep(self.options.window * self.rng.pick(&[0, 1, 4])).await;
        self.die(death, summary).await?;
        summary.starts_on_full += 1;
        if tokio::time::timeout(PATIENCE, self.crew.returned()).await.is_err() {
            self.desk.book().findings.add(Fault::Broken, "on a full disk, nobody was answered for a minute");
        }
        self.tide.as_ref().map_or(Ok(()), Tide::fall).map_err(failed)
    }

    /// Ends the present life, and begins the next one.
    async fn die(&mut self, death: Death, summary: &mut Summary) -> Result<(), VictimError> {
        match death {
            Death::UnderLoad(after) => {
                // On a full disk nothing is acknowledged; it was before that was filled.
                if self.tide.is_none() {
                    self.under_load().await;
                }
                tokio::time::sleep(after).await;
                summary.under_load += 1;
            }
            Death::WhileTheyReturn(after) => {
                tokio::time::sleep(after).await;
                summary.while_they_return += 1;
            }
            Death::InRecovery(after) => {
                // The life that was, and the one that is over before it has well begun.
                self.victim.kill().await?;
                self.victim.spawn()?;
                tokio::time::sleep(after).await;
                summary.in_recovery += 1;
            }
        }
        self.victim.kill().await?;
        self.recover(summary).await
    }

    async fn recover(&mut self, summary: &mut Summary) -> Result<(), VictimError> {
        let begun = SystemClock.now();
        self.victim.spawn()?;
        self.victim.served().await?;
        self.start = SystemClock.now().duration_since(begun);
        summary.starts.push(self.start);
        Ok(())
    }

    /// Waits until everybody is connected and something was acknowledged in this life.
    async fn under_load(&self) {
        let loaded = async {
            self.crew.returned().await;
            let mut counted = self.desk.counted();
            counted.mark_unchanged();
            counted.changed().await.ok();
        };
        if tokio::time::timeout(PATIENCE, loaded).await.is_err() {
            self.desk.book().findings.add(Fault::Broken, "nothing was acknowledged for a minute after a start");
        }
    }

    async fn audit(&mut self, summary: &mut Summary) {
        self.under_load().await;
        let pause = self.crew.pause().await;
        let (victim, shape, crew, desk) = (&self.victim, &self.shape, &self.crew, &self.desk);
        let audit = Audit { victim, shape, crew, desk, seed: self.seed, nth: self.audits };
        let (audited, findings) = audit.run().await;
        drop(pause);
        self.audits += 1;
        summary.audited(audited);
        summary.findings.absorb(findings);
    }

    fn count(&self) -> u64 {
        self.desk.book().ledger.count
    }

    /// The last judgement: on what the readers were given over all lives.
    async fn end(mut self, summary: &mut Summary) {
        if summary.findings.is_empty() {
            let pause = self.crew.pause().await;
            self.crew.read_up().await;
            summary.findings.absorb(judge_readers(&self.crew, &self.desk).await);
            drop(pause);
        }
        if self.crew.dismiss().await {
            summary.findings.add(Fault::Broken, "a task of the checker panicked");
        }
        let ended = match self.victim.kill().await {
            Ok(()) => self.victim.verify().await,
            Err(error) => Err(error),
        };
        if let Err(error) = ended {
            summary.findings.add(Fault::Broken, error);
        }
        summary.take(&mut self.desk.book());
        summary.logged(self.victim.logged());
        summary.chapters += 1;
        drop(self.desk);
        if let Err(error) = self.writer.join() {
            summary.findings.add(Fault::Broken, format!("acknowledgements were not noted: {error}"));
        }
        if !summary.findings.is_empty() {
            summary.kept = Some(self.victim.keep());
        }
    }
}
