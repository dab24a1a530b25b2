//! A client's session as `docs/PROTOCOL.md` has it, and the judge of what the broker sends it: each frame is checked
//! against the ledger at the moment it is read.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use carillon::edge::limits::COUNTS_A_FRAME_MAX;
use carillon_protocol::Frame;
use carillon_protocol::decoder::Decoder;
use carillon_protocol::deliver::Deliver;
use carillon_protocol::ding::DingCreate;
use carillon_protocol::ding_status::DingProgress;
use carillon_protocol::error::ErrorCode;
use carillon_protocol::frame::RawFrame;
use carillon_protocol::ids::{DeviceId, DingId, Position, ProducerId};
use carillon_protocol::kinds::Lane;
use carillon_protocol::limits::FRAME_BYTES_MAX;
use carillon_protocol::publish::{PublishRefused, Published};
use carillon_protocol::receipt::{ReadCountsUpdate, ReadUpdate};
use carillon_protocol::session::{Cursor, LaneOpened, NEWEST_ALL, Progress, Welcome};
use carillon_transport::{LinkKey, StreamId};

use super::history::{Asked, Named, Page};
use super::ledger::{Ledger, Who, stamp};
use super::parts::PEOPLE;
use super::promises::{Request, Want};
use super::tide::Refused;
use super::told::{Marked, Told, is_same};

/// The client's first bidirectional stream.
pub(super) const CONTROL: StreamId = StreamId(0);

/// The client's second one.
pub(super) const PUBLISH: StreamId = StreamId(4);

/// Answered publishes that a device may send once more.
const SETTLED_MAX: usize = 6;

/// What a device keeps over its sessions.
pub(super) struct Device {
    pub(super) person: usize,
    pub(super) id: DeviceId,
    pub(super) producer: ProducerId,
    /// What it has stored; may lag behind what it has got.
    pub(super) cursor: Option<Cursor>,
    /// What it has stored with it.
    pub(super) told: Told,
    /// The number that the next publish gets.
    pub(super) next_number: u64,
    /// Publishes without an answer, by number.
    pub(super) unsettled: BTreeMap<u64, Unsettled>,
    /// The newest publishes that were answered, with where they lie.
    pub(super) settled: VecDeque<(Unsettled, Position)>,
    /// A DING that has no answer.
    pub(super) ding_unanswered: Option<DingCreate>,
    /// The session that was opened last, if it lives.
    pub(super) current: Option<usize>,
}

/// A publish without an answer.
#[derive(Clone)]
pub(super) struct Unsettled {
    pub(super) stamp: u64,
    /// As it was sent first; `low` may be newer when it is sent again.
    pub(super) publish: carillon_protocol::publish::Publish,
}

/// Bytes of one stream of the broker's.
struct Incoming {
    decoder: Decoder,
    /// Of a lane, once its first frame has come.
    lane: Option<Lane>,
}

/// What the client learns from a frame and acts on.
pub(super) enum News {
    /// The session is open.
    Welcomed,
    /// Nothing to act on.
    None,
}

