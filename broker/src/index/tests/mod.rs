//! The index as its users see it.

use super::*;

mod damage;
mod lost;
mod marks;
mod memory;
mod model;
mod world;

const CONVERSATION: ConversationId = ConversationId(1);

fn index() -> Index {
    let index = Index::new();
    for (seq, position, author) in [(1, 3, 7), (2, 5, 8), (3, 9, 7)] {
        index.append(CONVERSATION, Seq(seq), Position(position), UserId(author));
    }
    index
}

fn check(after: u64, through: u64, limit: usize, expected: &[u64]) {
    let mut out = Vec::new();
    index().recent().positions(CONVERSATION, Position(after), Position(through), limit, &mut out).unwrap();
    assert_eq!(out, expected.iter().map(|p| Position(*p)).collect::<Vec<_>>());
}

#[test]
fn positions_are_those_after_and_through() {
    check(0, 100, 10, &[3, 5, 9]);
    check(3, 8, 10, &[5]);
    check(3, 100, 1, &[5]);
    check(9, 100, 10, &[]);
    check(0, 2, 10, &[]);
}

#[test]
fn authors_are_by_seq_and_distinct() {
    let index = index();
    assert_eq!(index.author(CONVERSATION, Seq(2)), Some(UserId(8)));
    assert_eq!(index.author(CONVERSATION, Seq(0)), None);
    assert_eq!(index.author(CONVERSATION, Seq(4)), None);
    assert_eq!(index.authors(CONVERSATION, Seq(0), Seq(3)), (vec![UserId(7), UserId(8)], true));
    assert_eq!(index.authors(CONVERSATION, Seq(2), Seq(99)), (vec![UserId(7)], true));
    assert_eq!(index.authors(ConversationId(2), Seq(0), Seq(9)), (Vec::new(), true));
    let newest = vec![(Seq(2), UserId(8)), (Seq(3), UserId(7))];
    assert_eq!(index.written(CONVERSATION, Seq(1), (Seq(3), 2)), (newest.clone(), true));
    assert_eq!(index.written(CONVERSATION, Seq(0), (Seq(3), 2)), (newest, false));
}

#[test]
fn ranks_and_places_are_above_the_floor() {
    let index = index();
    index.truncate(Position(4), true).unwrap();
    assert_eq!(index.floor(CONVERSATION), (Seq(1), Position(3)));
    assert_eq!(index.last(CONVERSATION), (Seq(3), Position(9)));
    let rank = |position| index.recent().rank(CONVERSATION, Position(position)).unwrap();
    assert_eq!([0, 3, 4, 5, 8, 9, 10].map(rank), [1, 1, 1, 2, 2, 3, 3].map(Seq));
    let mut places = Vec::new();
    index.whole().places(CONVERSATION, Seq(0), 9, &mut places).unwrap();
    let place = |seq, position, author| Place { seq: Seq(seq), position: Position(position), author: UserId(author) };
    assert_eq!(places, [place(2, 5, 8), place(3, 9, 7)]);
}

#[test]
fn what_is_there_is_skipped_and_what_is_gone_makes_a_floor() {
    let index = index();
    index.append(CONVERSATION, Seq(2), Position(5), UserId(8));
    assert_eq!(index.last(CONVERSATION), (Seq(3), Position(9)));
    index.truncate(Position(20), true).unwrap();
    assert_eq!(index.floor(CONVERSATION), (Seq(3), Position(9)));
    // As a start does: while it serves, every conversation is known.
    let known = (index.truncated_through(), &Lost::default());
    open::append(&index.table, known, (ConversationId(2), Seq(6), Position(21), UserId(1))).unwrap();
    assert_eq!(index.floor(ConversationId(2)), (Seq(5), Position(20)));
}
