//! The images of this tree: what they are made of.

pub mod tree;