/// One session.
pub(super) struct Session {
    /// Counts sessions of the run.
    pub(super) id: usize,
    pub(super) edge: usize,
    pub(super) link: LinkKey,
    pub(super) device: usize,
    /// Who it said it was; the device may have other ids by now.
    pub(super) ids: (DeviceId, ProducerId),
    pub(super) person: usize,
    pub(super) connected_at_ms: u64,
    /// When `Hello` was sent, and when `Welcome` was read, in steps of the run.
    pub(super) hello_at: usize,
    /// The sequencer's rounds until then.
    pub(super) hello_round: u64,
    pub(super) who: Option<Who>,
    /// Everything up to here is the device's.
    pub(super) last: Position,
    /// Of readers, this session and those before it.
    pub(super) told: Told,
    pub(super) welcome: Option<Welcome>,
    /// Requests without a reply.
    pub(super) pending: BTreeMap<u32, Request>,
    pub(super) next_request: u32,
    /// Numbers of publishes that were answered and sent once more, and whether with the same content.
    pub(super) repeats: BTreeMap<u64, bool>,
    /// Numbers that were sent here and have no answer here, each with the sequencer's rounds until then: another session of the device may
    /// have got one.
    pub(super) under_way: Vec<(u64, u64)>,
    /// Which of them lacked room.
    pub(super) refused: Refused,
    /// DINGs that were pushed, and those it was then told about.
    pub(super) pushed: BTreeSet<DingId>,
    pub(super) updated: BTreeSet<DingId>,
    /// The newest progress of each DING.
    pub(super) progress: BTreeMap<DingId, DingProgress>,
    /// What it watches, by the request that asked for it.
    pub(super) watches: BTreeMap<DingId, u32>,
    /// What it may be told of: what it has asked to watch since it was at rest, and what it watches.
    pub(super) watched: BTreeSet<DingId>,
    /// Requests to watch no longer that are not done.
    pub(super) unwatches: BTreeMap<u32, DingId>,
    /// DINGs that were pushed, and of which the broker is to be told that they are here.
    pub(super) arrived: Vec<DingId>,
    /// Those of which it was told.
    pub(super) said: BTreeSet<DingId>,
    /// Pushes of all that is open that have not come yet, and those that have.
    pub(super) awaited: u32,
    pub(super) come: BTreeSet<DingId>,
    /// The broker is about to end.
    pub(super) told_goodbye: bool,
    /// What the broker is to close it with.
    pub(super) misbehaved: Option<ErrorCode>,
    /// Reads nothing before this step.
    pub(super) deaf_until: usize,
    /// How far its edge was when it connected.
    pub(super) seen: Position,
    /// As its `Hello` said.
    pub(super) newest: u32,
    pub(super) named: Named,
    /// The page of history that is being read, and those that were asked for.
    pub(super) page: Option<Page>,
    pub(super) pages_asked: BTreeMap<u32, Asked>,
    /// On its way to the broker.
    pub(super) uplink: VecDeque<(StreamId, Bytes)>,
    incoming: BTreeMap<StreamId, Incoming>,
}

impl Session {
    pub(super) fn new(id: usize, edge: usize, link: LinkKey, device_at: usize, device: &Device) -> Self {
        Self {
            id,
            edge,
            link,
            device: device_at,
            ids: (device.id, device.producer),
            person: device.person,
            connected_at_ms: 0,
            hello_at: 0,
            hello_round: 0,
            who: None,
            last: Position(0),
            told: Told::default(),
            welcome: None,
            pending: BTreeMap::new(),
            repeats: BTreeMap::new(),
            under_way: Vec::new(),
            refused: Refused::default(),
            progress: BTreeMap::new(),
            watches: BTreeMap::new(),
            watched: BTreeSet::new(),
            unwatches: BTreeMap::new(),
            arrived: Vec::new(),
            said: BTreeSet::new(),
            awaited: 0,
            come: BTreeSet::new(),
            next_request: 1,
            pushed: BTreeSet::new(),
            updated: BTreeSet::new(),
            told_goodbye: false,
            misbehaved: None,
            deaf_until: 0,
            seen: Position(0),
            newest: NEWEST_ALL,
            named: Named::default(),
            page: None,
            pages_asked: BTreeMap::new(),
            uplink: VecDeque::new(),
            incoming: BTreeMap::new(),
        }
    }

    /// Takes bytes of a stream and judges the frames in them.
    pub(super) fn take(
        &mut self,
        stream: StreamId,
        bytes: Bytes,
        device: &mut Device,
        ledger: &Ledger,
    ) -> Result<News, String> {
        let fresh = || Incoming { decoder: Decoder::new(FRAME_BYTES_MAX), lane: None };
        self.incoming.entry(stream).or_insert_with(fresh).decoder.push(bytes);
        let mut news = News::None;
        loop {
            let incoming = self.incoming.get_mut(&stream).expect("it was entered");
            let polled = incoming.decoder.poll_frame().map_err(|error| format!("{stream}: {error}"))?;
            let Some(raw) = polled else { return Ok(news) };
            if let News::Welcomed = self.judge(stream, &raw, device, ledger)? {
                news = News::Welcomed;
            }
        }
    }

