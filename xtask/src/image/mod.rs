//! The images of this tree: what they are made of, where they are, how they were built and tested.

pub mod bake;
pub mod base;
pub mod build_record;
pub mod builders;
pub mod changes;
pub mod component_layer;
pub mod contents;
pub mod debian;
pub mod definition;
pub mod disk;
pub mod licences;
pub mod packages;
pub mod parts;
pub mod sbom;
pub mod secrets;
pub mod summary;
pub mod tree;
pub mod variant;
pub mod verdict;
