//! The tour: what a broker is for, shown with real clients, each step checked. A step that did not happen ends it.

use std::time::{Duration, Instant};

use carillon::clock::SystemClock;
use carillon_client::{
    Conversation, ConversationId, Ding, Message, MessageKind, NewConversation, Recipients, Seq, StatusList, UserId,
};
use carillon_transport::Clock;

use super::super::context::{Context, Credential};
use super::super::failure::{Exit, Failure};
use super::super::names::Names;
use super::super::out::{Look, Out};
use super::actor::{Actor, Part};
use super::check::Check;
use super::ledger::{Ledger, Line};

/// The group's name: by it a later run finds the group again.
const GROUP: &str = "tour";

/// The member who is away.
const AWAY: &str = "dora";

/// A step takes milliseconds.
const STEP_MAX: Duration = Duration::from_secs(60);

/// The tour's group has four members, so one page holds them.
const PAGE: u16 = 100;

/// A message of the group that the broker acknowledged.
pub(super) type Said = (Seq, String);

/// Gives the tour. `is_new`: the journal was made by this process.
pub(super) async fn give(context: &Context, is_new: bool, out: &mut Out) -> Result<(), Failure> {
    let mut tour = Tour::begin(context, out).await?;
    if !is_new && tour.found_group {
        tour.show_what_survived().await?;
    }
    in_time(tour.show_messages()).await?;
    in_time(tour.show_receipts()).await?;
    in_time(tour.show_ding_and_return()).await?;
    in_time(tour.show_offline()).await?;
    tour.show_figures()?;
    tour.end().await;
    Ok(())
}

/// A broker that hangs must not hang the tour, and whoever waits for it.
async fn in_time(step: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let late = || Failure::new(Exit::Failed, format!("this step takes longer than {STEP_MAX:?}"));
    tokio::time::timeout(STEP_MAX, step).await.unwrap_or_else(|_| Err(late()))
}

struct Tour<'a> {
    context: &'a Context,
    out: &'a mut Out,
    key: std::path::PathBuf,
    alice: Actor,
    bob: Actor,
    carol: Actor,
    away: UserId,
    names: Names,
    group: ConversationId,
    found_group: bool,
    ledger: Ledger,
    run: u64,
    step: u32,
    /// Messages that were published for the away member to come back to.
    missed: Vec<Said>,
    latencies: Vec<Duration>,
    delivered: usize,
    expected: usize,
    confirmed: u32,
}

impl<'a> Tour<'a> {
    async fn begin(context: &'a Context, out: &'a mut Out) -> Result<Self, Failure> {
        let Credential::Key(key) = context.credential()? else {
            return Err(Failure::usage("a development context has a token key"));
        };
        let alice = Actor::connect(context, &key, "alice", Part::Author).await?;
        for settled in alice.client.recovered() {
            // Left by a killed run. A refusal now is one that run would have had.
            tokio::time::timeout(STEP_MAX, settled).await.ok();
        }
        let mut ledger = Ledger::open(&context.state, alice.client.welcome().incarnation.0).map_err(ledger_failed)?;
        let run = ledger.begin_run().map_err(ledger_failed)?;
        let mut bob = Actor::connect(context, &key, "bob", Part::Member).await?;
        let mut carol = Actor::connect(context, &key, "carol", Part::Member).await?;
        let failed = |error| Failure::request("making the tour's group", error);
        let away = alice.client.create_user(AWAY).await.map_err(failed)?;
        let new = NewConversation::group([bob.user, carol.user, away]).named(GROUP);
        let created = alice.client.create_conversation(new).await.map_err(failed)?;
        let (group, found_group) = (created.conversation, created.existed == 1);
        let mut alice = alice;
        let head = carol.client.welcome().head;
        for member in [&mut alice, &mut bob, &mut carol] {
            member.receive_through(group, head, |_| {}).await?;
        }
        let names = Names::new(alice.client.clone());
        Ok(Self {
            context,
            out,
            key,
            alice,
            bob,
            carol,
            away,
            names,
            group,
            found_group,
            ledger,
            run,
            step: 0,
            missed: Vec::new(),
            latencies: Vec::new(),
            delivered: 0,
            expected: 0,
            confirmed: 0,
        })
    }

