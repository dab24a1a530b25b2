//! Coming to rest: everybody reads, sends and answers until nothing is left to do, an edge getting a turn only when
//! something wakes it. Then everybody must have everything.

use std::collections::BTreeSet;

use carillon::edge::{Held, Left};
use carillon_protocol::ids::Position;

use super::session::Session;
use super::world::{Outcome, World};

/// Rounds of everybody doing what there is to do; far more than any run needs.
const ROUNDS_MAX: usize = 5_000;

/// Longer than an edge's tick.
const TICK_MS: u64 = 1_100;

impl World {
    /// Comes to rest, and judges.
    pub(super) fn rest(&mut self) -> Outcome {
        self.calm();
        self.ebb()?;
        self.settle()?;
        self.judge()?;
        self.judge_escalations()?;
        self.judge_dings()?;
        self.judge_progress()?;
        self.tell_behind()?;
        self.judge_told()?;
        self.judge_live()?;
        for station in &mut self.life.stations {
            station.links.stingy = self.shape.stingy;
        }
        Ok(())
    }

    /// The edges end: what was handed to them is answered, everybody is told, and nobody is left.
    pub(super) fn end(&mut self) -> Outcome {
        self.calm();
        for _ in 0..20 {
            self.publish_any();
        }
        for id in self.ids() {
            self.send_up(id, usize::MAX);
        }
        for nth in 0..self.life.stations.len() {
            self.turn(nth, usize::MAX)?;
        }
        self.draining = true;
        for station in &mut self.life.stations {
            station.edge.drain(&mut station.links);
        }
        self.settle()?;
        for session in self.sessions.values() {
            let missing = session.who.and_then(|who| session.next_due(who, &self.ledger));
            if !session.told_goodbye || missing.is_some() {
                let told = session.told_goodbye;
                return Err(format!("at the end, session {}: goodbye {told}, missing {missing:?}", session.id));
            }
        }
        for nth in 0..self.life.stations.len() {
            let station = &mut self.life.stations[nth];
            if !station.edge.is_settled() {
                return Err(format!("edge {nth} waits for answers at rest"));
            }
            station.edge.close_all(&mut station.links);
            self.turn(nth, usize::MAX)?;
        }
        self.settle()?;
        if self.sessions.is_empty() { Ok(()) } else { Err("a session outlives its edge".into()) }
    }

    /// Until nothing is left to do.
    pub(super) fn settle(&mut self) -> Outcome {
        self.note(|| "comes to rest".into());
        for station in &mut self.life.stations {
            station.links.stingy = 0;
        }
        for id in self.ids() {
            let (edge, link) = (self.sessions[&id].edge, self.sessions[&id].link);
            self.life.stations[edge].links.set_window(link, 1 << 20);
            self.session(id).deaf_until = 0;
        }
        for _ in 0..ROUNDS_MAX {
            if !self.settle_once()? {
                return Ok(());
            }
        }
        let left: Vec<Left> = self.life.stations.iter().map(|station| station.left).collect();
        Err(format!("it does not come to rest: the edges have left {left:?}"))
    }

    fn ids(&self) -> Vec<usize> {
        self.sessions.keys().copied().collect()
    }

    /// Everybody does what there is to do; returns whether there was anything.
    fn settle_once(&mut self) -> Result<bool, String> {
        let mut busy = false;
        for id in self.ids() {
            busy |= self.send_up(id, usize::MAX);
            let (edge, link) = (self.sessions[&id].edge, self.sessions[&id].link);
            for stream in self.life.stations[edge].links.streams(link) {
                busy |= self.read(id, stream, usize::MAX)? > 0;
            }
        }
        busy |= self.send_all_refused_again()?;
        let head = self.ledger.head;
        self.step()?;
        busy |= self.ledger.head > head;
        for nth in 0..self.life.stations.len() {
            let station = &self.life.stations[nth];
            if station.links.has_events() || station.wake.is_set() || station.left != Left::Nothing {
                busy = true;
                self.turn(nth, usize::MAX)?;
            }
        }
        while self.life.bodies.waiting() > 0 {
            busy = true;
            self.life.bodies.answer(0);
            self.mind_disk()?;
        }
        Ok(self.call_all()? || busy)
    }

    /// Everything is there, once and in order: the order and the once were judged frame by frame.
    fn judge(&self) -> Outcome {
        for (nth, station) in self.life.stations.iter().enumerate() {
            let (seen, head) = (station.edge.seen(), self.ledger.head);
            if seen != head {
                return Err(format!("edge {nth} rests at {seen}, the journal ends at {head}"));
            }
            if let Some((link, held)) = station.edge.held().find(|(_, held)| *held != Held::default()) {
                return Err(format!("edge {nth} rests and holds {held:?} for {link:?}"));
            }
            let here = self.sessions.values().filter(|session| session.edge == nth).count();
            if station.edge.sessions() != here {
                return Err(format!("edge {nth} has {} sessions, clients have {here}", station.edge.sessions()));
            }
        }
        let mut spoken_for = BTreeSet::new();
        for session in self.sessions.values() {
            if !spoken_for.insert((session.person, session.ids.0)) {
                return Err(format!("session {} has company: {:?} has two sessions", session.id, session.ids));
            }
        }
        self.sessions.values().try_for_each(|session| {
            self.judge_session(session).map_err(|why| format!("at rest, session {}: {why}", session.id))
        })
    }

