//! The index's values on disk: what is believed is written to the same bytes. A value under another key is not believed.
//!
//! Input: which tree, the key, the value. Sealed, the value begins with the checksum of key and value.

use carillon::index::probe::{Tree, judge};

use crate::input::Input;
use crate::seal::put;
use crate::{Budget, Target};

pub(super) const TARGET: Target = Target {
    name: "index",
    run,
    // A block decoded is as long as encoded, but its 128 messages are compared one by one.
    budget: Budget::fixed(8 * 1024),
    input_bytes_max: 4 * 1024,
    seeds,
    words: &[],
    short_inputs: 300_000,
};

fn run(input: &[u8]) {
    let mut input = Input::new(input);
    let (tree, key_bytes) = match input.u8() % 4 {
        0 => (Tree::Mark, 0),
        1 => (Tree::Rows, 8),
        2 => (Tree::Blocks, 16),
        _ => (Tree::Marks, 20),
    };
    let mut key = input.take(key_bytes).to_vec();
    if tree == Tree::Mark {
        key = b"mark".to_vec();
    }
    let value = input.rest();
    check(tree, &key, value);
    let mut sealed = value.to_vec();
    if sealed.len() >= 4 {
        let crc = crc32c::crc32c_append(crc32c::crc32c(&aligned(tree, &key)), &sealed[4..]);
        put(&mut sealed, 0, &crc.to_le_bytes());
        check(tree, &key, &sealed);
    }
}

fn check(tree: Tree, key: &[u8], value: &[u8]) {
    let Some(written) = judge(tree, key, value) else { return };
    let mut expected = value.to_vec();
    if tree == Tree::Mark && value[4] == 2 {
        // Of an earlier version: written as of this one, and sealed anew.
        expected[4] = 3;
        let crc = crc32c::crc32c_append(crc32c::crc32c(key), &expected[4..]);
        put(&mut expected, 0, &crc.to_le_bytes());
    }
    assert_eq!(written, expected, "{tree:?}");
    if let Some(first) = key.first()
        && tree != Tree::Mark
    {
        let mut other = key.to_vec();
        other[0] = first ^ 0x80;
        assert_eq!(judge(tree, &other, value), None, "the checksum is over the key too");
    }
}

/// A block lies under the seq that its 128 begin with.
fn aligned(tree: Tree, key: &[u8]) -> Vec<u8> {
    let mut key = key.to_vec();
    if tree == Tree::Blocks && key.len() == 16 {
        let seq = u64::from_be_bytes(key[8..].try_into().unwrap());
        put(&mut key, 8, &(seq.saturating_sub(1) / 128 * 128 + 1).to_be_bytes());
    }
    key
}

fn seeds() -> Vec<Vec<u8>> {
    let conversation = 9u64.to_be_bytes();
    let mark = [&[0][..], &[0; 4], &[2], &[0; 2], &[7; 8], &[77; 8], &[5; 8]].concat();
    let row = [&[1][..], &conversation, &[0; 4], &9u64.to_le_bytes(), &70u64.to_le_bytes(), &[0; 16]].concat();
    let mut messages = Vec::new();
    for author in 0..40u8 {
        messages.extend([1 + author % 3, author, 0x81, 1, 0xff, 0x7f]);
    }
    let header = [&[120, 3][..], &1_000u64.to_le_bytes()].concat();
    let block = [&[2][..], &conversation, &129u64.to_be_bytes(), &[0; 4], &header, &messages].concat();
    let one = [&[2][..], &conversation, &1u64.to_be_bytes(), &[0; 4], &[1, 0], &[0; 8], &[1, 0]].concat();
    let read = [&[3][..], &conversation, &7u32.to_be_bytes(), &9u64.to_be_bytes(), &[0; 4], &[3; 24]].concat();
    let lost = [[7u64, 9], [12, 12]].concat().into_iter().flat_map(u64::to_le_bytes);
    let mut lossy = [&[0][..], &[0; 4], &[3], &[0; 2], &[7; 8], &[77; 8], &[5; 8]].concat();
    lossy.extend(lost);
    vec![mark, row, block, one, read, lossy]
}
