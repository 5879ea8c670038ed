//! What `cargo xtask bench` measures with: empty engines and a metered registry, the ways to build that it compares, and
//! the machine that it did so on. Nothing here touches the user's engine, images or tree.

pub mod compression;
pub mod floor;
pub mod lab;
pub mod machine;
pub mod refresh;
pub mod ways;
