//! Read updates as a device has them: whatever happens to its sessions, at rest it has all that concerns it.

use std::collections::BTreeMap;

use carillon::edge::limits::RECEIPTS_LIVE_MEMBERS_MAX;
use carillon_protocol::ids::{ConversationId, Position, Seq, TenantId, UserId};
use carillon_protocol::kinds::ConversationKind;
use carillon_protocol::receipt::{ReadCountsUpdate, ReadUpdate};

use super::ledger::{Ledger, Who};
use super::session::Session;

/// What a client has been told of readers; a device stores it with its cursor.
#[derive(Clone, Default)]
pub(super) struct Told {
    /// What moved up to here it never wanted to know.
    pub(super) start: Position,
    /// It is yet to be welcomed for the first time; lanes may be open before `Welcome` is read.
    pub(super) fresh: bool,
    /// `receipts_through`.
    pub(super) through: Position,
    /// The newest mark of each reader.
    marks: BTreeMap<(ConversationId, UserId), Position>,
    /// The newest mark that was counted.
    counts: BTreeMap<ConversationId, Position>,
}

impl Told {
    /// Of a session whose cursor says so much; a device that says nothing starts at the `head`.
    pub(super) fn welcomed(&mut self, head: Position) {
        if std::mem::take(&mut self.fresh) {
            self.start = head;
            self.raise(head);
        }
    }

    pub(super) fn raise(&mut self, through: Position) {
        self.through = self.through.max(through);
    }

    pub(super) fn read(&mut self, update: &ReadUpdate) -> Result<(), String> {
        if update.position <= self.through {
            return Err(format!("{update:?} came again, or late: all up to {} was told", self.through));
        }
        self.marks.insert((update.conversation, update.user), update.position);
        self.raise(update.through);
        Ok(())
    }

    pub(super) fn counted(&mut self, update: &ReadCountsUpdate) {
        let counted = self.counts.entry(update.conversation).or_default();
        *counted = update.position.max(*counted);
        self.raise(update.through);
    }
}

impl Session {
    /// Everything that concerns the user was told, on this session or before.
    pub(super) fn judge_told(&self, who: Who, ledger: &Ledger, live_members_max: u32) -> Result<(), String> {
        let mut newest: BTreeMap<(ConversationId, UserId), (Position, ReadUpdate, Seq)> = BTreeMap::new();
        for (position, (tenant, mark)) in ledger.marks() {
            if *tenant == who.0 {
                let reader = (mark.conversation, mark.user);
                let before = newest.get(&reader).map_or(Seq(0), |(_, before, _)| before.read_up_to);
                newest.insert(reader, (*position, mark.clone(), before));
            }
        }
        for ((conversation, reader), (position, mark, before)) in newest {
            if position <= self.told.start || !ledger.is_entitled(who, conversation, position) {
                continue;
            }
            let due = if reader == who.1 {
                // Who has left since begins anew.
                ledger.is_in_one_stint(who, conversation, [position, ledger.head.next()])
            } else {
                let named = live_members_max == RECEIPTS_LIVE_MEMBERS_MAX;
                let on = ledger.rooms[&conversation].kind != ConversationKind::CHANNEL;
                named && on && ledger.passed_own(who, &mark, before)
            };
            let told = self.told.marks.get(&(conversation, reader));
            if due && told.is_none_or(|told| *told < position) {
                return Err(format!(
                    "{mark:?} was not told to {who:?}, {told:?} was, and all up to {}",
                    self.told.through
                ));
            }
        }
        Ok(())
    }
}

/// Whether two are the same mark, told or committed.
pub(super) fn is_same(told: &ReadUpdate, committed: &ReadUpdate) -> bool {
    *told == ReadUpdate { through: told.through, ..committed.clone() }
}

/// A mark as the journal has it.
pub(super) type Marked = (TenantId, ReadUpdate);
