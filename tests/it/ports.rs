//! Ports for servers that a test starts.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

/// The first of so many ports in a row that nobody uses. Below those that the system gives to outgoing connections: our own traffic
/// opens thousands, and one of them would have a server's port before the server, or while it restarts.
pub fn free(count: u16) -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let spread = u16::try_from(std::process::id() % 1_000).expect("small") * 16;
    loop {
        let taken = NEXT.fetch_add(count, Ordering::Relaxed);
        let port = 12_000 + spread.wrapping_add(taken) % 16_000;
        let is_free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if (port..port + count).all(is_free) {
            return port;
        }
    }
}