    fn heading(&mut self, text: &str) -> Result<(), Failure> {
        self.step += 1;
        let heading = self.out.styled(Look::Strong, format_args!("{}. {text}", self.step));
        self.out.line(format_args!("\n{heading}"))?;
        Ok(self.out.flush()?)
    }

    fn say(&mut self, who: &str, text: impl std::fmt::Display) -> Result<(), Failure> {
        self.out.line(format_args!("   {who:<12} {text}"))?;
        Ok(self.out.flush()?)
    }

    fn good(&mut self, who: &str, text: impl std::fmt::Display) -> Result<(), Failure> {
        let text = self.out.styled(Look::Good, text);
        self.say(who, text)
    }

    async fn away_connects(&mut self, part: Part) -> Result<Actor, Failure> {
        Actor::connect(self.context, &self.key, AWAY, part).await
    }

    /// After a restart: the member who was away gets what was left, and everything that was ever acknowledged is there.
    async fn show_what_survived(&mut self) -> Result<(), Failure> {
        self.heading("The broker was started again: is everything there?")?;
        // Asked before they connect, so that what they are given reaches at least there, even if others publish meanwhile.
        let last = self.last_seq().await?;
        let mut member = self.away_connects(Part::Away).await?;
        let head = member.client.welcome().head;
        let mut check = Check::after(Seq(self.ledger.received()));
        member.receive_through(self.group, head, |message| check.take(message)).await?;
        let given = check.finish(last)?;
        let end = given.end;
        match (given.first, given.again) {
            (None, _) => self.say(AWAY, "had everything already, and was given nothing twice")?,
            (Some(first), 0) => {
                self.good(AWAY, format_args!("missed #{first} to #{end}: got them in order, each once"))?;
            }
            (Some(first), again) => {
                self.good(AWAY, format_args!("got #{first} to #{end} in order, each once, {again} of them again:"))?;
                self.say("", "her device was killed before it had noted that it had them")?;
            }
        }
        self.received(member, end).await?;
        let mut auditor = self.away_connects(Part::Auditor).await?;
        let head = auditor.client.welcome().head;
        let mut check = Check::promised(self.ledger.acknowledged());
        auditor.receive_through(self.group, head, |message| check.take(message)).await?;
        auditor.client.close().await;
        let given = check.finish(last)?;
        let (end, promised) = (given.end, given.promised);
        self.say("", format_args!("a new device of hers reads the whole group: {end} messages without a gap;"))?;
        self.good("", format_args!("all {promised} that earlier tours saw acknowledged are among them, each once"))
    }

    async fn last_seq(&self) -> Result<Seq, Failure> {
        let Conversation { entry, .. } = self.names.own(self.group).await?;
        Ok(entry.last_seq)
    }

    /// The member goes away again, and it is noted how far they had come: before the device notes it, so that killed in between, it
    /// is given again what it had, and never seems to have missed anything.
    async fn received(&mut self, member: Actor, last: Seq) -> Result<(), Failure> {
        self.ledger.add(Line::Received { seq: last.0 }).map_err(ledger_failed)?;
        member.acknowledge(self.group);
        member.client.close().await;
        Ok(())
    }

    async fn show_messages(&mut self) -> Result<(), Failure> {
        self.heading("A group with a member who is offline")?;
        let group = self.group;
        let verb = if self.found_group { "is still there" } else { "was made" };
        self.say("alice", format!("the group {GROUP:?} (conversation {group}) {verb}"))?;
        self.say("", format!("alice, bob and carol are connected; {AWAY} is a member too, and is not"))?;
        self.heading("Messages: acknowledged when durable, then delivered")?;
        for text in ["The ferry leaves at 14:20.", "Gate 3, not 5.", "Bring the blue folder."] {
            let said = self.publish(Sender::Alice, text).await?;
            self.missed.push(said);
        }
        let said = self.publish(Sender::Bob, "On my way.").await?;
        self.missed.push(said);
        let missed = self.missed.clone();
        self.deliver(&missed).await
    }

