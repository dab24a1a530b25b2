//! What a frame looks like, as data: the names and sizes of its fields, so that documentation and tests are compared with
//! the code and not with a copy of it.

use crate::flat::Plain;
use crate::frame::{Body, TailPart};

/// One field of a body or of a list entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// The type it has in the source: an unsigned integer or a newtype of one.
    pub type_name: &'static str,
    /// Its size.
    pub bytes: usize,
}

impl Field {
    /// The field of this name. That `T` is [`Plain`] is what lets bytes from a peer be read without failure.
    pub const fn new<T: Plain>(name: &'static str, type_name: &'static str) -> Self {
        Self { name, type_name, bytes: T::BYTES }
    }
}

/// One part of a tail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its name; the body's field of the same name is its length.
    pub name: &'static str,
    /// `Bytes`, `Text` or `Vec<_>`.
    pub type_name: &'static str,
    /// Bytes of one unit of its length: 1, or the size of an entry.
    pub unit_bytes: usize,
}

impl Part {
    /// The part of this name.
    pub const fn new<T: TailPart>(name: &'static str, type_name: &'static str) -> Self {
        Self { name, type_name, unit_bytes: T::UNIT_BYTES }
    }
}

/// One kind of frame. Its body is `fields` and then a `u32` length for each part of `tail`, without padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Its name.
    pub name: &'static str,
    /// The kind byte.
    pub kind: u8,
    /// Size of the body, the lengths of the tail's parts included.
    pub body_bytes: usize,
    /// The body without those lengths.
    pub fields: &'static [Field],
    /// What follows the body.
    pub tail: &'static [Part],
}

impl Shape {
    /// The shape of `F`, under this name.
    pub const fn new<F: Body>(name: &'static str) -> Self {
        Self { name, kind: F::KIND, body_bytes: F::BODY_BYTES, fields: F::FIELDS, tail: F::TAIL }
    }
}