    fn judge(
        &mut self,
        stream: StreamId,
        raw: &RawFrame,
        device: &mut Device,
        ledger: &Ledger,
    ) -> Result<News, String> {
        let frame = Frame::decode(raw).map_err(|error| format!("{stream}: {error}"))?;
        let lane = self.incoming[&stream].lane;
        match (stream, lane, frame) {
            (CONTROL, _, Frame::Welcome(welcome)) => {
                self.judge_welcome(welcome, ledger)?;
                return Ok(News::Welcomed);
            }
            (CONTROL, _, Frame::Goodbye(_)) if self.welcome.is_some() => self.told_goodbye = true,
            (CONTROL, _, frame) => self.judge_reply(&frame, device, ledger)?,
            (PUBLISH, _, Frame::Published(published)) => {
                self.note_answer(published.number);
                self.refused.accept(&published)?;
                self.judge_published(&published, device, ledger)?;
            }
            (PUBLISH, _, Frame::PublishRefused(refused)) => {
                let sent_after = self.note_answer(refused.number);
                if refused.code == ErrorCode::NO_ROOM {
                    self.judge_no_room(refused.number, sent_after, device, ledger)?;
                } else {
                    self.refused.refuse_for_good(refused.number);
                    self.judge_refused(&refused, device, ledger)?;
                }
            }
            (_, None, Frame::LaneOpened(LaneOpened { lane })) => {
                if self.incoming.values().any(|incoming| incoming.lane == Some(lane)) {
                    return Err(format!("a second {lane:?} lane"));
                }
                self.incoming.get_mut(&stream).expect("it has bytes").lane = Some(lane);
            }
            (_, Some(Lane::INBOX), Frame::Deliver(deliver)) => self.judge_deliver(&deliver, &raw.bytes, ledger)?,
            (_, Some(Lane::INBOX), Frame::Progress(progress)) => self.judge_progress(&progress, ledger)?,
            (_, Some(Lane::INBOX), Frame::Skipped(skipped)) => self.judge_skipped(&skipped, ledger)?,
            (_, Some(Lane::INBOX), Frame::Truncated(truncated)) => self.judge_truncated(&truncated, ledger)?,
            (_, Some(Lane::BULK), Frame::HistoryPage(header)) => self.judge_page_header(header, ledger)?,
            (_, Some(Lane::BULK), Frame::Deliver(deliver)) => {
                self.judge_page_message(deliver, &raw.bytes, ledger)?;
            }
            (_, Some(Lane::INBOX), Frame::ReadUpdate(update)) => self.judge_read(&update, ledger)?,
            (_, Some(Lane::INBOX), Frame::ReadCountsUpdate(update)) => self.judge_read_counts(&update, ledger)?,
            (_, Some(Lane::URGENT), Frame::DingPush(push)) => self.judge_push(&push, ledger)?,
            (_, Some(Lane::URGENT), Frame::DingsOpen(open)) => self.judge_open(&open, ledger)?,
            (_, Some(Lane::URGENT), Frame::DingUpdate(update)) => self.judge_update(&update, ledger)?,
            (_, Some(Lane::URGENT), Frame::DingProgress(progress)) => self.judge_ding_progress(&progress, ledger)?,
            (_, _, other) => return Err(format!("{} on {stream} ({lane:?})", other.name())),
        }
        Ok(News::None)
    }

    fn judge_welcome(&mut self, welcome: Welcome, ledger: &Ledger) -> Result<(), String> {
        let (tenant, handle, _) = PEOPLE[self.person];
        let who = ledger.find(tenant, handle).ok_or("welcomed before the user is durable")?;
        if self.welcome.is_some() || welcome.user != who.1 || welcome.head > ledger.head {
            return Err(format!("{welcome:?} for {who:?} at {}", ledger.head));
        }
        // Else what is to start in five minutes would start at once, when the wall's clock was set back.
        if ledger.time(welcome.head).is_some_and(|recorded| welcome.time < recorded) {
            return Err(format!("{welcome:?} is earlier than its head's record"));
        }
        self.who = Some(who);
        self.told.welcomed(welcome.head);
        self.welcome = Some(welcome);
        Ok(())
    }

