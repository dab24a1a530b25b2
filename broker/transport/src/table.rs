//! The connections of an endpoint, under quinn-proto's indices.
//!
//! They lie on shelves of many, so that none is rounded up to a size that the allocator has: a seventh of each was lost when every
//! connection had an allocation of its own. A shelf that is empty is given back.

use crate::connection::Connection;
use crate::link::LinkKey;

/// Connections of a shelf: as many as 256 KiB hold, a size that allocators have.
const SHELF: usize = 256 * 1024 / size_of::<Option<Connection>>();

/// See the module.
#[derive(Default)]
pub(crate) struct Table {
    /// Raised when a connection leaves, so that old keys find nothing.
    generations: Vec<u32>,
    shelves: Vec<Shelf>,
}

#[derive(Default)]
struct Shelf {
    /// None, or [`SHELF`] of them.
    places: Vec<Option<Connection>>,
    taken: usize,
}

impl Table {
    /// The key for the next connection at this index.
    pub(crate) fn key(&self, index: u32) -> LinkKey {
        LinkKey { index, generation: self.generations.get(index as usize).copied().unwrap_or(0) }
    }

    pub(crate) fn at(&self, index: u32) -> Option<&Connection> {
        let (shelf, place) = place_of(index);
        self.shelves.get(shelf)?.places.get(place)?.as_ref()
    }

    pub(crate) fn at_mut(&mut self, index: u32) -> Option<&mut Connection> {
        let (shelf, place) = place_of(index);
        self.shelves.get_mut(shelf)?.places.get_mut(place)?.as_mut()
    }

    /// Takes in a connection.
    ///
    /// # Panics
    /// If there is one at its index.
    pub(crate) fn insert(&mut self, connection: Connection) -> &mut Connection {
        let index = connection.key.index as usize;
        let (shelf, place) = place_of(connection.key.index);
        if self.generations.len() <= index {
            self.generations.resize(index + 1, 0);
        }
        if self.shelves.len() <= shelf {
            self.shelves.resize_with(shelf + 1, Shelf::default);
        }
        let shelf = &mut self.shelves[shelf];
        if shelf.places.is_empty() {
            shelf.places.reserve_exact(SHELF);
            shelf.places.resize_with(SHELF, || None);
        }
        let place = &mut shelf.places[place];
        assert!(place.is_none(), "a place is freed together with quinn-proto's");
        shelf.taken += 1;
        place.insert(connection)
    }

    /// Lets a connection go, if there is one.
    pub(crate) fn remove(&mut self, index: u32) {
        let (shelf, place) = place_of(index);
        let Some(shelf) = self.shelves.get_mut(shelf) else { return };
        let Some(place) = shelf.places.get_mut(place).filter(|place| place.is_some()) else { return };
        *place = None;
        let generation = &mut self.generations[index as usize];
        *generation = generation.wrapping_add(1);
        shelf.taken -= 1;
        if shelf.taken == 0 {
            shelf.places = Vec::new();
        }
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Connection> {
        self.shelves.iter_mut().flat_map(|shelf| &mut shelf.places).flatten()
    }

    #[cfg(test)]
    pub(crate) fn shelves_held(&self) -> usize {
        self.shelves.iter().filter(|shelf| !shelf.places.is_empty()).count()
    }
}

fn place_of(index: u32) -> (usize, usize) {
    (index as usize / SHELF, index as usize % SHELF)
}
