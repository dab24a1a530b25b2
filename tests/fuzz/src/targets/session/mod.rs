//! A broker's edge and sequencer, and clients that send what they like: nothing panics, no session ends for a fault of the broker's,
//! what is written is frames, a device is offered messages in order, and who comes afterwards is served.
//!
//! Input: what clients do, one step after the other: a byte that says what and who, and a length and bytes. Frames come as they are
//! and sealed, on the control stream, on the publish stream, and as datagrams.

use bytes::{Bytes, BytesMut};
use carillon_protocol::Frame;
use carillon_protocol::control::{ConversationCreate, UserFind};
use carillon_protocol::decoder::Decoder;
use carillon_protocol::error::ErrorCode;
use carillon_protocol::frame::Body;
use carillon_protocol::ids::{ConversationId, DeviceId, ProducerId, Seq, UserId};
use carillon_protocol::kinds::{
    ConversationKind, HistoryPolicy, Lane, MessageKind, PostPolicy, ReceiptPolicy, SignalKind, Target as To,
};
use carillon_protocol::limits::FRAME_BYTES_MAX;
use carillon_protocol::presence::Signal;
use carillon_protocol::publish::Publish;
use carillon_protocol::receipt::MarkRead;
use carillon_protocol::session::{Hello, NEWEST_ALL, VERSION};
use carillon_transport::{Event, LinkKey, StreamId};

use super::frames::golden;
use crate::input::{Input, put_piece};
use crate::{Budget, Target, seal};

mod links;
mod world;

use world::{PEOPLE, World, token};

pub(super) const TARGET: Target = Target {
    name: "session",
    run,
    // A whole broker: queues with room for everything that may wait, the index's stripes, the journal twice on the simulated disk.
    // What comes is answered, delivered to four devices, and kept by the journal and by streams that nobody reads.
    budget: Budget { per_byte: 512, fixed_bytes: 4 * 1024 * 1024 },
    input_bytes_max: 4 * 1024,
    seeds,
    words: &[],
    short_inputs: 4_000,
};

/// Steps of an input, and connections.
const STEPS_MAX: usize = 48;

const CONTROL: StreamId = StreamId(0);
const PUBLISH: StreamId = StreamId(4);

fn run(input: &[u8]) {
    let mut input = Input::new(input);
    let mut world = World::new();
    let mut links: Vec<LinkKey> = (0..PEOPLE.len()).map(|person| attach(&mut world, person, NEWEST_ALL)).collect();
    world.settle();
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        let what = input.u8();
        let who = usize::from(what >> 4) % links.len();
        step(&mut world, &mut links, what & 15, who, input.piece());
        world.settle();
        check_closed(&world);
    }
    check_written(&world);
    check_served(&mut world);
}

fn step(world: &mut World, links: &mut Vec<LinkKey>, what: u8, who: usize, bytes: &[u8]) {
    let sealed = || Bytes::from(seal::frames(bytes, Frame::SHAPES).flatten().collect::<Vec<u8>>());
    let as_it_is = || Bytes::copy_from_slice(bytes);
    let link = links[who];
    match what {
        0..=3 => world.wires.send(link, CONTROL, sealed()),
        4 | 5 => world.wires.send(link, PUBLISH, sealed()),
        6 => world.wires.send(link, CONTROL, as_it_is()),
        7 => world.wires.send(link, PUBLISH, as_it_is()),
        8 => world.wires.events.push(Event::Datagram { link, bytes: sealed() }),
        9 => world.wires.events.push(Event::Datagram { link, bytes: as_it_is() }),
        10 => world.pass_ms(u64::from(Input::new(bytes).u16())),
        11 => world.wires.disconnect(link),
        12 => {
            let newest = Input::new(bytes).u8().into();
            links.push(attach(world, who % PEOPLE.len(), newest));
        }
        13 => {
            let link = world.wires.connect();
            world.wires.send(link, CONTROL, as_it_is());
            links.push(link);
        }
        14 => {
            let link = world.wires.connect();
            world.wires.send(link, CONTROL, sealed());
            links.push(link);
        }
        _ => world.wires.finish(link, if bytes.is_empty() { CONTROL } else { PUBLISH }),
    }
}

/// A device of this person comes, with a good `Hello`.
fn attach(world: &mut World, person: usize, newest: u32) -> LinkKey {
    let link = world.wires.connect();
    let hello = Hello {
        version: VERSION,
        device: DeviceId(1 + person as u64),
        producer: ProducerId(9),
        newest,
        token: token(person).into(),
        client: "fuzz".into(),
        cursors: Vec::new(),
    };
    world.wires.send(link, CONTROL, hello.to_bytes());
    link
}

