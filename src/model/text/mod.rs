//! Resource text: from bytes to checked values, with every problem pointing at its line. Pure and independent of
//! the concrete resource types.
//!
//! The way of a text: [`Sources`] names it, [`tree::parse`] turns it into nodes that know where they stand,
//! [`documents()`] finds the resource documents in it, [`mod@merge`] lays a replica over its base, and [`decode`] checks a
//! document against the JSON Schema of its type before serde sees it. Each step adds to [`Problems`] and goes on,
//! so that one run shows everything that is wrong with a file.

pub mod document;
pub mod merge;
mod parse;
pub mod partial;
pub mod path;
pub mod problem;
mod render;
mod scalar;
pub mod schema;
pub mod source;
mod suggest;
pub mod tree;
mod words;
pub mod write;

pub use document::{API_VERSION, Document, decode, decode_at, documents, is_dns_label, report_twice_stated};
pub use merge::merge;
pub use partial::{Broken, Readable, decode_readable};
pub use path::{Path, PathPattern};
pub use problem::{Problem, Problems};
pub use render::Ink;
pub use source::{Position, SourceId, Sources, Span};
pub use suggest::{did_you_mean, what_is_known};
pub use tree::{Key, Node, Value};
pub use write::to_yaml;