    async fn publish(&mut self, sender: Sender, text: &str) -> Result<Said, Failure> {
        let text = format!("{text} (tour {})", self.run);
        let actor = match sender {
            Sender::Alice => &self.alice,
            Sender::Bob => &self.bob,
        };
        let begun = now();
        let published = actor.client.publish(self.group, MessageKind::TEXT, text.clone()).await;
        let published = published.map_err(|error| Failure::from(error).about("publishing"))?;
        let took = now() - begun;
        let handle = actor.handle;
        self.latencies.push(took);
        self.ledger.add(Line::Acknowledged { seq: published.seq.0, text: text.clone() }).map_err(ledger_failed)?;
        let after = self.out.styled(Look::Faint, format_args!("durable after {}", milliseconds(took)));
        self.say(handle, format!("{GROUP}#{} {text:?}  {after}", published.seq))?;
        Ok((published.seq, text))
    }

    /// Everyone connected gets these, in order, each once; the author's device too.
    async fn deliver(&mut self, said: &[Said]) -> Result<(), Failure> {
        let last = said.last().map_or(Seq(0), |(seq, _)| *seq);
        for member in [&mut self.alice, &mut self.bob, &mut self.carol] {
            let given = member.receive(self.group, last).await?;
            self.delivered += check_said(&given, said).map_err(|failure| failure.about(member.handle))?;
            self.expected += said.len();
        }
        let first = said.first().map_or(Seq(0), |(seq, _)| *seq);
        self.good("bob, carol", format!("got {GROUP}#{first} to #{last}, in order, each once"))
    }

    async fn show_receipts(&mut self) -> Result<(), Failure> {
        let seq = self.missed[2].0;
        self.heading("Who has read it?")?;
        self.bob.client.mark_read(self.group, seq).await.map_err(|error| Failure::request("marking as read", error))?;
        self.say("bob", format!("has read up to #{seq}"))?;
        self.alice.read_update(self.group, self.bob.user, seq).await?;
        self.say("alice", format!("is told so, and asks about #{seq}:"))?;
        self.show_readers(seq).await
    }

    async fn show_readers(&mut self, seq: Seq) -> Result<(), Failure> {
        for (list, title) in [(StatusList::DONE, "read"), (StatusList::OPEN, "not read")] {
            let page = self.alice.client.read_status(self.group, seq, list, UserId(0), PAGE).await;
            let page = page.map_err(|error| Failure::request("asking who has read", error))?;
            let users: Vec<_> = page.entries.iter().map(|entry| entry.user).collect();
            let handles = self.names.handles(&users).await?.join(", ");
            let handles = if handles.is_empty() { "nobody".to_owned() } else { handles };
            self.say("", format!("{title:<9} {}", self.out.styled(Look::Good, handles)))?;
        }
        Ok(())
    }

    async fn show_ding_and_return(&mut self) -> Result<(), Failure> {
        self.heading("A DING: it rings until it is confirmed")?;
        let recipients = Recipients::Users(vec![self.bob.user, self.away]);
        let ding = Ding::new(recipients, MessageKind::TEXT, "Fire drill at noon: confirm that you know.");
        let created = self.alice.client.ding(ding).await.map_err(|error| Failure::request("sending a DING", error))?;
        let ding = created.ding;
        self.say("alice", format!("rings bob and {AWAY}: \"Fire drill at noon: confirm that you know.\""))?;
        self.bob.rung(ding).await?;
        self.bob.client.confirm(ding).await.map_err(|error| Failure::request("confirming", error))?;
        let loud = self.out.styled(Look::Loud, "it rings;");
        self.say("bob", format!("{loud} he confirms"))?;
        let update = self.alice.ding_update(ding, self.bob.user).await?;
        self.say("alice", format!("{} of {} have confirmed", update.confirmed, update.recipients))?;

        self.heading(&format!("{AWAY} comes online"))?;
        let mut member = self.away_connects(Part::Away).await?;
        member.rung(ding).await?;
        let when = if member.has_messages() { "it rings;" } else { "it rings at once, before any message;" };
        let loud = self.out.styled(Look::Loud, when);
        member.client.confirm(ding).await.map_err(|error| Failure::request("confirming", error))?;
        self.say(AWAY, format!("{loud} she confirms"))?;
        let update = self.alice.ding_update(ding, self.away).await?;
        if update.confirmed != created.recipients {
            return Err(Failure::new(Exit::Failed, "the DING was not confirmed by all"));
        }
        self.confirmed = update.confirmed;
        self.good("alice", format!("{} of {} have confirmed", update.confirmed, update.recipients))?;
        self.catch_up(member).await
    }

