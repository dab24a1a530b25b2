//! What happens in a run: one random action a step.

use carillon_protocol::error::ErrorCode;
use carillon_protocol::frame::Body;
use carillon_protocol::ids::{DeviceId, Incarnation, Position, ProducerId};
use carillon_protocol::session::{Cursor, Hello, NEWEST_ALL, VERSION};
use carillon_transport::StreamId;

use super::life::INCARNATION;
use super::parts::{PEOPLE, tokens};
use super::session::{CONTROL, News, Session};
use super::shape::Action;
use super::world::{Outcome, SHARD, World, producer_of};

impl World {
    /// One step of the run.
    pub(super) fn act(&mut self) -> Outcome {
        self.now += 1;
        self.trace();
        self.arm();
        self.flow()?;
        let action = self.shape.action(&mut self.rng);
        match action {
            Action::Turn => self.turn_any()?,
            Action::Step => self.step()?,
            Action::Read => self.read_any()?,
            Action::Uplink => {
                let bytes_max = self.rng.between(1, 200);
                if let Some(id) = self.any(|session| !session.uplink.is_empty()) {
                    self.send_up(id, bytes_max);
                }
            }
            Action::Answer => self.answer_read()?,
            Action::Publish => self.publish_any(),
            Action::Burst => {
                for _ in 0..self.rng.between(3, 25) {
                    self.publish_any();
                }
            }
            Action::Flurry => {
                for _ in 0..self.rng.between(4, 12) {
                    let action = self.rng.pick(&[Action::Members, Action::Mark, Action::Mark]);
                    self.ask_any(action);
                }
            }
            Action::Connect => {
                let (device, nth) = (self.rng.below(self.devices.len()), self.rng.below(2));
                self.connect(device, nth);
            }
            Action::Hop => self.hop(),
            Action::Disconnect => {
                if let Some(id) = self.any(|_| true) {
                    self.disconnect(id);
                }
            }
            Action::Window => self.set_window_any(),
            Action::Tease => {
                if let Some(id) = self.any(|_| true) {
                    let (edge, link) = (self.sessions[&id].edge, self.sessions[&id].link);
                    self.life.stations[edge].links.tease(link);
                }
            }
            Action::Deafen => {
                let until = self.now + self.rng.between(5, 80);
                if let Some(id) = self.any(|_| true) {
                    self.session(id).deaf_until = until;
                }
            }
            Action::Stall => {
                let (nth, until) = (self.rng.below(2), self.now + self.rng.between(5, 60));
                self.life.stations[nth].stalled_until = until;
            }
            Action::Repeat => self.repeat_any(),
            Action::Clock
            | Action::SetBack
            | Action::Truncate
            | Action::Rest
            | Action::Call
            | Action::Die
            | Action::Keep
            | Action::Prepare
            | Action::Damage => return self.act_around(action),
            _ => self.ask_any(action),
        }
        Ok(())
    }

    /// A device connects to the other edge.
    fn hop(&mut self) {
        if let Some(id) = self.any(|session| session.welcome.is_some()) {
            let (device, edge) = (self.sessions[&id].device, self.sessions[&id].edge);
            self.connect(device, 1 - edge);
        }
    }

    /// What happens around the sessions: to the process, its directory, its clocks and its gateway.
    fn act_around(&mut self, action: Action) -> Outcome {
        match action {
            Action::Clock => {
                let ms = self.rng.pick(&[1, 1, 10, 100, 700, 1_100, 3_000, 11_000]);
                self.outside.clock.advance(ms);
            }
            Action::SetBack => self.outside.clock.set_back(self.rng.pick(&[500, 60_000, 3_600_000])),
            Action::Truncate => self.truncate(),
            Action::Rest => self.rest()?,
            Action::Call => self.call_some()?,
            Action::Die => self.die("between steps")?,
            Action::Keep => self.keep()?,
            Action::Prepare => self.prepare()?,
            Action::Damage => self.damage()?,
            _ => unreachable!("{action:?} is an action of sessions"),
        }
        Ok(())
    }

    /// A session that is such, if there is one.
    pub(super) fn any(&mut self, such: impl Fn(&Session) -> bool) -> Option<usize> {
        let ids: Vec<usize> =
            self.sessions.values().filter(|session| such(session)).map(|session| session.id).collect();
        if ids.is_empty() { None } else { Some(self.rng.pick(&ids)) }
    }

