//! Users of a tenant by handle: their ids, in the order of the handles, which lie with the users and nowhere else.
//!
//! A sorted list in chunks. A look-up compares with some twenty handles among a million, as a tree of them would, and a user takes 4
//! to 8 bytes here instead of the 45 of a tree that holds the handles too.

use alloc::vec::Vec;
use carillon_protocol::ids::UserId;
use core::cmp::Ordering;

use crate::segments::Segments;
use crate::user::User;

/// A full chunk is split in two, or followed by a new one: 2 KB.
const CHUNK_USERS_MAX: usize = 512;

/// See the module. Whoever asks brings the users, all of whose ids these are.
#[derive(Debug)]
pub(crate) struct Handles {
    /// None empty.
    chunks: Vec<Vec<UserId>>,
}

fn compare(users: &Segments<User>, user: UserId, handle: &str) -> Ordering {
    let known = users.get(user.0 as usize).expect("the ids are of users who are there");
    (*known.handle).cmp(handle)
}

impl Handles {
    pub(crate) const fn new() -> Self {
        Self { chunks: Vec::new() }
    }

    /// Of all these users; `None` if two have one handle. O(n log n).
    pub(crate) fn of(users: &Segments<User>) -> Option<Self> {
        let mut sorted: Vec<_> = (0u32..).zip(users.iter()).map(|(id, user)| (&*user.handle, UserId(id))).collect();
        sorted.sort_unstable();
        if sorted.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return None;
        }
        let ids = |some: &[(&str, UserId)]| some.iter().map(|(_, id)| *id).collect();
        Some(Self { chunks: sorted.chunks(CHUNK_USERS_MAX).map(ids).collect() })
    }

    /// The user with this handle.
    pub(crate) fn find(&self, users: &Segments<User>, handle: &str) -> Option<UserId> {
        let (chunk, at) = self.place(users, handle).ok()?;
        Some(self.chunks[chunk][at])
    }

    /// Chunk and place of a handle, or where it would be.
    fn place(&self, users: &Segments<User>, handle: &str) -> Result<(usize, usize), (usize, usize)> {
        let begins_by = |chunk: &Vec<UserId>| {
            chunk.first().is_some_and(|first| compare(users, *first, handle) != Ordering::Greater)
        };
        let chunk = self.chunks.partition_point(begins_by).saturating_sub(1);
        let Some(found) = self.chunks.get(chunk) else { return Err((0, 0)) };
        let place = found.binary_search_by(|user| compare(users, *user, handle));
        place.map(|at| (chunk, at)).map_err(|at| (chunk, at))
    }

    /// Takes in a user who is not here and whose handle nobody has; false if somebody has it.
    pub(crate) fn insert(&mut self, users: &Segments<User>, handle: &str, user: UserId) -> bool {
        let Err((at_chunk, at)) = self.place(users, handle) else { return false };
        let Some(chunk) = self.chunks.get_mut(at_chunk) else {
            self.chunks.push(Vec::from([user]));
            return true;
        };
        if chunk.len() < CHUNK_USERS_MAX {
            chunk.insert(at, user);
        } else if at == chunk.len() {
            // Handles that come in ascending order fill their chunks instead of leaving halves behind.
            self.chunks.insert(at_chunk + 1, Vec::from([user]));
        } else {
            chunk.insert(at, user);
            let upper = chunk.split_off(CHUNK_USERS_MAX / 2);
            self.chunks.insert(at_chunk + 1, upper);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;
    use alloc::string::String;
    use carillon_protocol::ids::ConversationId;

    proptest::proptest! {
        #[test]
        fn handles_are_a_map(handles in proptest::collection::vec("[a-c]{0,8}", 1..3_000)) {
            let (mut users, mut by_handle, mut map) = (Segments::new(), Handles::new(), BTreeMap::new());
            for handle in handles {
                let id = UserId(u32::try_from(users.len()).unwrap());
                assert_eq!(by_handle.find(&users, &handle), map.get(&handle).copied());
                let is_new = by_handle.insert(&users, &handle, id);
                assert_eq!(is_new, !map.contains_key(&handle));
                if is_new {
                    users.push(User::new(&handle, ConversationId(1)));
                    map.insert(handle, id);
                }
            }
            let again = Handles::of(&users).unwrap();
            for handle in map.keys().map(String::as_str).chain(["", "aa!", "zzz"]) {
                assert_eq!(by_handle.find(&users, handle), map.get(handle).copied());
                assert_eq!(again.find(&users, handle), map.get(handle).copied());
            }
            users.push(User::new(map.keys().next().unwrap(), ConversationId(1)));
            assert!(Handles::of(&users).is_none(), "two have one handle");
        }
    }
}
