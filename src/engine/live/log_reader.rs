//! A log file on a node's host, for following.

use std::sync::Arc;

use crate::hosts::{AnyHost, FilePosition, Host as _, NodeAddress, TailFrom};
use crate::signals::log::follow::{Chunk, Found, LogReader, MAX_CHUNK_BYTES, Position};

/// Reads through the node's host, so that a log here and one over SSH are the same.
pub(super) struct HostLog {
    host: Arc<AnyHost>,
    node: NodeAddress,
    path: String,
}

impl HostLog {
    pub(super) fn new(host: Arc<AnyHost>, node: NodeAddress, path: String) -> Self {
        Self { host, node, path }
    }
}

impl LogReader for HostLog {
    async fn end(&mut self) -> Result<Option<Position>, String> {
        let piece = self
            .host
            .tail(&self.node, &self.path, TailFrom::End, 0)
            .await
            .map_err(|e| e.to_string())?;
        Ok(piece.map(|piece| Position {
            inode: piece.next().inode,
            offset: piece.next().offset,
        }))
    }

    /// The host reads a rotated file to its end before it goes over to the new one, and begins a truncated one anew.
    async fn read(&mut self, from: Position) -> Result<Chunk, String> {
        let position = FilePosition {
            inode: from.inode,
            offset: from.offset,
        };
        let piece = self
            .host
            .tail(&self.node, &self.path, TailFrom::At(position), MAX_CHUNK_BYTES)
            .await
            .map_err(|e| e.to_string())?;
        let Some(piece) = piece else {
            return Ok(Chunk {
                current: None,
                found: Found::Gone,
            });
        };
        let found = if piece.from.inode != from.inode {
            Found::Gone
        } else if piece.from.offset < from.offset {
            Found::Shorter
        } else {
            Found::Bytes(piece.bytes)
        };
        Ok(Chunk {
            current: Some(piece.from.inode),
            found,
        })
    }

    fn forget(&mut self, _: u64) {}
}