    /// The member who was away gets what they missed, reads it, and goes away again.
    async fn catch_up(&mut self, mut member: Actor) -> Result<(), Failure> {
        let last = self.missed.last().map_or(Seq(0), |(seq, _)| *seq);
        let given = member.receive(self.group, last).await?;
        let end = given.last().map_or(last, |message| message.seq);
        self.delivered += check_said(&given, &self.missed).map_err(|failure| failure.about(AWAY))?;
        self.expected += self.missed.len();
        for (seq, text) in self.missed.clone() {
            self.say(AWAY, format!("missed {GROUP}#{seq} {text:?}"))?;
        }
        self.good(AWAY, "has all she missed, in order, each once")?;
        let seq = self.missed[2].0;
        member.client.mark_read(self.group, last).await.map_err(|error| Failure::request("marking as read", error))?;
        self.alice.read_update(self.group, self.away, seq).await?;
        self.say(AWAY, format!("has read up to #{last}; so for #{seq}:"))?;
        self.show_readers(seq).await?;
        self.received(member, end).await
    }

    async fn show_offline(&mut self) -> Result<(), Failure> {
        self.heading(&format!("{AWAY} goes offline, and two more messages wait for her in the journal"))?;
        let first = self.publish(Sender::Alice, "Moved to gate 7.").await?;
        let second = self.publish(Sender::Alice, "Boarding now.").await?;
        self.deliver(&[first, second]).await?;
        self.say("", "they are hers when she connects, be the broker killed in between")
    }

    fn show_figures(&mut self) -> Result<(), Failure> {
        self.latencies.sort_unstable();
        let count = self.latencies.len();
        let (median, slowest) = (self.latencies[count / 2], self.latencies[count - 1]);
        let heading = self.out.styled(Look::Strong, "What happened");
        self.out.line(format_args!("\n{heading}"))?;
        self.say("published", format!("{count} messages, {count} durable when acknowledged"))?;
        self.say("", format!("after {} (median) to {}", milliseconds(median), milliseconds(slowest)))?;
        let (delivered, expected) = (self.delivered, self.expected);
        self.say(
            "delivered",
            format!("{delivered} of {expected}: to alice, bob and carol live, to {AWAY} when she came"),
        )?;
        self.say("waiting", format!("2 messages for {AWAY}"))?;
        self.say("DING", format!("confirmed by {} of 2", self.confirmed))
    }

    async fn end(self) {
        for member in [self.alice, self.bob, self.carol] {
            member.client.close().await;
        }
    }
}

#[derive(Clone, Copy)]
enum Sender {
    Alice,
    Bob,
}

/// Exactly these were given, in this order; how many that is. Others may publish into the group meanwhile: theirs are not looked at.
fn check_said(given: &[Message], said: &[Said]) -> Result<usize, Failure> {
    let ours = given.iter().filter(|message| said.iter().any(|(seq, _)| *seq == message.seq));
    let ours: Vec<_> =
        ours.map(|message| (message.seq, String::from_utf8_lossy(&message.payload).into_owned())).collect();
    if ours == said {
        return Ok(ours.len());
    }
    Err(Failure::new(Exit::Failed, format!("was to be given {said:?} and was given {ours:?}")))
}

fn ledger_failed(error: std::io::Error) -> Failure {
    Failure::caused(Exit::Failed, format!("cannot keep the tour's ledger in the state directory: {error}"), error)
}

fn now() -> Instant {
    SystemClock.now()
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1_000.0)
}
