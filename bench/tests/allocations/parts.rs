//! The codec, the shard, the journal and the index, each alone.

use std::sync::Arc;

use bytes::BytesMut;
use carillon::index::Index;
use carillon::journal::Journal;
use carillon_bench::dings::Dings;
use carillon_bench::group::Group;
use carillon_bench::index::Messages;
use carillon_bench::record::{draft, journal_in};
use carillon_bench::{SHARD, as_received, chunk_of_delivers, deliver, publish};
use carillon_core::record::Record;
use carillon_protocol::decoder::Decoder;
use carillon_protocol::deliver::Deliver;
use carillon_protocol::frame::{Body, RawFrame};
use carillon_protocol::ids::{ConversationId, DingId, Seq};
use carillon_protocol::limits::FRAME_BYTES_MAX;
use carillon_protocol::publish::Publish;

use crate::budgets::{self, Budget};
use crate::check;

#[test]
fn frames() {
    let frames = (publish(1, ConversationId::new(SHARD, 7)), deliver(Seq(1)));
    let mut out = BytesMut::with_capacity(1_024);
    check(
        &budgets::FRAME_ENCODE,
        &mut out,
        |out| out.clear(),
        |out, ()| {
            frames.0.encode(out);
            frames.1.encode(out);
        },
    );
    let received = || {
        let (mut publish, mut deliver) = (BytesMut::new(), BytesMut::new());
        frames.0.encode(&mut publish);
        frames.1.encode(&mut deliver);
        (as_received(publish), as_received(deliver))
    };
    check(
        &budgets::FRAME_DECODE,
        &mut (),
        |()| received(),
        |(), (publish, deliver)| {
            let publish = Publish::decode(&RawFrame::new(publish).expect("a frame")).expect("it decodes");
            (publish, Deliver::decode(&RawFrame::new(deliver).expect("a frame")).expect("it decodes"))
        },
    );
    let chunk = chunk_of_delivers();
    let mut decoder = Decoder::new(FRAME_BYTES_MAX);
    check(
        &budgets::FRAMES_CUT,
        &mut decoder,
        |_| chunk.clone(),
        |decoder, chunk| {
            decoder.push(chunk);
            while let Some(raw) = decoder.poll_frame().expect("frames") {
                Deliver::decode(&raw).expect("a deliver");
            }
        },
    );
}

#[test]
fn a_publish_in_the_shard() {
    check(&budgets::SHARD_PUBLISH, &mut Group::of(1_000), Group::next_publish, Group::handle);
}

/// Each of 1,000 members in turn marks all there is; another message is published when all have.
#[test]
fn a_mark_in_the_shard() {
    let mut group = Group::of(1_001);
    let mut member = 0;
    let next = |group: &mut Group| {
        if member == 0 {
            group.publish();
        }
        let mark = group.mark(member, group.published());
        member = (member + 1) % group.members();
        mark
    };
    check(&budgets::SHARD_MARK, &mut group, next, Group::handle);
}

#[test]
fn a_ding_made_in_the_shard() {
    let mut state = (Dings::of(1_000), None);
    let next = |(dings, last): &mut (Dings, Option<DingId>)| {
        if let Some(last) = last.take() {
            let confirmation = dings.confirmation(last);
            dings.confirm(confirmation);
        }
        dings.creation()
    };
    check(&budgets::SHARD_DING_CREATE, &mut state, next, |(dings, last), creation| {
        *last = Some(dings.take_creation(creation));
    });
}

#[test]
fn a_ding_confirmed_in_the_shard() {
    let next = |dings: &mut Dings| {
        let creation = dings.creation();
        let ding = dings.take_creation(creation);
        dings.confirmation(ding)
    };
    check(&budgets::SHARD_DING_CONFIRM, &mut Dings::of(1_000), next, Dings::confirm);
}

#[test]
fn a_step_of_a_ding_in_the_shard() {
    let mut dings = Dings::of(1_000);
    check(&budgets::SHARD_TICK, &mut dings, |_| (), |dings, ()| assert_eq!(dings.tick_when_due(), 1));
}

/// Drafts are made, filled and committed, as the sequencer does.
#[test]
fn a_commit() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory below target/");
    let mut journal = journal_in(directory.path());
    let record = Group::of(1).publish_record();
    for (records, budget) in [(1, &budgets::JOURNAL_COMMIT_ONE), (100, &budgets::JOURNAL_COMMIT_HUNDRED)] {
        commits(&mut journal, &record, records, budget);
    }
}

fn commits(journal: &mut impl Journal, record: &Record, records: usize, budget: &Budget) {
    check(
        budget,
        journal,
        |_| (),
        |journal, ()| {
            let draft = draft(journal.head().next(), record, records);
            journal.commit(draft).expect("durable")
        },
    );
}

#[test]
fn an_append_to_the_index() {
    let mut messages = Messages::new(1_000);
    check(&budgets::INDEX_APPEND, &mut Arc::new(Index::new()), |_| (), |index, ()| messages.append(index));
}