    pub(super) fn session(&mut self, id: usize) -> &mut Session {
        self.sessions.get_mut(&id).expect("it lives")
    }

    fn turn_any(&mut self) -> Outcome {
        let nth = usize::from(!self.rng.percent(self.shape.turns_of_first));
        let events_max = if self.rng.percent(20) { self.rng.between(0, 3) } else { usize::MAX };
        if self.life.stations[nth].stalled_until > self.now { Ok(()) } else { self.turn(nth, events_max) }
    }

    /// Retention takes what both edges have long processed; the journal's files stay, as their readers may be late.
    fn truncate(&mut self) {
        let seen = self.life.stations.iter().map(|station| station.edge.seen()).min().unwrap_or_default();
        let through = Position(seen.0.saturating_sub(self.rng.between(0, 60) as u64));
        if through > self.ledger.floor {
            self.note(|| format!("retention takes everything up to {through}"));
            self.life.index.truncate(through, true).expect("it is in memory");
            self.ledger.floor = through;
        }
    }

    fn answer_read(&mut self) -> Outcome {
        let waiting = self.life.bodies.waiting();
        if waiting > 0 {
            let nth = self.rng.below(waiting);
            self.life.bodies.answer(nth);
        }
        self.mind_disk()
    }

    fn set_window_any(&mut self) {
        let window = self.shape.window(&mut self.rng);
        if let Some(id) = self.any(|_| true) {
            let (edge, link) = (self.sessions[&id].edge, self.sessions[&id].link);
            self.life.stations[edge].links.set_window(link, window);
        }
    }

    pub(super) fn read_any(&mut self) -> Outcome {
        let now = self.now;
        let Some(id) = self.any(|session| session.deaf_until <= now) else { return Ok(()) };
        let bytes_max = self.rng.pick(&[1, 20, 100, 1_000, 1 << 20]);
        let all = self.rng.percent(60);
        let (edge, link) = (self.sessions[&id].edge, self.sessions[&id].link);
        let streams = self.life.stations[edge].links.streams(link);
        for stream in streams {
            if all || self.rng.percent(40) {
                self.read(id, stream, bytes_max)?;
            }
        }
        Ok(())
    }

    /// The client reads of one stream, judges what it reads and perhaps stores it; returns how much there was.
    pub(super) fn read(&mut self, id: usize, stream: StreamId, bytes_max: usize) -> Result<usize, String> {
        let Some(session) = self.sessions.get_mut(&id) else { return Ok(0) };
        let bytes = self.life.stations[session.edge].links.receive(session.link, stream, bytes_max);
        let count = bytes.len();
        if count == 0 {
            return Ok(0);
        }
        let device = &mut self.devices[session.device];
        let news = session.take(stream, bytes, device, &self.ledger).map_err(|why| format!("session {id}: {why}"))?;
        let (publishes, requests) = session.refused.take_counts();
        self.covered.publishes_without_room += publishes;
        self.covered.requests_without_room += requests;
        let line = (session.last, session.told.through);
        // What it starts from is in `Welcome`.
        if self.rng.percent(80) && session.welcome.is_some() {
            let stored = device.cursor.map_or(Position(0), |cursor| cursor.position);
            let (position, receipts_through) = (stored.max(session.last), session.told.through);
            device.cursor = Some(Cursor { shard: SHARD, incarnation: INCARNATION, position, receipts_through });
            device.told = session.told.clone();
        }
        self.note(|| format!("session {id} reads {count} of {stream}: at {line:?}"));
        if let News::Welcomed = news {
            self.note_welcome(id);
            self.publish_again(id);
            self.ding_again(id);
        }
        self.say_received(id);
        Ok(count)
    }

