//! The devices: each connects, reads, confirms what urges, and when it is told to, goes and comes back with an old cursor.

use std::time::Instant;

use carillon_protocol::session::Cursor;

use crate::channel::Purpose;
use crate::failure::{Ended, Failure};
use crate::fleet::SessionIndex;
use crate::pushes::{Confirming, Pushes};
use crate::rig::{Guest, Rig};
use crate::session::News;
use crate::token::Role;

/// A device, in one session after the other.
struct Device {
    handle: String,
    session: SessionIndex,
    /// Since when the present session is welcome.
    open_since: Option<Instant>,
    is_caught_up: bool,
    confirming: Confirming,
    /// From welcome to caught up, of the sessions that began with the old cursor.
    streaming: Vec<(Instant, Instant)>,
}

/// All of them.
pub(super) struct Devices {
    devices: Vec<Device>,
    /// Whose a session of the fleet is; nobody's once its device has another.
    owners: Vec<Option<usize>>,
    /// Where sessions begin that get the backlog.
    behind: Cursor,
    /// What was read while the backlog streamed.
    streamed: u64,
    /// All that was read.
    read: u64,
    is_looping: bool,
    pub(super) pushes: Option<Pushes>,
    /// A session was lost that nobody had ended.
    pub(super) lost: Option<Ended>,
}

impl Devices {
    /// None is connected yet.
    pub(super) fn new(handles: impl Iterator<Item = String>, behind: Cursor) -> Self {
        let device = |handle| Device {
            handle,
            session: SessionIndex::MAX,
            open_since: None,
            is_caught_up: false,
            confirming: Confirming::default(),
            streaming: Vec::new(),
        };
        Self {
            devices: handles.map(device).collect(),
            owners: Vec::new(),
            behind,
            streamed: 0,
            read: 0,
            is_looping: false,
            pushes: None,
            lost: None,
        }
    }

    /// Lets every device begin a new session at this cursor. The old ones end.
    pub(super) fn connect_all(&mut self, rig: &mut Rig<'_>, cursor: Cursor) -> Result<(), Failure> {
        for device in 0..self.devices.len() {
            self.connect(rig, device, cursor)?;
        }
        Ok(())
    }

    /// From now on each device that has read the backlog goes, and comes back to read it again; or no longer.
    pub(super) fn set_looping(&mut self, is_looping: bool) {
        self.is_looping = is_looping;
    }

    /// Whether all have caught up and have confirmed all that came.
    pub(super) fn are_idle(&self) -> bool {
        self.devices.iter().all(|device| device.is_caught_up && device.confirming.is_idle())
    }

    /// The windows in which a device was reading the backlog.
    pub(super) fn streaming(&self, device: usize) -> &[(Instant, Instant)] {
        &self.devices[device].streaming
    }

    /// How many devices there are.
    pub(super) fn count(&self) -> usize {
        self.devices.len()
    }

    /// Messages read while the backlog streamed.
    pub(super) fn streamed(&self) -> u64 {
        self.streamed
    }

    /// Messages read so far.
    pub(super) fn read(&self) -> u64 {
        self.read
    }

    /// Takes what a session tells.
    pub(super) fn take(&mut self, session: SessionIndex, now: Instant, news: News) {
        let Some(at) = self.owners.get(session).copied().flatten() else { return };
        let device = &mut self.devices[at];
        match news {
            News::Open(_) => device.open_since = Some(now),
            News::CaughtUp => {
                device.is_caught_up = true;
                let since = device.open_since.expect("the welcome comes before this");
                if self.is_looping {
                    device.streaming.push((since, now));
                }
            }
            News::Message(_) => {
                self.read += 1;
                self.streamed += u64::from(self.is_looping && !device.is_caught_up);
            }
            News::Answer(frame) | News::Urgent(frame) => {
                if let Some(pushes) = &mut self.pushes {
                    pushes.take(now, &mut device.confirming, frame);
                }
            }
            News::Ended(why) => self.lost = Some(why),
            News::Receipt(_) => {}
        }
    }

    /// Sends confirmations, and lets who has read the backlog begin again.
    pub(super) fn act(&mut self, rig: &mut Rig<'_>) -> Result<(), Failure> {
        for at in 0..self.devices.len() {
            let device = &mut self.devices[at];
            while device.open_since.is_some()
                && let Some(frame) = device.confirming.poll()
            {
                rig.fleet.send(device.session, Purpose::Control, frame);
            }
            // A confirmation that is lost with its connection would be measured as a slow one.
            if self.is_looping && device.is_caught_up && device.confirming.is_idle() {
                self.connect(rig, at, self.behind)?;
            }
        }
        Ok(())
    }

    fn connect(&mut self, rig: &mut Rig<'_>, at: usize, cursor: Cursor) -> Result<(), Failure> {
        let device = &mut self.devices[at];
        if let Some(owner) = self.owners.get_mut(device.session) {
            *owner = None;
            rig.fleet.leave(device.session);
        }
        let guest = Guest { handle: &device.handle, role: Role::User, publishes: false, cursor: Some(cursor) };
        device.session = rig.fleet.connect(rig.greeting(&guest)?)?;
        (device.open_since, device.is_caught_up) = (None, false);
        device.confirming = Confirming::default();
        self.owners.resize(device.session + 1, None);
        self.owners[device.session] = Some(at);
        Ok(())
    }
}