/// A session may end for what it sent, never for what the broker could not do.
fn check_closed(world: &World) {
    for (link, code) in &world.wires.closed {
        let code = ErrorCode(u16::try_from(*code).expect("a close code is one of the protocol's"));
        assert!(code.name().is_some() && code != ErrorCode::INTERNAL, "{link:?} was closed with {code:?}");
    }
}

/// Every stream that was written is frames, and a lane's messages ascend.
fn check_written(world: &World) {
    for written in world.wires.written() {
        let mut decoder = Decoder::new(FRAME_BYTES_MAX);
        decoder.push(Bytes::copy_from_slice(written));
        let (mut lane, mut last) = (None, 0);
        while let Some(raw) = decoder.poll_frame().expect("what is written is frames") {
            let frame = Frame::decode(&raw).expect("what is written can be read");
            match &frame {
                Frame::LaneOpened(opened) => lane = Some(opened.lane),
                Frame::Deliver(deliver) if lane == Some(Lane::INBOX) => {
                    assert!(deliver.position.0 > last, "{} after {last}", deliver.position);
                    last = deliver.position.0;
                }
                _other => {}
            }
        }
        assert!(decoder.is_empty(), "what is written is whole");
    }
}

/// Whatever was done before, a device that comes now gets its answer.
fn check_served(world: &mut World) {
    let before = welcomes(world);
    let link = attach(world, 1, 1);
    world.settle();
    let find = UserFind { request: 7, create: 0, handle: "ann".into() };
    world.wires.send(link, CONTROL, find.to_bytes());
    world.settle();
    // Unless its device was given up, and with it the right to come back as the same.
    let came = welcomes(world);
    let refused = world.wires.closed.iter().any(|(closed, _)| *closed == link);
    assert!(refused || came > before, "nobody was welcomed");
}

fn welcomes(world: &World) -> usize {
    let is_welcome = |written: &&[u8]| written.get(4) == Some(&0x02);
    world.wires.written().filter(is_welcome).count()
}

fn seeds() -> Vec<Vec<u8>> {
    let mut steps = Vec::new();
    let add = |seed: &mut Vec<u8>, what: u8, who: u8, bytes: &[u8]| {
        seed.push(what | who << 4);
        put_piece(seed, bytes);
    };
    let mut talk = Vec::new();
    add(&mut talk, 0, 0, &create_group());
    let group = ConversationId(4);
    for number in 1..4 {
        add(&mut talk, 4, 1, &publish(number, To::CONVERSATION, group.0));
        add(&mut talk, 4, 2, &publish(number, To::USER, 1));
    }
    let mark = MarkRead { request: 3, conversation: group, up_to: Seq(2) };
    add(&mut talk, 0, 2, &mark.to_bytes());
    add(&mut talk, 8, 1, &Signal { conversation: group, kind: SignalKind::TYPING }.to_bytes());
    add(&mut talk, 8, 1, &Signal { conversation: group, kind: SignalKind::PRESENT }.to_bytes());
    add(&mut talk, 11, 1, &[]);
    add(&mut talk, 12, 1, &[1]);
    add(&mut talk, 10, 0, &[0xff, 0x0f]);
    steps.push(talk);
    // Every frame once, by somebody who may do most.
    for (nth, frames) in golden().chunks(8).enumerate() {
        let mut seed = Vec::new();
        add(&mut seed, 0, 0, &create_group());
        for frame in frames {
            add(&mut seed, u8::try_from(nth % 6).unwrap(), 0, frame);
            add(&mut seed, 14, 0, frame);
        }
        steps.push(seed);
    }
    steps
}

fn create_group() -> BytesMut {
    let create = ConversationCreate {
        request: 1,
        kind: ConversationKind::GROUP,
        post_policy: PostPolicy::MEMBERS,
        history: HistoryPolicy::FULL,
        receipts: ReceiptPolicy::ON,
        name: "ops".into(),
        members: vec![UserId(1), UserId(2)],
    };
    let mut frame = BytesMut::new();
    create.encode(&mut frame);
    frame
}

fn publish(number: u64, target: To, target_id: u64) -> Bytes {
    let payload = Bytes::from_static(b"hello");
    Publish { number, low: 1, target, target_id, kind: MessageKind::TEXT, payload }.to_bytes()
}