    fn judge_reply(&mut self, frame: &Frame, device: &mut Device, ledger: &Ledger) -> Result<(), String> {
        let request = match frame {
            Frame::Done(reply) => {
                self.unwatches.remove(&reply.request);
                reply.request
            }
            Frame::Error(reply) => {
                self.refused.requests += u64::from(reply.code == ErrorCode::NO_ROOM);
                self.watches.retain(|_, request| *request != reply.request);
                reply.request
            }
            Frame::Marked(reply) => reply.request,
            Frame::ConversationCreated(reply) => reply.request,
            Frame::DingCreated(reply) => reply.request,
            Frame::DingReminded(reply) => reply.request,
            Frame::DingConfirmed(reply) => {
                self.updated.insert(reply.ding);
                reply.request
            }
            other => return Err(format!("{} on the control stream", other.name())),
        };
        let asked = self.pending.remove(&request).ok_or(format!("a reply to {request}, which waits for none"))?;
        if let Want::Ding { key } = asked.want {
            device.ding_unanswered.take_if(|create| create.key == key);
        }
        asked.judge(frame, self.who_of(ledger)?, ledger)
    }

    /// Returns after which of the sequencer's rounds it was sent.
    fn note_answer(&mut self, number: u64) -> Option<u64> {
        let nth = self.under_way.iter().position(|(sent, _)| *sent == number)?;
        Some(self.under_way.remove(nth).1)
    }

    fn judge_published(&self, published: &Published, device: &mut Device, ledger: &Ledger) -> Result<(), String> {
        let message = ledger.message(published.position).ok_or(format!("{published:?} is not durable"))?;
        let is = (published.conversation, published.seq) == (message.deliver.conversation, message.deliver.seq);
        let mine = Some(message.deliver.author) == self.who.map(|who| who.1);
        let number = published.number;
        let mut same = true;
        if let Some(settled) = self.unsettled(device).and_then(|unsettled| unsettled.remove(&number)) {
            same = stamp(&message.deliver.payload) == Some(settled.stamp);
            device.settled.push_back((settled, published.position));
            if device.settled.len() > SETTLED_MAX {
                device.settled.pop_front();
            }
        } else if self.retired_at(ledger).is_none() && device.producer == self.ids.1 {
            // It was sent once more; a producer that was given up has forgotten it.
            let before = device.settled.iter().find(|(settled, _)| settled.publish.number == number);
            same = before.is_none_or(|(_, at)| *at == published.position)
                && self.repeats.get(&number).is_none_or(|same| *same);
        }
        if is && mine && same { Ok(()) } else { Err(format!("{published:?} for {:?}", message.deliver)) }
    }

    fn judge_deliver(&mut self, deliver: &Deliver, bytes: &Bytes, ledger: &Ledger) -> Result<(), String> {
        let who = self.who_of(ledger)?;
        let position = deliver.position;
        let message = ledger.message(position).ok_or(format!("{position} was delivered before it was durable"))?;
        if message.frame != *bytes {
            return Err(format!("{position}: delivered {deliver:?}, committed {:?}", message.deliver));
        }
        if !ledger.is_entitled(who, deliver.conversation, position) {
            return Err(format!("{position} of {} is not for {who:?}", deliver.conversation));
        }
        if position <= self.last {
            return Err(format!("{position} came again, or late: {} was before it", self.last));
        }
        let next = self.next_due(who, ledger);
        if next != Some(position) {
            return Err(format!("{position} came after {}, but {next:?} is next", self.last));
        }
        self.last = position;
        Ok(())
    }

    fn judge_progress(&mut self, progress: &Progress, ledger: &Ledger) -> Result<(), String> {
        let who = self.who_of(ledger)?;
        let position = progress.position;
        let missed = self.next_due(who, ledger).filter(|next| *next <= position);
        let news = position > self.last || position == self.last && progress.receipts_through > self.told.through;
        if !news || position > ledger.head || missed.is_some() {
            let head = ledger.head;
            return Err(format!("progress to {position} after {}, missed {missed:?}, head {head}", self.last));
        }
        self.last = position;
        self.told.raise(progress.receipts_through);
        Ok(())
    }

