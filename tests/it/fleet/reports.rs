//! A chat that is away.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::system::{Fleet, Settings, until};

/// A chat's incoming webhook: takes what comes, once it is there.
struct Chat {
    taken: Arc<Mutex<Vec<Value>>>,
}

impl Chat {
    fn at(port: u16) -> Self {
        let taken = Arc::new(Mutex::new(Vec::new()));
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("its own port");
        let into = Arc::clone(&taken);
        std::thread::spawn(move || {
            for call in listener.incoming().map_while(Result::ok) {
                if let Some(message) = take(call) {
                    into.lock().expect("whole").push(message);
                }
            }
        });
        Self { taken }
    }

    fn taken(&self) -> Vec<Value> {
        self.taken.lock().expect("whole").clone()
    }
}

/// One message; connections are not kept, so each call is one.
fn take(call: TcpStream) -> Option<Value> {
    let mut reader = BufReader::new(call);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
    reader.get_mut().write_all(answer.as_bytes()).ok()?;
    serde_json::from_slice(&body).ok()
}

#[test]
fn a_dead_chat_holds_nothing_up_and_gets_everything_in_order_when_it_is_back() {
    let reserved = crate::ports::free(3);
    let directory = tempfile::tempdir().expect("a directory");
    let secret = directory.path().join("chat");
    std::fs::write(&secret, format!("http://127.0.0.1:{reserved}/hook")).expect("written");
    let fleet = Fleet::up_with(&Settings {
        reports: "    - {name: chat, webhook: {url: chat}}\n".to_owned(),
        secrets: format!("{{chat: {{file: \"{}\"}}}}", secret.display()),
        ..Settings::default()
    });
    let said = fleet.upgrade("2.0").expect_code(0);
    assert!(
        said.err.contains("reports for") && said.err.contains("still wait"),
        "{said:?}"
    );
    assert!(said.err.contains("chat"), "{said:?}");
    assert!(!said.err.contains("/hook"), "the address is a secret: {said:?}");
    let upgrade = said.json()["metadata"]["name"].clone();
    let keys = |reports: Vec<Value>| -> Vec<Value> {
        let of_it = reports.into_iter().filter(|r| r["upgrade"] == upgrade);
        of_it.map(|r| r["dedupeKey"].clone()).collect()
    };
    let written = keys(fleet.reported());
    assert!(written.len() > 5, "{written:?}");

    let chat = Chat::at(reserved);
    // The wait after a failure doubles up to minutes; each command tries what is due by then.
    let taken = until("the chat has every report", || {
        fleet.upgrade("2.0").expect_code(0);
        Some(keys(chat.taken())).filter(|taken| taken.len() >= written.len())
    });
    assert_eq!(taken, written, "in order, each once");
    let pending = fleet.upgrade("2.0").expect_code(0);
    assert!(!pending.err.contains("still wait"), "{pending:?}");
}
