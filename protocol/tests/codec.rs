//! The codec on what peers send: whole frames, cut ones, longer ones of newer versions, and bytes that are none.
//!
//! The frames are made from [`Frame::SHAPES`], byte by byte, so that every kind is covered without a sample that somebody has
//! to remember; that fields lie where they are documented is what `protocol_md.rs` checks.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails its test")]

use bytes::{BufMut, Bytes, BytesMut};
use carillon_protocol::Frame;
use carillon_protocol::control::{Conversations, MembersAdd};
use carillon_protocol::decoder::Decoder;
use carillon_protocol::deliver::Deliver;
use carillon_protocol::error::{Error, ErrorCode};
use carillon_protocol::frame::{Body, Element, FrameError, HEADER_BYTES, RawFrame};
use carillon_protocol::ids::{ConversationId, Position, Seq, Timestamp, UserId};
use carillon_protocol::kinds::MessageKind;
use carillon_protocol::limits::{BODY_BYTES_MAX, FRAME_BYTES_MAX, LIST_ENTRIES_MAX};
use carillon_protocol::session::{Hello, NEWEST_ALL, Refresh};
use carillon_protocol::shape::{Part, Shape};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// A part's length and bytes.
type PartBytes = (u32, Vec<u8>);

fn part(part: &Part) -> BoxedStrategy<PartBytes> {
    let unit_bytes = part.unit_bytes;
    if part.type_name == "Text" {
        let text = vec(any::<char>(), 0..20).prop_map(String::from_iter);
        text.prop_map(|text| (u32::try_from(text.len()).unwrap(), text.into_bytes())).boxed()
    } else {
        let units = (0..40usize).prop_flat_map(move |units| vec(any::<u8>(), units * unit_bytes));
        units.prop_map(move |bytes| (u32::try_from(bytes.len() / unit_bytes).unwrap(), bytes)).boxed()
    }
}

/// Writes a frame of this shape; `appended` is what a newer version has put after the body's known fields.
fn write(shape: &Shape, fields: &[u8], parts: &[PartBytes], appended: &[u8]) -> Bytes {
    let body_bytes = shape.body_bytes + appended.len();
    let tail_bytes: usize = parts.iter().map(|(_, bytes)| bytes.len()).sum();
    let mut out = BytesMut::new();
    out.put_u32_le(u32::try_from(body_bytes + tail_bytes).unwrap());
    out.put_u8(shape.kind);
    out.put_u8(0);
    out.put_u16_le(u16::try_from(body_bytes).unwrap());
    out.put_slice(fields);
    parts.iter().for_each(|(length, _)| out.put_u32_le(*length));
    out.put_slice(appended);
    parts.iter().for_each(|(_, bytes)| out.put_slice(bytes));
    out.freeze()
}

fn frame_of(shape: Shape, appended_bytes_max: usize) -> impl Strategy<Value = Bytes> {
    let fields_bytes: usize = shape.fields.iter().map(|field| field.bytes).sum();
    let parts: Vec<_> = shape.tail.iter().map(part).collect();
    (vec(any::<u8>(), fields_bytes), parts, vec(any::<u8>(), 0..=appended_bytes_max))
        .prop_map(move |(fields, parts, appended)| write(&shape, &fields, &parts, &appended))
}

fn frame() -> impl Strategy<Value = Bytes> {
    select(Frame::SHAPES).prop_flat_map(|shape| frame_of(shape, 0))
}

fn decode(bytes: &Bytes) -> Result<Frame, FrameError> {
    Frame::decode(&RawFrame::new(bytes.clone())?)
}

fn encode(frame: &Frame) -> Bytes {
    let mut out = BytesMut::new();
    frame.encode(&mut out);
    out.freeze()
}

