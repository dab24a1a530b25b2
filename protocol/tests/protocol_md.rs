//! `docs/PROTOCOL.md` says what the code does: every table and every example in it is compared with the code.
//!
//! The rows that the code implies are written here from [`Frame::SHAPES`] and must be the page's rows, so a field that is
//! added, moved or renamed fails here until the page has it.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails its test")]

use std::collections::BTreeSet;

use bytes::{Bytes, BytesMut};
use carillon_protocol::Frame;
use carillon_protocol::control::{ConversationEntry, MemberEntry, UserEntry};
use carillon_protocol::ding::DingStep;
use carillon_protocol::ding_status::{DingAttempt, DingEntry, DingSummary};
use carillon_protocol::error::ErrorCode;
use carillon_protocol::frame::{HEADER_BYTES, RawFrame};
use carillon_protocol::presence::{PresenceEntry, SessionEntry};
use carillon_protocol::receipt::{ReadCountsEntry, ReadEntry};
use carillon_protocol::session::{ALPN, Cursor};
use carillon_protocol::shape::{Field, Part, Shape};
use carillon_protocol::{kinds, limits};

const PAGE: &str = include_str!("../../docs/PROTOCOL.md");

/// The fields of a list's entries, by the name of their type.
const ENTRIES: [(&str, &[Field]); 13] = [
    ("Cursor", Cursor::FIELDS),
    ("ReadEntry", ReadEntry::FIELDS),
    ("ReadCountsEntry", ReadCountsEntry::FIELDS),
    ("DingEntry", DingEntry::FIELDS),
    ("DingAttempt", DingAttempt::FIELDS),
    ("DingSummary", DingSummary::FIELDS),
    ("DingStep", DingStep::FIELDS),
    ("ConversationEntry", ConversationEntry::FIELDS),
    ("MemberEntry", MemberEntry::FIELDS),
    ("UserEntry", UserEntry::FIELDS),
    ("PresenceEntry", PresenceEntry::FIELDS),
    ("SessionEntry", SessionEntry::FIELDS),
    ("UserId", &[Field::new::<u32>("", "UserId")]),
];

/// What stands under the heading with this text, up to the next heading.
fn section(title: &str) -> impl Iterator<Item = &'static str> {
    let mut lines = PAGE.lines();
    let found = lines.find(|line| line.starts_with('#') && line.trim_start_matches('#').trim() == title);
    assert!(found.is_some(), "docs/PROTOCOL.md has no section {title:?}");
    let mut in_block = false;
    lines.take_while(move |line| {
        in_block ^= line.starts_with("```");
        in_block || !line.starts_with('#')
    })
}

/// The rows of the section's table, without its heading.
fn rows(title: &str) -> Vec<Vec<&'static str>> {
    let table = section(title).filter(|line| line.starts_with('|')).skip(2);
    table.map(|row| row.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

/// The first columns of the section's rows.
fn columns(title: &str, count: usize) -> Vec<String> {
    rows(title).iter().map(|row| row[..count].join(" | ")).collect()
}

/// The example of the section: the name in its first line and its bytes.
fn example(title: &str) -> (&'static str, Bytes) {
    let mut block = section(title).skip_while(|line| *line != "```hex").skip(1).take_while(|line| *line != "```");
    let name = block.next().and_then(|line| line.strip_prefix("# "));
    let digits: String = block.flat_map(str::chars).filter(|digit| !digit.is_whitespace()).collect();
    (name.unwrap_or_else(|| panic!("{title} has no example")), hex::decode(digits).unwrap().into())
}

/// How the page writes a field's type: the integer, then the newtype if it is one.
fn wire_type(field: &Field) -> String {
    let integer = format!("u{}", 8 * field.bytes);
    if field.type_name == integer { integer } else { format!("{integer} {}", field.type_name) }
}

fn entry_type(part: &Part) -> Option<&'static str> {
    part.type_name.strip_prefix("Vec<")?.strip_suffix('>')
}

fn entry_fields(name: &str) -> &'static [Field] {
    ENTRIES.iter().find(|(entry, _)| *entry == name).unwrap_or_else(|| panic!("ENTRIES lacks {name}")).1
}

