//! How many of very many seqs are at least some seq: a counted, ordered multiset.
//!
//! A B-tree. An entry of a leaf is a seq and how often it is there, in 8 bytes; an inner node knows of each child its last
//! seq and how many seqs lie below it, so that a count adds up what lies to the right of one path. Nothing is hashed, and
//! the shape is no part of any answer: trees of equal seqs count alike, however they came to be.
//!
//! Cost: each operation follows one path, O(log n) in the number of distinct seqs; 1,000,000 of them lie four levels deep.
//! Memory: neighbours that fit into one node are made one, so that nodes are half full at worst: at most 17 bytes a distinct
//! seq, 12 when they came in random order, 9 when they came in ascending order. Seqs that are equal cost 8 bytes in 65,536.
//! What is removed is given back to the allocator.
//!
//! Invariants: no node but the root is empty; two neighbours below one parent hold more than one node may; of entries with
//! the same seq only the first is less than full; an inner node's numbers are its children's.

use alloc::vec::Vec;
use carillon_protocol::ids::Seq;

/// Entries of a leaf: 1 KiB, so that an insertion moves half of that on average.
const LEAF_ENTRIES_MAX: usize = 128;

/// Children of an inner node: a count adds up 16 numbers a level on average.
const CHILDREN_MAX: usize = 32;

/// A seq in the high bits, and in the low ones how often it is there, less one.
#[derive(Clone, Copy, Debug)]
struct Entry(u64);

/// 48 bits are left for the seq: a conversation would take a million messages a second for nine years.
const COUNT_BITS: u32 = 16;

/// How often a seq can be in one entry; beyond it, it has another one.
const ENTRY_COUNT_MAX: u64 = 1 << COUNT_BITS;

impl Entry {
    fn new(seq: Seq, count: u64) -> Self {
        assert!(seq.0 >> (u64::BITS - COUNT_BITS) == 0, "seqs are below 2^48");
        assert!((1..=ENTRY_COUNT_MAX).contains(&count), "an entry holds 1 to 65,536");
        Self(seq.0 << COUNT_BITS | (count - 1))
    }

    const fn seq(self) -> Seq {
        Seq(self.0 >> COUNT_BITS)
    }

    const fn count(self) -> u64 {
        self.0 % ENTRY_COUNT_MAX + 1
    }
}

#[derive(Debug)]
enum Node {
    /// Ascending by seq.
    Leaf(Vec<Entry>),
    /// Ascending.
    Inner(Vec<Child>),
}

#[derive(Debug)]
struct Child {
    /// The greatest below.
    last: Seq,
    /// How many there are below.
    total: u64,
    node: Node,
}

/// The multiset.
#[derive(Debug)]
pub(crate) struct Ranks {
    root: Node,
    total: u64,
}

impl Ranks {
    /// Of what a list holds, which must be sorted: O(n), in nodes as full as they may be.
    pub(crate) fn from_sorted(seqs: &[Seq]) -> Self {
        assert!(seqs.is_sorted(), "the caller sorts");
        let mut entries = Vec::new();
        for equal in seqs.chunk_by(|a, b| a == b) {
            let (seq, count) = (equal[0], equal.len() as u64);
            let first = (count - 1) % ENTRY_COUNT_MAX + 1;
            entries.push(Entry::new(seq, first));
            let full = (count - first) / ENTRY_COUNT_MAX;
            entries.extend((0..full).map(|_| Entry::new(seq, ENTRY_COUNT_MAX)));
        }
        let mut nodes: Vec<_> = entries.chunks(LEAF_ENTRIES_MAX).map(|some| Node::Leaf(some.to_vec())).collect();
        while nodes.len() > 1 {
            let mut left = nodes.into_iter().map(Child::of).peekable();
            nodes = Vec::new();
            while left.peek().is_some() {
                nodes.push(Node::Inner(left.by_ref().take(CHILDREN_MAX).collect()));
            }
        }
        Self { root: nodes.pop().unwrap_or(Node::Leaf(Vec::new())), total: seqs.len() as u64 }
    }

    /// How many there are.
    pub(crate) const fn len(&self) -> u64 {
        self.total
    }