    /// A device connects to an edge. Its older session is told nothing.
    pub(super) fn connect(&mut self, device_at: usize, nth: usize) {
        let window = self.shape.window(&mut self.rng);
        self.renew(device_at);
        let device = &self.devices[device_at];
        let (person, hello_device) = (device.person, device.id);
        // A few sessions publish nothing.
        let producer = if self.rng.percent(85) { device.producer } else { ProducerId(0) };
        let mut cursor = device.cursor;
        if let (Some(id), true) = (device.current, self.rng.percent(50)) {
            self.disconnect(id);
        }
        let newest = if self.rng.percent(25) { self.rng.pick(&[0, 1, 2, 5, 30]) } else { NEWEST_ALL };
        let mut misbehaved = None;
        match self.rng.below(60) {
            0 | 1 => cursor = None,
            2 => {
                let position = Position(self.ledger.head.0 + 1_000);
                let incarnation = INCARNATION;
                cursor = Some(Cursor { shard: SHARD, incarnation, position, receipts_through: Position(0) });
                misbehaved = Some(ErrorCode::CURSOR_INVALID);
            }
            3 => {
                let (incarnation, position) = (Incarnation(8), Position(1));
                cursor = Some(Cursor { shard: SHARD, incarnation, position, receipts_through: Position(0) });
                misbehaved = Some(ErrorCode::CURSOR_INVALID);
            }
            _ => {}
        }
        let station = &mut self.life.stations[nth];
        let link = station.links.connect(window);
        station.links.open(link, CONTROL);
        let seen = station.edge.seen();
        let id = self.note_hello(device_at);
        let mut session = Session::new(id, nth, link, device_at, &self.devices[device_at]);
        session.last = cursor.map_or(Position(0), |cursor| cursor.position);
        if cursor.is_some_and(|cursor| cursor.receipts_through > Position(0)) {
            session.told = self.devices[device_at].told.clone();
        } else {
            session.told.fresh = true;
        }
        session.ids.1 = producer;
        session.connected_at_ms = self.outside.clock.passed_ms();
        session.hello_at = self.now;
        session.hello_round = self.ledger.room_seen.now();
        session.misbehaved = misbehaved;
        session.newest = newest;
        session.seen = seen;
        let (start, handle) = (session.last, PEOPLE[person]);
        // One that the broker refuses says nothing.
        if let (Some(who), None) = (self.ledger.find(handle.0, handle.1), misbehaved) {
            self.ledger.say(who, hello_device, start);
        }
        self.note(|| {
            format!(
                "session {id}: device {hello_device} of {handle:?} connects to edge {nth} as {link:?} after {start}"
            )
        });
        self.sessions.insert(id, session);
        self.devices[device_at].current = Some(id);
        let hello = Hello {
            version: VERSION,
            device: hello_device,
            producer,
            newest,
            token: tokens().tokens[person].as_str().into(),
            client: "simulation".into(),
            cursors: cursor.into_iter().collect(),
        };
        self.send(id, CONTROL, &hello);
    }

    /// A device that was given up, or whose producer was, is another one from now on.
    fn renew(&mut self, device_at: usize) {
        let device = &mut self.devices[device_at];
        let (tenant, handle, _) = PEOPLE[device.person];
        let Some(who) = self.ledger.find(tenant, handle) else { return };
        let retired = |id| self.ledger.retired(who, id).is_some();
        if retired(device.id.0) || retired(device.producer.0) {
            device.id = DeviceId(device.id.0 + 1_000);
            device.producer = producer_of(device.id);
            (device.cursor, device.next_number) = (None, 1);
            device.unsettled.clear();
            device.settled.clear();
        }
    }

    pub(super) fn disconnect(&mut self, id: usize) {
        let (edge, link) = (self.sessions[&id].edge, self.sessions[&id].link);
        self.note(|| format!("session {id} disconnects"));
        self.life.stations[edge].links.disconnect(link);
        self.forget(id);
    }

    /// Sends a frame, now or when the uplink lets it.
    pub(super) fn send(&mut self, id: usize, stream: StreamId, frame: &impl Body) {
        self.session(id).uplink.push_back((stream, frame.to_bytes()));
        match self.rng.below(4) {
            0 => {}
            1 => {
                let bytes_max = self.rng.between(1, 100);
                self.send_up(id, bytes_max);
            }
            _ => {
                self.send_up(id, usize::MAX);
            }
        }
    }

    /// Bytes on their way arrive, at most so many; returns whether there were any.
    pub(super) fn send_up(&mut self, id: usize, bytes_max: usize) -> bool {
        let session = self.sessions.get_mut(&id).expect("it lives");
        let links = &mut self.life.stations[session.edge].links;
        let mut left = bytes_max;
        let any = !session.uplink.is_empty();
        while let Some((stream, mut bytes)) = session.uplink.pop_front() {
            let now = bytes.split_to(bytes.len().min(left));
            left -= now.len();
            if !now.is_empty() {
                links.send(session.link, stream, now);
            }
            if !bytes.is_empty() {
                session.uplink.push_front((stream, bytes));
                break;
            }
        }
        any
    }
}