    fn judge_read(&mut self, update: &ReadUpdate, ledger: &Ledger) -> Result<(), String> {
        let who = self.who_of(ledger)?;
        let (tenant, mark) = ledger.mark(update.position).ok_or(format!("{update:?} is not durable"))?;
        if *tenant != who.0 || !is_same(update, mark) {
            return Err(format!("{update:?} was told, {mark:?} of {tenant:?} was marked"));
        }
        if !ledger.is_entitled(who, update.conversation, update.position) {
            return Err(format!("{update:?} is not for {who:?}, no member then {}", update.position));
        }
        self.told.read(update)
    }

    fn judge_read_counts(&mut self, update: &ReadCountsUpdate, ledger: &Ledger) -> Result<(), String> {
        let who = self.who_of(ledger)?;
        let marked = ledger.mark(update.position);
        let of = |(tenant, mark): &Marked| (*tenant, mark.conversation);
        let is_own = |seq| ledger.author(update.conversation, seq) == Some(who.1);
        let sound =
            update.entries.is_sorted_by(|a, b| a.seq < b.seq) && update.entries.iter().all(|entry| is_own(entry.seq));
        let bounded = (1..=COUNTS_A_FRAME_MAX).contains(&update.entries.len());
        if marked.map(of) != Some((who.0, update.conversation)) || !sound || !bounded {
            return Err(format!("{update:?} was told to {who:?}, {marked:?} was marked"));
        }
        self.told.counted(update);
        Ok(())
    }

    fn judge_refused(&self, refused: &PublishRefused, device: &mut Device, ledger: &Ledger) -> Result<(), String> {
        match refused.code {
            // Another session of the producer is at work: it is that one's to send.
            ErrorCode::FENCED => Ok(()),
            ErrorCode::NO_PRODUCER if self.retired_at(ledger).is_some() => Ok(()),
            // What was answered is sent once more; with other content, it may not pass.
            ErrorCode::ALREADY_SETTLED | ErrorCode::PRODUCER_CONFLICT
                if self.repeats.contains_key(&refused.number)
                    && self.unsettled(device).is_none_or(|unsettled| !unsettled.contains_key(&refused.number)) =>
            {
                Ok(())
            }
            ErrorCode::NOT_FOUND | ErrorCode::FORBIDDEN | ErrorCode::UNKNOWN_USER | ErrorCode::INVALID => {
                self.unsettled(device).map(|unsettled| unsettled.remove(&refused.number));
                Ok(())
            }
            _ => Err(format!("{refused:?}")),
        }
    }

    /// What the device has not settled, if it still publishes under this session's producer.
    fn unsettled<'a>(&self, device: &'a mut Device) -> Option<&'a mut BTreeMap<u64, Unsettled>> {
        (device.producer == self.ids.1).then_some(&mut device.unsettled)
    }

    /// Where the device or the producer of this session was given up last.
    pub(super) fn retired_at(&self, ledger: &Ledger) -> Option<Position> {
        let who = self.who_of(ledger).ok()?;
        ledger.retired(who, self.ids.0.0).max(ledger.retired(who, self.ids.1.0))
    }

    /// Whether that was after it was attached, as far as the client knows.
    pub(super) fn is_retired(&self, ledger: &Ledger) -> bool {
        let attached_at = self.welcome.as_ref().map_or(Position(0), |welcome| welcome.head);
        self.retired_at(ledger).is_some_and(|retired_at| retired_at > attached_at)
    }

    /// Who it is; lanes may be open before `Welcome` is read.
    pub(super) fn who_of(&self, ledger: &Ledger) -> Result<Who, String> {
        let (tenant, handle, _) = PEOPLE[self.person];
        ledger.find(tenant, handle).ok_or_else(|| "a lane of nobody".into())
    }
}