    /// Takes one in.
    pub(crate) fn insert(&mut self, seq: Seq) {
        self.total += 1;
        if let Some(right) = self.root.insert(seq) {
            let left = core::mem::replace(&mut self.root, Node::Leaf(Vec::new()));
            self.root = Node::Inner(Vec::from([Child::of(left), Child::of(right)]));
        }
    }

    /// Takes one out.
    ///
    /// # Panics
    /// If it is not there.
    pub(crate) fn remove(&mut self, seq: Seq) {
        self.root.remove(seq);
        self.total -= 1;
        while let Node::Inner(children) = &mut self.root
            && children.len() == 1
            && let Some(only) = children.pop()
        {
            self.root = only.node;
        }
    }

    /// How many are this or greater.
    pub(crate) fn count_from(&self, seq: Seq) -> u64 {
        let (mut node, mut count) = (&self.root, 0);
        loop {
            match node {
                Node::Leaf(entries) => {
                    let from = entries.partition_point(|entry| entry.seq() < seq);
                    return count + entries[from..].iter().map(|entry| entry.count()).sum::<u64>();
                }
                Node::Inner(children) => {
                    let at = child_of(children, seq);
                    let Some(child) = children.get(at) else { return count };
                    count += children[at + 1..].iter().map(|child| child.total).sum::<u64>();
                    node = &child.node;
                }
            }
        }
    }
}

impl Node {
    /// Entries or children.
    fn len(&self) -> usize {
        match self {
            Self::Leaf(entries) => entries.len(),
            Self::Inner(children) => children.len(),
        }
    }

    /// How long it may be.
    const fn len_max(&self) -> usize {
        match self {
            Self::Leaf(_) => LEAF_ENTRIES_MAX,
            Self::Inner(_) => CHILDREN_MAX,
        }
    }

    fn last(&self) -> Seq {
        let last = match self {
            Self::Leaf(entries) => entries.last().map(|entry| entry.seq()),
            Self::Inner(children) => children.last().map(|child| child.last),
        };
        last.expect("no node below another is empty")
    }

    fn total(&self) -> u64 {
        match self {
            Self::Leaf(entries) => entries.iter().map(|entry| entry.count()).sum(),
            Self::Inner(children) => children.iter().map(|child| child.total).sum(),
        }
    }

    /// Takes a seq in; returns what was too much, the right part.
    fn insert(&mut self, seq: Seq) -> Option<Self> {
        match self {
            Self::Leaf(entries) => insert_entry(entries, seq).map(Self::Leaf),
            Self::Inner(children) => {
                let at = child_of(children, seq).min(children.len() - 1);
                let child = &mut children[at];
                child.total += 1;
                child.last = child.last.max(seq);
                let right = Child::of(child.node.insert(seq)?);
                child.total -= right.total;
                child.last = child.node.last();
                make_room(children, 1, CHILDREN_MAX + 1);
                children.insert(at + 1, right);
                join(children, at + 1);
                join(children, at.wrapping_sub(1));
                (children.len() > CHILDREN_MAX).then(|| Self::Inner(children.split_off(CHILDREN_MAX / 2)))
            }
        }
    }

    /// Takes a seq out, which must be there.
    fn remove(&mut self, seq: Seq) {
        const THERE: &str = "only what was inserted is removed";
        match self {
            Self::Leaf(entries) => {
                let at = entries.partition_point(|entry| entry.seq() < seq);
                let entry = entries.get_mut(at).filter(|entry| entry.seq() == seq).expect(THERE);
                if entry.count() > 1 {
                    *entry = Entry::new(seq, entry.count() - 1);
                } else {
                    entries.remove(at);
                }
            }
            Self::Inner(children) => {
                let at = child_of(children, seq);
                let child = children.get_mut(at).expect(THERE);
                child.node.remove(seq);
                child.total -= 1;
                if child.total == 0 {
                    children.remove(at);
                } else {
                    child.last = child.node.last();
                    join(children, at);
                }
                join(children, at.wrapping_sub(1));
            }
        }
    }

    /// Takes in all of a right neighbour, for which there is room.
    fn absorb(&mut self, right: Self) {
        match (self, right) {
            (Self::Leaf(entries), Self::Leaf(mut others)) => {
                make_room(entries, others.len(), LEAF_ENTRIES_MAX);
                entries.append(&mut others);
            }
            (Self::Inner(children), Self::Inner(mut others)) => {
                make_room(children, others.len(), CHILDREN_MAX);
                children.append(&mut others);
            }
            _ => unreachable!("all leaves are equally deep"),
        }
    }
}

