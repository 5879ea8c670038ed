//! The images of this tree: what they are made of, where they are, how they were built and tested.

pub mod builders;
pub mod debian;
pub mod definition;
pub mod disk;
pub mod packages;
pub mod parts;
pub mod secrets;
pub mod state;
pub mod summary;
pub mod tree;