/// Cuts `stream` into chunks of these sizes, over and over, and decodes what comes out until an error.
fn decode_in_chunks(stream: &Bytes, chunk_bytes: &[usize]) -> (Vec<Bytes>, Option<FrameError>) {
    let mut decoder = Decoder::new(FRAME_BYTES_MAX);
    let mut rest = stream.clone();
    let mut frames = Vec::new();
    for bytes in chunk_bytes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        decoder.push(rest.split_to((*bytes).min(rest.len())));
        loop {
            match decoder.poll_frame() {
                Ok(Some(raw)) => frames.push(raw.bytes),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}

proptest! {
    #[test]
    fn a_frame_of_any_kind_is_read_and_written_to_the_same_bytes(bytes in frame()) {
        prop_assert_eq!(encode(&decode(&bytes).unwrap()), bytes);
    }

    #[test]
    fn a_longer_body_of_a_newer_peer_is_read_up_to_what_is_known(
        (shape, bytes) in select(Frame::SHAPES).prop_flat_map(|shape| (Just(shape), frame_of(shape, 100)))
    ) {
        let known = encode(&decode(&bytes).unwrap());
        let fields = HEADER_BYTES..HEADER_BYTES + shape.body_bytes;
        prop_assert_eq!(&known[fields.clone()], &bytes[fields]);
        let tail_bytes = known.len() - HEADER_BYTES - shape.body_bytes;
        prop_assert!(bytes.ends_with(&known[known.len() - tail_bytes..]));
    }

    #[test]
    fn every_prefix_of_a_frame_is_refused(bytes in frame()) {
        for end in 0..bytes.len() {
            // As it was cut, and with a header that admits it.
            prop_assert!(matches!(RawFrame::new(bytes.slice(..end)), Err(FrameError::Short { .. })), "{} bytes", end);
            if end >= HEADER_BYTES {
                let mut cut = BytesMut::from(&bytes[..end]);
                cut[..4].copy_from_slice(&u32::try_from(end - HEADER_BYTES).unwrap().to_le_bytes());
                prop_assert!(decode(&cut.freeze()).is_err(), "{} bytes", end);
            }
        }
    }

    #[test]
    fn arbitrary_bytes_are_a_frame_or_an_error(bytes in vec(any::<u8>(), 0..400)) {
        let bytes = Bytes::from(bytes);
        if let Ok(frame) = decode(&bytes) {
            prop_assert_eq!(decode(&encode(&frame)), Ok(frame));
        }
    }

    #[test]
    fn a_known_kind_with_an_arbitrary_body_is_a_frame_or_an_error(
        shape in select(Frame::SHAPES),
        body_bytes in 0..=BODY_BYTES_MAX,
        rest in vec(any::<u8>(), 0..600)
    ) {
        let mut bytes = BytesMut::new();
        bytes.put_u32_le(u32::try_from(rest.len()).unwrap());
        bytes.put_u8(shape.kind);
        bytes.put_u8(0xff);
        bytes.put_u16_le(u16::try_from(body_bytes).unwrap());
        bytes.put_slice(&rest);
        match decode(&bytes.freeze()) {
            Ok(frame) => prop_assert_eq!(decode(&encode(&frame)), Ok(frame)),
            Err(error) => prop_assert_eq!(error.close_code(), ErrorCode::MALFORMED),
        }
    }

    #[test]
    fn a_frame_with_one_byte_changed_is_a_frame_or_an_error(bytes in frame(), at in any::<Index>(), byte in any::<u8>()) {
        let mut bytes = BytesMut::from(&bytes[..]);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(frame) = decode(&bytes.freeze()) {
            prop_assert_eq!(decode(&encode(&frame)), Ok(frame));
        }
    }

    #[test]
    fn frames_come_out_of_chunks_as_they_went_in(
        frames in vec(frame(), 1..8),
        chunk_bytes in vec(1..200usize, 1..20)
    ) {
        let stream = Bytes::from(frames.concat());
        prop_assert_eq!(decode_in_chunks(&stream, &chunk_bytes), (frames, None));
    }

    #[test]
    fn arbitrary_bytes_in_chunks_end_as_they_do_whole(
        start in vec(frame(), 0..3),
        rest in vec(any::<u8>(), 0..400),
        chunk_bytes in vec(1..60usize, 1..20)
    ) {
        let stream = Bytes::from([start.concat(), rest].concat());
        prop_assert_eq!(decode_in_chunks(&stream, &chunk_bytes), decode_in_chunks(&stream, &[usize::MAX]));
    }
}

/// What decoding a `MembersAdd` says that announces `entries` and has `tail_bytes`.
fn members_add(entries: u32, tail_bytes: usize) -> Result<Frame, FrameError> {
    let shape = Frame::SHAPES.iter().find(|shape| shape.kind == MembersAdd::KIND).unwrap();
    decode(&write(shape, &[0; 13], &[(entries, vec![0; tail_bytes])], &[]))
}

#[test]
fn a_list_is_as_long_as_its_entries_are_and_no_longer_than_the_limit() {
    let limit = u32::try_from(LIST_ENTRIES_MAX).unwrap();
    assert!(members_add(limit, 4 * LIST_ENTRIES_MAX).is_ok());
    let above = LIST_ENTRIES_MAX + 1;
    assert_eq!(members_add(limit + 1, 4 * above), Err(FrameError::LongList { entries: above }));
    assert_eq!(members_add(u32::MAX, 0), Err(FrameError::LongList { entries: u32::MAX as usize }));
    assert_eq!(members_add(limit, 0), Err(FrameError::Tail { have: 0, need: 4 * LIST_ENTRIES_MAX }));
    assert_eq!(members_add(2, 7), Err(FrameError::Tail { have: 7, need: 8 }));
    assert_eq!(members_add(2, 9), Err(FrameError::Tail { have: 1, need: 0 }));
}

#[test]
fn text_that_is_not_utf8_is_refused() {
    let shape = Frame::SHAPES.iter().find(|shape| shape.kind == Error::KIND).unwrap();
    for text in [&[0xff][..], &[0xc3], &[0xed, 0xa0, 0x80], &[b'a', 0x80]] {
        let bytes = write(shape, &[0; 6], &[(u32::try_from(text.len()).unwrap(), text.to_vec())], &[]);
        assert_eq!(decode(&bytes), Err(FrameError::NotText), "{text:02x?}");
    }
}

#[test]
fn a_header_that_lies_is_refused() {
    let header = |follow: u32, body: u16| {
        let mut bytes = BytesMut::new();
        bytes.put_u32_le(follow);
        bytes.put_u16_le(0x000f);
        bytes.put_u16_le(body);
        bytes.put_u32_le(1);
        RawFrame::new(bytes.freeze()).map(|raw| raw.tail().len())
    };
    assert_eq!(header(4, 4), Ok(0));
    assert_eq!(header(4, 0), Ok(4));
    assert_eq!(header(5, 4), Err(FrameError::Short { have: 12, need: 13 }));
    assert_eq!(header(3, 3), Err(FrameError::Tail { have: 1, need: 0 }));
    assert_eq!(header(4, 5), Err(FrameError::LongBody { bytes: 5 }));
    assert_eq!(header(u32::MAX, 257), Err(FrameError::LongBody { bytes: 257 }));
    assert!(matches!(header(u32::MAX, 0), Err(FrameError::Short { have: 12, .. })));
}

#[test]
fn a_delivered_message_lies_as_written_down() {
    let deliver = Deliver {
        position: Position(0x0102_0304_0506_0708),
        conversation: ConversationId(0x1112_1314_1516_1718),
        seq: Seq(0x2122_2324_2526_2728),
        author: UserId(0x3132_3334),
        time: Timestamp(0x4142_4344_4546_4748),
        kind: MessageKind(0x51),
        payload: Bytes::from_static(b"hi"),
    };
    let bytes = deliver.to_bytes();
    let expected = concat!(
        "2b00000013002900",
        "0807060504030201",
        "1817161514131211",
        "2827262524232221",
        "34333231",
        "4847464544434241",
        "51",
        "02000000",
        "6869"
    );
    assert_eq!(hex::encode(&bytes), expected);
    let decoded = Deliver::decode(&RawFrame::new(bytes.clone()).unwrap()).unwrap();
    assert_eq!(decoded, deliver);
    assert_eq!(decoded.payload.as_ptr(), bytes[bytes.len() - 2..].as_ptr(), "the payload is a slice, not a copy");
}

#[test]
fn the_limits_leave_room_for_what_they_are_made_of() {
    for shape in Frame::SHAPES {
        assert!(shape.body_bytes * 2 <= BODY_BYTES_MAX, "{} has {} bytes", shape.name, shape.body_bytes);
    }
    for entry_bytes in [<UserId as Element>::BYTES, Conversations::TAIL[0].unit_bytes] {
        assert!(entry_bytes <= BODY_BYTES_MAX);
    }
}

#[test]
fn a_token_is_kept_out_of_logs() {
    let token = "eyJhbGciOiJFZERTQSJ9";
    let refresh = Refresh { request: 1, token: token.into() };
    let hello = Hello {
        version: 1,
        device: Default::default(),
        producer: Default::default(),
        newest: NEWEST_ALL,
        token: token.into(),
        client: "test".into(),
        cursors: Vec::new(),
    };
    for shown in [format!("{refresh:?}"), format!("{hello:?}"), format!("{:?}", Frame::from(hello.clone()))] {
        assert!(shown.contains("token") && !shown.contains(token), "{shown}");
    }
}
