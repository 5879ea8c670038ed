//! The images of this tree: what they are made of.

pub mod parts;
pub mod secrets;
pub mod tree;