/// Cuts an integer of `width` bytes.
fn integer(bytes: &mut Bytes, width: usize) -> u64 {
    let little_endian = bytes.split_to(width);
    little_endian.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// How the page writes one entry: its fields in braces, or the one it has.
fn entry_value(bytes: &mut Bytes, fields: &[Field]) -> String {
    let values: Vec<_> = fields.iter().map(|field| integer(bytes, field.bytes).to_string()).collect();
    if let [value] = &values[..] { value.clone() } else { format!("{{{}}}", values.join(", ")) }
}

/// How the page writes the value of a tail's part with this length.
fn part_value(part: &Part, length: u64, tail: &mut Bytes) -> String {
    let length = usize::try_from(length).unwrap();
    let mut bytes = tail.split_to(length * part.unit_bytes);
    match entry_type(part) {
        Some(entry) => {
            let values: Vec<_> = (0..length).map(|_| entry_value(&mut bytes, entry_fields(entry))).collect();
            format!("[{}]", values.join(", "))
        }
        None if part.type_name == "Text" => format!("{:?}", str::from_utf8(&bytes).unwrap()),
        None => format!("0x{}", hex::encode(&bytes)),
    }
}

/// The first five columns of a frame's table, with the values that `example` has.
fn frame_rows(shape: &Shape, example: &Bytes) -> Vec<String> {
    let lengths = shape.tail.iter().map(|part| (format!("{}.length", part.name), Field::new::<u32>("", "u32")));
    let body = shape.fields.iter().map(|field| (field.name.to_owned(), *field)).chain(lengths.clone());
    let mut rest = example.slice(HEADER_BYTES..);
    let mut at = HEADER_BYTES;
    let mut values = Vec::new();
    let mut expected = Vec::new();
    for (name, field) in body {
        let value = integer(&mut rest, field.bytes);
        expected.push(format!("{at} | {} | {} | {name} | {value}", field.bytes, wire_type(&field)));
        values.push(value);
        at += field.bytes;
    }
    assert_eq!(at, HEADER_BYTES + shape.body_bytes, "{}: the fields do not add up to the body", shape.name);
    for (part, length) in shape.tail.iter().zip(&values[shape.fields.len()..]) {
        let offset = if expected.len() == values.len() { at.to_string() } else { "then".to_owned() };
        let kind = entry_type(part).map_or(part.type_name.to_lowercase(), |entry| format!("list of {entry}"));
        let value = part_value(part, *length, &mut rest);
        expected
            .push(format!("{offset} | {} × {}.length | {kind} | {} | {value}", part.unit_bytes, part.name, part.name));
    }
    assert!(rest.is_empty(), "{}: the example has bytes left over", shape.name);
    expected
}

fn title(shape: &Shape) -> String {
    format!("{:#04x} {}", shape.kind, shape.name)
}

#[test]
fn every_frame_has_its_table_and_an_example_of_it() {
    for shape in Frame::SHAPES {
        let title = title(shape);
        let (name, bytes) = example(&title);
        let frame = RawFrame::new(bytes.clone()).and_then(|raw| Frame::decode(&raw));
        let frame = frame.unwrap_or_else(|error| panic!("{title}: {error}"));
        let mut encoded = BytesMut::new();
        frame.encode(&mut encoded);
        assert_eq!((name, frame.name()), (shape.name, shape.name), "{title}");
        assert_eq!(hex::encode(encoded), hex::encode(&bytes), "{title}");
        assert_eq!(columns(&title, 5), frame_rows(shape, &bytes), "{title}");
    }
}

#[test]
fn the_page_has_the_frames_of_the_code_and_no_others() {
    let mut kinds = BTreeSet::new();
    assert!(Frame::SHAPES.iter().all(|shape| kinds.insert(shape.kind)), "two frames have one kind");
    assert!(kinds.iter().all(|kind| *kind < 0x80), "kinds from 0x80 on are the journal's own");
    let expected: Vec<_> = Frame::SHAPES.iter().map(title).collect();
    let titles: Vec<_> = PAGE.lines().filter_map(|line| line.strip_prefix("#### ")).collect();
    assert_eq!(titles, expected);

    let link = |shape: &Shape| {
        let anchor = title(shape).to_lowercase().replace(' ', "-");
        format!("{:#04x} [{}](#{anchor})", shape.kind, shape.name)
    };
    let streams = rows("Which frame on which stream");
    assert_eq!(
        streams.iter().map(|row| row[0]).collect::<Vec<_>>(),
        Frame::SHAPES.iter().map(link).collect::<Vec<_>>()
    );
    for (shape, row) in Frame::SHAPES.iter().zip(streams) {
        let first = section(&title(shape)).find(|line| !line.is_empty()).unwrap();
        assert!(first.starts_with(&format!("{}, {}. ", row[1], row[2])), "{}: {first}", shape.name);
    }
}

#[test]
fn every_list_entry_has_its_table() {
    for (name, fields) in ENTRIES.iter().filter(|(name, _)| *name != "UserId") {
        let mut at = 0;
        let mut expected = Vec::new();
        for field in *fields {
            expected.push(format!("{at} | {} | {} | {}", field.bytes, wire_type(field), field.name));
            at += field.bytes;
        }
        assert_eq!(columns(name, 4), expected, "{name}");
        assert!(section(name).any(|line| line.ends_with(&format!(" {at} bytes."))), "{name} has {at} bytes");
    }
    for part in Frame::SHAPES.iter().flat_map(|shape| shape.tail) {
        let entry_bytes = entry_type(part).map(|entry| entry_fields(entry).iter().map(|field| field.bytes).sum());
        assert_eq!(entry_bytes.unwrap_or(1usize), part.unit_bytes, "{}", part.type_name);
    }
}

/// The enumerations' names and values as (name, value, name of the value), in the order of the source.
macro_rules! enumerations {
    ($($name:ident)*) => {
        [$((stringify!($name), kinds::$name::ALL.iter().map(|(value, name)| format!("{} | {name}", value.0)).collect::<Vec<_>>()),)*]
    };
}

#[test]
fn every_type_and_enumeration_has_its_table() {
    let enumerations = enumerations!(MessageKind ConversationKind Role PostPolicy HistoryPolicy ReceiptPolicy Direction Lane Target Change StatusList ReadState DingState Outlet AttemptState CancelState QuietHours SignalKind Retired);
    for (name, values) in &enumerations {
        assert_eq!(columns(name, 2), *values, "{name}");
    }
    let types = columns("Types", 2);
    let entries = ENTRIES.iter().flat_map(|(_, fields)| *fields);
    for field in Frame::SHAPES.iter().flat_map(|shape| shape.fields).chain(entries) {
        let integer = format!("u{}", 8 * field.bytes);
        let named = enumerations.iter().any(|(name, _)| field.bytes == 1 && *name == field.type_name);
        let row = format!("{} | {integer}", field.type_name);
        assert!(field.type_name == integer || named || types.contains(&row), "the page does not say what {row} is");
    }
}

#[test]
fn every_error_code_has_its_row() {
    let (close, reply): (Vec<_>, Vec<_>) = ErrorCode::ALL.iter().partition(|(code, _)| code.0 < 32);
    for (title, codes) in [("Close codes", close), ("Reply codes", reply)] {
        let expected: Vec<_> = codes.iter().map(|(code, name)| format!("{} | {name}", code.0)).collect();
        assert_eq!(columns(title, 2), expected, "{title}");
        assert!(rows(title).iter().all(|row| row.len() == 4 && !row[3].is_empty()), "{title} must say what to do");
    }
}

/// The limits as the page writes them.
macro_rules! limits {
    ($($name:ident)*) => { [$(format!("{} | {}", stringify!($name), limits::$name),)*] };
}

#[test]
fn every_limit_has_its_row() {
    let expected = limits!(
        PAYLOAD_BYTES_MAX BODY_BYTES_MAX LIST_ENTRIES_MAX FRAME_BYTES_MAX HELLO_BYTES_MAX TOKEN_BYTES_MAX HANDLE_BYTES_MAX
        NAME_BYTES_MAX ERROR_TEXT_BYTES_MAX CURSORS_MAX MEMBERS_A_REQUEST_MAX PAGE_ENTRIES_MAX HISTORY_BYTES_MAX DING_RECIPIENTS_MAX
        DING_STEPS_MAX DING_ATTEMPTS_MAX DINGS_WATCHED_MAX PRODUCER_WINDOW REQUESTS_PENDING_MAX PRESENCE_USERS_MAX PRESENT_CONVERSATIONS_MAX
    );
    assert_eq!(columns("Limits", 2), expected);
    let source = include_str!("../src/limits.rs").lines();
    let named: Vec<_> = source.filter_map(|line| line.strip_prefix("pub const ")?.split(':').next()).collect();
    let listed: Vec<_> = expected.iter().map(|row| row.split(' ').next().unwrap()).collect();
    assert_eq!(listed, named, "the list in this test is not the one in limits.rs");
}

#[test]
fn links_inside_the_page_lead_to_a_section() {
    let anchors: BTreeSet<_> = PAGE
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| line.trim_start_matches('#').trim().to_lowercase().replace([',', '\''], "").replace(' ', "-"))
        .collect();
    for link in PAGE.split("](#").skip(1) {
        let anchor = link.split(')').next().unwrap();
        assert!(anchors.contains(anchor), "no section for #{anchor}");
    }
    assert!(PAGE.contains(&format!("ALPN `{}`", str::from_utf8(ALPN).unwrap())));
}
