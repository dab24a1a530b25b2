//! What crosses a Carillon connection and what lies in its journal.
#![no_std]

extern crate alloc;

pub mod ids;
