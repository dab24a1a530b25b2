//! Which session speaks for a device and for a producer: volatile, checked before the shard sees an input.
//!
//! A new session of a device, or of a producer, fences the old one, so that a stalled copy of a publish cannot be
//! accepted after its retry was refused.

use std::collections::BTreeMap;

use carillon_core::effect::Signal;
use carillon_protocol::ids::{DeviceId, ProducerId, TenantId, UserId};

use super::Origin;

type DeviceKey = (TenantId, UserId, DeviceId);
type ProducerKey = (TenantId, UserId, ProducerId);

/// The present holders. Bounded by the sessions of all edges. Ordered maps: peers choose the keys, and could flood a hashed
/// one with collisions.
#[derive(Debug, Default)]
pub(super) struct Fences {
    devices: BTreeMap<DeviceKey, Origin>,
    producers: BTreeMap<ProducerKey, Origin>,
    held: BTreeMap<Origin, (DeviceKey, Option<ProducerKey>)>,
}

impl Fences {
    /// `origin` takes over; returns the other sessions that are fenced by it.
    pub(super) fn attach(
        &mut self,
        origin: Origin,
        device: DeviceKey,
        producer: Option<ProducerKey>,
    ) -> impl Iterator<Item = Origin> {
        let old_device = self.devices.insert(device, origin);
        let old_producer = producer.and_then(|key| self.producers.insert(key, origin));
        self.held.insert(origin, (device, producer));
        let fenced: smallvec::SmallVec<[Origin; 2]> =
            [old_device, old_producer].into_iter().flatten().filter(|old| *old != origin).collect();
        for old in &fenced {
            self.detach(*old);
        }
        fenced.into_iter()
    }

    /// Whether this session has attached, and nobody has taken over from it.
    pub(super) fn is_held_by(&self, origin: Origin) -> bool {
        self.held.contains_key(&origin)
    }

    /// Whether this session's publishes under the producer count.
    pub(super) fn holds(&self, origin: Origin, producer: ProducerKey) -> bool {
        self.producers.get(&producer) == Some(&origin)
    }

    /// Who spoke for a retired device or producer speaks for nothing any more.
    pub(super) fn note_retired(&mut self, signal: &Signal) {
        let holder = match signal {
            Signal::DeviceRetired { tenant, user, device } => self.devices.get(&(*tenant, *user, *device)),
            Signal::ProducerRetired { tenant, user, producer } => self.producers.get(&(*tenant, *user, *producer)),
            Signal::Message { .. }
            | Signal::MembersAdded { .. }
            | Signal::MembersRemoved { .. }
            | Signal::Read { .. }
            | Signal::Urgent { .. }
            | Signal::Ding { .. } => None,
        };
        if let Some(holder) = holder.copied() {
            self.detach(holder);
        }
    }

    /// The session is gone.
    pub(super) fn detach(&mut self, origin: Origin) {
        let Some((device, producer)) = self.held.remove(&origin) else { return };
        if self.devices.get(&device) == Some(&origin) {
            self.devices.remove(&device);
        }
        if let Some(producer) = producer
            && self.producers.get(&producer) == Some(&origin)
        {
            self.producers.remove(&producer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sequencer::EdgeId;
    use carillon_transport::LinkKey;

    fn origin(index: u32) -> Origin {
        Origin { edge: EdgeId(0), link: LinkKey { index, generation: 0 } }
    }

    fn device(id: u64) -> DeviceKey {
        (TenantId(0), UserId(0), DeviceId(id))
    }

    fn producer(id: u64) -> ProducerKey {
        (TenantId(0), UserId(0), ProducerId(id))
    }

    #[test]
    fn a_new_session_of_the_device_fences_the_old_one_and_its_producer() {
        let mut fences = Fences::default();
        assert_eq!(fences.attach(origin(1), device(1), Some(producer(1))).count(), 0);
        assert_eq!(fences.attach(origin(2), device(1), Some(producer(2))).collect::<Vec<_>>(), [origin(1)]);
        assert!(!fences.holds(origin(1), producer(1)));
        assert!(fences.holds(origin(2), producer(2)));
        assert!(fences.is_held_by(origin(2)) && !fences.is_held_by(origin(1)));
    }

    #[test]
    fn the_fenced_session_going_away_takes_nothing_from_the_new_one() {
        let mut fences = Fences::default();
        fences.attach(origin(1), device(1), Some(producer(1))).for_each(drop);
        assert_eq!(fences.attach(origin(2), device(2), Some(producer(1))).collect::<Vec<_>>(), [origin(1)]);
        fences.detach(origin(1));
        assert!(fences.holds(origin(2), producer(1)));
        fences.detach(origin(2));
        assert!(!fences.holds(origin(2), producer(1)));
        assert!(fences.devices.is_empty() && fences.producers.is_empty() && fences.held.is_empty());
    }

    #[test]
    fn a_retired_device_has_no_session_any_more() {
        let mut fences = Fences::default();
        fences.attach(origin(1), device(1), Some(producer(1))).for_each(drop);
        let (tenant, user) = (TenantId(0), UserId(0));
        fences.note_retired(&Signal::DeviceRetired { tenant, user, device: DeviceId(2) });
        assert!(fences.is_held_by(origin(1)));
        fences.note_retired(&Signal::DeviceRetired { tenant, user, device: DeviceId(1) });
        assert!(!fences.is_held_by(origin(1)));
        assert!(!fences.holds(origin(1), producer(1)));
    }

    #[test]
    fn attaching_again_fences_nobody() {
        let mut fences = Fences::default();
        fences.attach(origin(1), device(1), Some(producer(1))).for_each(drop);
        assert_eq!(fences.attach(origin(1), device(1), Some(producer(1))).count(), 0);
        assert!(fences.holds(origin(1), producer(1)));
    }
}