    fn judge_session(&self, session: &Session) -> Outcome {
        if let Some(code) = session.misbehaved {
            return Err(format!("it should have been closed for {code:?}"));
        }
        if session.is_retired(&self.ledger) {
            return Err(format!("it should have been closed: {:?} were retired", session.ids));
        }
        let who = session.who.ok_or("it was not welcomed")?;
        if let Some(missing) = session.next_due(who, &self.ledger) {
            return Err(format!("{missing} is missing after {}", session.last));
        }
        if !session.pending.is_empty() {
            return Err(format!("without a reply: {:?}", session.pending));
        }
        let device = &self.devices[session.device];
        let publishes = device.current == Some(session.id) && session.ids.1 == device.producer;
        if publishes && !device.unsettled.is_empty() {
            return Err(format!("without an answer: publishes {:?}", device.unsettled.keys()));
        }
        for (id, ding) in self.ledger.dings.iter() {
            let pushed = session.pushed.contains(id);
            if ding.waits_for(who) && !pushed {
                return Err(format!("DING {id} was not pushed"));
            }
            if ding.waits_for(who) && session.said.contains(id) && !ding.delivered.contains(&who.1) {
                return Err(format!("DING {id} has come, and the shard does not know"));
            }
            if pushed && !ding.waits_for(who) && !session.updated.contains(id) {
                return Err(format!("DING {id} is shown still"));
            }
        }
        Ok(())
    }

    /// Once what is coalesced was told, everybody knows how the DINGs stand. The shard takes no part, so that none moves meanwhile.
    fn judge_dings(&mut self) -> Outcome {
        self.outside.clock.advance(TICK_MS);
        let mut busy = true;
        while busy {
            busy = false;
            for nth in 0..self.life.stations.len() {
                self.turn(nth, usize::MAX)?;
            }
            for id in self.ids() {
                let (edge, link) = (self.sessions[&id].edge, self.sessions[&id].link);
                for stream in self.life.stations[edge].links.streams(link) {
                    busy |= self.read(id, stream, usize::MAX)? > 0;
                }
            }
        }
        for session in self.sessions.values() {
            let who = session.who.ok_or("a session at rest was welcomed")?;
            let judged = session.judge_dings_told(who, &self.ledger);
            judged.map_err(|why| format!("at rest, session {}: {why}", session.id))?;
        }
        self.sessions.values_mut().for_each(Session::forget_unwatched);
        self.settle()?;
        self.judge()
    }

    /// At rest everybody is live: what is published now is read from the journal by nobody.
    fn judge_live(&mut self) -> Outcome {
        let caught_up = |world: &Self| world.stats().iter().map(|stats| stats.delivered_catching_up).sum::<u64>();
        let before = caught_up(self);
        self.publish_any();
        self.settle()?;
        self.judge()?;
        if caught_up(self) == before { Ok(()) } else { Err("at rest, a session was not live".into()) }
    }

    /// Those who were not told what has moved have their turns, of which each takes an interval.
    fn tell_behind(&mut self) -> Outcome {
        for _ in 0..ROUNDS_MAX {
            if self.life.stations.iter().all(|station| station.edge.behind() == 0) {
                return Ok(());
            }
            self.outside.clock.advance(self.limits().counts_every_ms);
            for nth in 0..self.life.stations.len() {
                self.turn(nth, usize::MAX)?;
            }
            self.settle()?;
        }
        Err("sessions are not told what has moved".into())
    }

    /// Everybody knows of all marks that concern it.
    fn judge_told(&self) -> Outcome {
        let live_members_max = self.limits().receipts_live_members_max;
        self.sessions.values().try_for_each(|session| {
            let who = session.who.ok_or("a session at rest was welcomed")?;
            let judged = session.judge_told(who, &self.ledger, live_members_max);
            judged.map_err(|why| format!("at rest, session {}: {why}", session.id))
        })
    }

    /// Who is quiet is told how far the journal is, at the latest after a tick.
    fn judge_progress(&mut self) -> Outcome {
        let head = self.ledger.head;
        self.outside.clock.advance(TICK_MS);
        for nth in 0..self.life.stations.len() {
            self.turn(nth, usize::MAX)?;
        }
        self.settle()?;
        let limit = Position(head.0.saturating_sub(self.limits().progress_positions));
        match self.sessions.values().find(|session| session.last <= limit && limit > Position(0)) {
            Some(session) => {
                Err(format!("session {} was told nothing between {} and {head}", session.id, session.last))
            }
            None => Ok(()),
        }
    }
}
