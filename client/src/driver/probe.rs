//! Doors for fuzzing: what a broker sends, without a connection. See [`crate::probe`].

use carillon_protocol::Frame;
use carillon_protocol::ids::{Incarnation, Position, ShardId, UserId};
use carillon_protocol::session::Cursor;

use super::lanes::step;
use super::shown::Shown;
use crate::clock;
use crate::cursors::Cursors;
use crate::ding::DingNews;
use crate::event::Event;
use crate::reply::answer_of;

/// The frame may not come there: the session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unexpected;

/// A device to which frames come.
#[derive(Debug)]
pub struct Device {
    cursors: Cursors,
    shown: Shown,
    news: DingNews,
    user: UserId,
}

impl Device {
    /// In a session that has begun at this cursor, of this user.
    pub fn new(cursor: Cursor, head: Position, user: UserId) -> Self {
        let device =
            Self { cursors: Cursors::new(vec![cursor], &[]), shown: Shown::default(), news: DingNews::default(), user };
        let hello = device.cursors.hello();
        let incarnation = if cursor.incarnation == Incarnation(0) { Incarnation(1) } else { cursor.incarnation };
        assert!(device.cursors.welcome(cursor.shard, incarnation, head, &hello), "it is of the same history");
        device
    }

    /// A frame on the inbox lane; the event for the application, if there is one.
    ///
    /// # Errors
    /// [`Unexpected`].
    pub fn inbox(&self, frame: Frame) -> Result<Option<Event>, Unexpected> {
        let Some((step, event)) = step(&self.cursors, frame).map_err(|_| Unexpected)? else { return Ok(None) };
        step.take(&self.cursors);
        Ok(Some(event))
    }

    /// A frame on the urgent lane.
    ///
    /// # Errors
    /// [`Unexpected`].
    pub fn urgent(&mut self, frame: Frame) -> Result<(), Unexpected> {
        match frame {
            Frame::DingPush(push) => {
                self.news.receive(push.ding);
                drop(self.shown.push(push.ding));
                self.shown.insert(push.ding);
            }
            Frame::DingsOpen(open) => drop(self.shown.begin_pushes(open.count)),
            Frame::DingUpdate(update) => self.shown.update(&update, self.user),
            Frame::DingProgress(progress) => _ = self.news.is_news(&progress),
            _other => return Err(Unexpected),
        }
        Ok(())
    }

    /// A frame on the control stream; the request that it answers, if it answers one.
    pub fn control(&self, frame: Frame) -> Option<u32> {
        answer_of(frame).ok().map(|(request, _)| request)
    }

    /// The application acknowledges everything up to a position, and what is to be sent of it is. Says whether there is any.
    ///
    /// # Panics
    /// If more would be acknowledged than `received` says has come.
    pub fn acknowledge(&self, shard: ShardId, position: Position, received: Position) -> bool {
        self.cursors.ack(shard, position);
        let unsaved = self.cursors.unsaved();
        self.cursors.save_done(&unsaved);
        let unsent = self.cursors.unsent(clock::now());
        for ack in &unsent {
            assert!(ack.shard != shard || ack.position <= received, "{ack:?} is beyond {received}");
        }
        !unsent.is_empty()
    }
}
