//! The judge of the urgent lane, and of what else a session is told of DINGs.

use carillon_protocol::ding::DingPush;
use carillon_protocol::ding_status::{DingProgress, DingUpdate, DingsOpen, USER_NONE};
use carillon_protocol::ids::{DingId, Position};

use super::ledger::{Ledger, Who};
use super::session::Session;

impl Session {
    pub(super) fn judge_push(&mut self, push: &DingPush, ledger: &Ledger) -> Result<(), String> {
        let who = self.who_of(ledger)?;
        let ding = ledger.dings.get(&push.ding).ok_or(format!("{push:?} is not durable"))?;
        if ding.push != *push || ding.tenant != who.0 || !ding.recipients.contains(&who.1) {
            return Err(format!("{push:?} was pushed to {who:?}"));
        }
        self.pushed.insert(push.ding);
        self.arrived.push(push.ding);
        if self.awaited > 0 {
            self.awaited -= 1;
            self.come.insert(push.ding);
            if self.awaited == 0 {
                return self.take_off(who, ledger);
            }
        }
        Ok(())
    }

    pub(super) fn judge_open(&mut self, open: &DingsOpen, ledger: &Ledger) -> Result<(), String> {
        let who = self.who_of(ledger)?;
        self.awaited = open.count;
        self.come.clear();
        if open.count == 0 { self.take_off(who, ledger) } else { Ok(()) }
    }

    /// What it shows and what is not among the pushes of all that is open is over.
    fn take_off(&mut self, who: Who, ledger: &Ledger) -> Result<(), String> {
        let over: Vec<DingId> = self.pushed.difference(&self.come).copied().collect();
        if let Some(open) = over.iter().find(|ding| ledger.dings[*ding].waits_for(who)) {
            return Err(format!("DING {open} is taken off and waits"));
        }
        self.updated.extend(over);
        Ok(())
    }

    pub(super) fn judge_update(&mut self, update: &DingUpdate, ledger: &Ledger) -> Result<(), String> {
        let who = self.who_of(ledger)?;
        let ding = ledger.dings.get(&update.ding).ok_or(format!("{update:?} is not durable"))?;
        let mine = ding.recipients.contains(&who.1);
        let done = ding.confirmed.contains(&update.user) || ding.ended && update.user == USER_NONE;
        if ding.tenant != who.0 || !(mine || ding.sender == who.1) || !done {
            return Err(format!("{update:?} was told to {who:?}"));
        }
        if update.user == who.1 || update.user == USER_NONE {
            self.updated.insert(update.ding);
        }
        Ok(())
    }

    /// The sender is told, and who watches; one that is newer says no less than those before, and nothing that is not durable.
    pub(super) fn judge_ding_progress(&mut self, progress: &DingProgress, ledger: &Ledger) -> Result<(), String> {
        let who = self.who_of(ledger)?;
        let ding = ledger.dings.get(&progress.ding).ok_or(format!("{progress:?} is not durable"))?;
        let counted = progress.delivered + progress.confirmed + progress.failed;
        let fits = usize::try_from(progress.recipients) == Ok(ding.recipients.len())
            && usize::try_from(progress.confirmed).is_ok_and(|confirmed| confirmed <= ding.confirmed.len())
            && counted <= progress.recipients;
        let told = (ding.tenant, ding.sender) == who || ding.tenant == who.0 && self.watched.contains(&progress.ding);
        if !told || progress.position > ledger.head || !fits {
            return Err(format!("{progress:?} was told to {who:?}"));
        }
        let last = self.progress.get(&progress.ding);
        // One that comes late is dropped.
        if last.is_some_and(|last| last.position > progress.position) {
            return Ok(());
        }
        if last.is_some_and(|last| last.confirmed > progress.confirmed) {
            return Err(format!("{progress:?} after {last:?}"));
        }
        self.progress.insert(progress.ding, progress.clone());
        Ok(())
    }

    /// At rest it is told of nothing more that it does not watch.
    pub(super) fn forget_unwatched(&mut self) {
        self.watched = self.watches.keys().chain(self.unwatches.values()).copied().collect();
    }

    /// At rest it knows how the DINGs stand that it watches, and those of its user that moved since it is here.
    pub(super) fn judge_dings_told(&self, who: Who, ledger: &Ledger) -> Result<(), String> {
        let since = self.welcome.as_ref().map_or(Position(0), |welcome| welcome.head);
        for (id, ding) in ledger.dings.iter() {
            let sent = (ding.tenant, ding.sender) == who && ding.moved_at > since;
            if !sent && !self.watches.contains_key(id) {
                continue;
            }
            let told = self.progress.get(id);
            let counts =
                |told: &DingProgress| [told.delivered, told.confirmed, told.failed].map(|count| count as usize);
            if told.is_none_or(|told| (told.state, counts(told)) != (ding.state, ding.counts())) {
                let (state, counts) = (ding.state, ding.counts());
                return Err(format!("DING {id} is {state:?} with {counts:?}, {told:?} was told to {who:?}"));
            }
        }
        Ok(())
    }
}