impl Child {
    fn of(node: Node) -> Self {
        Self { last: node.last(), total: node.total(), node }
    }
}

/// The child below which the first entry with this seq or a greater one lies.
fn child_of(children: &[Child], seq: Seq) -> usize {
    children.partition_point(|child| child.last < seq)
}

/// Takes a seq into a leaf; returns what was too much, the right part.
fn insert_entry(entries: &mut Vec<Entry>, seq: Seq) -> Option<Vec<Entry>> {
    let at = entries.partition_point(|entry| entry.seq() < seq);
    if let Some(entry) = entries.get_mut(at).filter(|entry| entry.seq() == seq && entry.count() < ENTRY_COUNT_MAX) {
        *entry = Entry::new(seq, entry.count() + 1);
        return None;
    }
    let entry = Entry::new(seq, 1);
    if entries.len() < LEAF_ENTRIES_MAX {
        make_room(entries, 1, LEAF_ENTRIES_MAX);
        entries.insert(at, entry);
        return None;
    }
    // Beyond the end: only the last leaf is searched for what is greater than all. Seqs that come in ascending order fill
    // their leaves instead of leaving halves behind.
    if at == entries.len() {
        return Some(Vec::from([entry]));
    }
    let mut upper = entries.split_off(LEAF_ENTRIES_MAX / 2);
    match at.checked_sub(entries.len()) {
        Some(at) => {
            make_room(&mut upper, 1, LEAF_ENTRIES_MAX);
            upper.insert(at, entry);
        }
        None => entries.insert(at, entry),
    }
    Some(upper)
}

/// Makes two neighbours one, if there are two and they fit.
fn join(children: &mut Vec<Child>, left: usize) {
    let Some(right) = children.get(left.wrapping_add(1)).filter(|_| left != usize::MAX) else { return };
    if children[left].node.len() + right.node.len() > right.node.len_max() {
        return;
    }
    let right = children.remove(left + 1);
    let left = &mut children[left];
    left.last = right.last;
    left.total += right.total;
    left.node.absorb(right.node);
}

/// Room for some more elements: twice what there was, if that is enough, but never for more than there may be.
fn make_room<T>(list: &mut Vec<T>, more: usize, max: usize) {
    if list.capacity() - list.len() < more {
        let wanted = (list.len() + more).max((2 * list.len()).min(max));
        list.reserve_exact(wanted - list.len());
    }
}

#[cfg(test)]
impl Ranks {
    /// What was asked of the allocator: the capacities of all nodes.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.root.heap_bytes()
    }

    /// Panics if an invariant does not hold.
    pub(crate) fn check(&self) {
        let mut entries = Vec::new();
        assert_eq!(self.root.check(&mut entries), self.total);
        let ascends = |a: &Entry, b: &Entry| a.seq() < b.seq() || (a.seq() == b.seq() && b.count() == ENTRY_COUNT_MAX);
        assert!(entries.is_sorted_by(ascends), "entries are out of order or split without need");
    }
}

#[cfg(test)]
impl Node {
    fn heap_bytes(&self) -> usize {
        match self {
            Self::Leaf(entries) => entries.capacity() * size_of::<Entry>(),
            Self::Inner(children) => {
                let below: usize = children.iter().map(|child| child.node.heap_bytes()).sum();
                children.capacity() * size_of::<Child>() + below
            }
        }
    }

    /// Checks what is below, gathers its entries, and returns how many seqs they hold.
    fn check(&self, all: &mut Vec<Entry>) -> u64 {
        assert!(self.len() <= self.len_max());
        match self {
            Self::Leaf(entries) => all.extend(entries),
            Self::Inner(children) => {
                let crowded = |a: &Child, b: &Child| a.node.len() + b.node.len() > a.node.len_max();
                assert!(children.is_sorted_by(crowded), "neighbours fit into one");
                assert!(!children.is_empty());
                for child in children {
                    assert_eq!(child.node.check(all), child.total);
                    assert_eq!(child.node.last(), child.last);
                }
            }
        }
        self.total()
    }
}
