//! Who blocks whom: the sessions that wait for a lock, and at the root of each queue the session that they all wait
//! for. The root is often nobody's node: a person's shell left open in the middle of a transaction blocks as well as a
//! program does, and an upgrade must not be blamed for it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use regex::Regex;
use thiserror::Error;

use super::{Database, DatabaseError, Row};
use crate::model::upgrade::{self, SessionOf};
use crate::model::values::NamePattern;
use crate::signals::excerpt;

/// Characters of a statement that are kept.
pub const STATEMENT_CHARS: usize = 500;

/// One look. `pg_blocking_pids` locks the server's lock table for a moment, so it is asked only for sessions that say
/// that they wait for a lock, and once for each (the CTE is used twice, so it is evaluated once).
const LOOK: &str = "\
WITH session AS MATERIALIZED (
  SELECT *, CASE WHEN wait_event_type = 'Lock' THEN pg_blocking_pids(pid) ELSE '{}'::int[] END AS blocked_by
  FROM pg_stat_activity)
SELECT pid, array_to_string(blocked_by, ','), left(query, 4000),
       extract(epoch FROM clock_timestamp() - xact_start), host(client_addr), client_port,
       application_name, state, concat_ws('/', wait_event_type, wait_event)
FROM session
WHERE cardinality(blocked_by) > 0 OR pid IN (SELECT unnest(blocked_by) FROM session)
ORDER BY xact_start NULLS LAST, pid LIMIT 2000";

/// A session that waits or is waited for, as the database tells of it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct BlockedSession {
    /// Process id of its backend; 0 for a prepared transaction, which has none.
    pub pid: i32,
    /// The backends that it waits for.
    pub blocked_by: Vec<i32>,
    /// Its current or last statement, without control characters, at most [`STATEMENT_CHARS`].
    pub statement: String,
    /// Age of its transaction, seconds.
    pub age_s: Option<f64>,
    /// Address of its client; `None` for a Unix socket.
    pub client_addr: Option<String>,
    /// Port of its client, on TCP.
    pub client_port: Option<u16>,
    /// What it calls itself.
    pub application_name: String,
    /// `active`, `idle in transaction`, …
    pub state: String,
    /// What it waits for (`Lock/transactionid`), or nothing.
    pub wait_event: String,
}

/// A root and all who wait behind it.
#[derive(Debug, Clone, PartialEq)]
pub struct Queue {
    /// The session that waits for nobody (in a deadlock: the oldest of it).
    pub holder: BlockedSession,
    /// Who waits for it, directly or through others, nearest first.
    pub waiting: Vec<BlockedSession>,
}

/// Looks at who blocks whom now; the longest queue first, nothing when nobody waits.
///
/// # Errors
/// The database did not answer, or not in the form that this was written for.
pub async fn look(database: &Database) -> Result<Vec<Queue>, BlockingError> {
    let rows = database.query(LOOK).await?;
    let sessions = rows.iter().map(session).collect::<Result<Vec<_>, _>>()?;
    Ok(queues(&sessions))
}

/// Why there is no picture of who blocks whom.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BlockingError {
    /// The database did not answer.
    #[error("cannot see who blocks whom: {0}")]
    Database(#[from] DatabaseError),
    /// The answer could not be read.
    #[error("cannot see who blocks whom: column {column} of pg_stat_activity holds `{value}`")]
    Unreadable {
        /// Which column.
        column: &'static str,
        /// What it held.
        value: String,
    },
}

fn session(row: &Row) -> Result<BlockedSession, BlockingError> {
    let text = |column: usize| row.get(column).cloned().flatten();
    let bad = |column: &'static str, value: &str| BlockingError::Unreadable {
        column,
        value: excerpt(value, 40),
    };
    let pid = text(0).unwrap_or_default();
    let blocked_by = text(1).unwrap_or_default();
    let age_s = text(3);
    Ok(BlockedSession {
        pid: pid.parse().map_err(|_| bad("pid", &pid))?,
        blocked_by: blocked_by
            .split(',')
            .filter(|pid| !pid.is_empty())
            .map(|pid| pid.parse().map_err(|_| bad("blocked_by", pid)))
            .collect::<Result<_, _>>()?,
        statement: excerpt(&text(2).unwrap_or_default(), STATEMENT_CHARS),
        age_s: age_s
            .map(|age| age.parse().map_err(|_| bad("xact_start", &age)))
            .transpose()?,
        client_addr: text(4),
        // -1 says Unix socket.
        client_port: text(5).and_then(|port| port.parse().ok()),
        application_name: excerpt(&text(6).unwrap_or_default(), 64),
        state: excerpt(&text(7).unwrap_or_default(), 64),
        wait_event: excerpt(&text(8).unwrap_or_default(), 64),
    })
}

/// Arranges sessions into queues. Everybody who waits stands in at least one, behind each root that it waits for.
/// Backends that ended between two reads of the server, and prepared transactions, are roots without a statement.
#[must_use]
pub fn queues(sessions: &[BlockedSession]) -> Vec<Queue> {
    let mut by_pid: BTreeMap<i32, BlockedSession> = BTreeMap::new();
    for session in sessions {
        by_pid.insert(session.pid, session.clone());
    }
    let mut waiters_of: BTreeMap<i32, BTreeSet<i32>> = BTreeMap::new();
    for session in by_pid.values() {
        for &blocker in session.blocked_by.iter().filter(|pid| **pid != session.pid) {
            waiters_of.entry(blocker).or_default().insert(session.pid);
        }
    }
    let waits = |pid: &i32| {
        by_pid
            .get(pid)
            .is_some_and(|s| s.blocked_by.iter().any(|blocker| blocker != pid))
    };
    let roots = waiters_of.keys().copied().filter(|pid| !waits(pid));
    let mut queues: Vec<Queue> = roots.map(|root| queue(root, &by_pid, &waiters_of)).collect();
    let mut seen: BTreeSet<i32> = queues.iter().flat_map(pids).collect();
    // What is left stands in or behind a deadlock that the server has not broken yet: no session there waits for
    // nobody, so the oldest transaction of a circle stands for it.
    while let Some(root) = oldest_in_a_circle(&by_pid, &waiters_of, &seen) {
        let behind = queue(root, &by_pid, &waiters_of);
        seen.extend(pids(&behind));
        queues.push(behind);
    }
    queues.sort_by_key(|queue| std::cmp::Reverse(queue.waiting.len()));
    queues
}

fn pids(queue: &Queue) -> Vec<i32> {
    std::iter::once(&queue.holder)
        .chain(&queue.waiting)
        .map(|session| session.pid)
        .collect()
}

fn queue(root: i32, by_pid: &BTreeMap<i32, BlockedSession>, waiters_of: &BTreeMap<i32, BTreeSet<i32>>) -> Queue {
    let session = |pid: i32| {
        by_pid.get(&pid).cloned().unwrap_or_else(|| BlockedSession {
            pid,
            statement: if pid == 0 {
                "(a prepared transaction)".to_owned()
            } else {
                "(a session that has just ended)".to_owned()
            },
            ..BlockedSession::default()
        })
    };
    Queue {
        holder: session(root),
        waiting: reachable(root, waiters_of).into_iter().map(session).collect(),
    }
}

/// Everybody behind `from`, nearest first, each once, `from` itself not.
fn reachable(from: i32, waiters_of: &BTreeMap<i32, BTreeSet<i32>>) -> Vec<i32> {
    let mut seen = BTreeSet::from([from]);
    let mut order = Vec::new();
    let mut next = VecDeque::from([from]);
    while let Some(pid) = next.pop_front() {
        for &waiter in waiters_of.get(&pid).into_iter().flatten() {
            if seen.insert(waiter) {
                order.push(waiter);
                next.push_back(waiter);
            }
        }
    }
    order
}

fn oldest_in_a_circle(
    by_pid: &BTreeMap<i32, BlockedSession>,
    waiters_of: &BTreeMap<i32, BTreeSet<i32>>,
    seen: &BTreeSet<i32>,
) -> Option<i32> {
    let in_a_circle = |pid: i32| {
        waiters_of
            .get(&pid)
            .into_iter()
            .flatten()
            .any(|&waiter| waiter == pid || reachable(waiter, waiters_of).contains(&pid))
    };
    by_pid
        .values()
        .filter(|session| !seen.contains(&session.pid) && in_a_circle(session.pid))
        .max_by(|a, b| {
            let age = |s: &BlockedSession| s.age_s.unwrap_or(0.0);
            age(a).total_cmp(&age(b)).then(b.pid.cmp(&a.pid))
        })
        .map(|session| session.pid)
}

/// How sessions are told apart to nodes, as far as the caller knows.
#[derive(Debug, Clone, Default)]
pub struct Attribution {
    /// Build of each node, by node, where it is known. A name that is not here is no node of ours, whatever a session calls
    /// itself.
    pub nodes: BTreeMap<String, Option<String>>,
    /// Node of each client socket, by `address:port` as the database sees it. Found out on the hosts, so it outweighs
    /// what a session says of itself.
    pub clients: BTreeMap<String, String>,
    /// Nodes whose sockets could not be listed, and why. While there are any, a session that is nobody else's may be
    /// theirs.
    pub unseen: BTreeMap<String, String>,
    /// How services name their sessions.
    pub application_name: Option<NamePattern>,
    /// Finds the service's method in a statement, in the group `method`.
    pub method: Option<Regex>,
}

impl Attribution {
    /// Whose a session is.
    pub fn of(&self, session: &BlockedSession) -> SessionOf {
        let by_socket = client_socket(session).and_then(|socket| self.clients.get(&socket));
        let by_name = || {
            let said = self.application_name.as_ref()?.node_in(&session.application_name)?;
            self.nodes.get_key_value(said).map(|(node, _)| node)
        };
        if let Some(node) = by_socket.or_else(by_name) {
            return SessionOf::Node {
                node: node.clone(),
                build: self.nodes.get(node).cloned().flatten(),
            };
        }
        if session.is_bare() {
            return SessionOf::Unknown {
                unknown: "the database tells nothing of it".to_owned(),
            };
        }
        match self.unseen.iter().next() {
            None => SessionOf::Outsider {},
            Some((node, why)) => SessionOf::Unknown {
                unknown: format!("the connections of {node} could not be listed: {why}"),
            },
        }
    }

    /// A queue in the words of an upgrade's status.
    pub fn blocker(&self, queue: &Queue) -> upgrade::Blocker {
        upgrade::Blocker {
            holder: self.session(&queue.holder),
            waiting: queue.waiting.iter().map(|s| self.session(s)).collect(),
        }
    }

    fn session(&self, session: &BlockedSession) -> upgrade::Session {
        let method = self.method.as_ref().and_then(|pattern| {
            let found = pattern.captures(&session.statement)?;
            Some(found.name("method").or(found.get(1))?.as_str().to_owned())
        });
        upgrade::Session {
            statement: session.statement.clone(),
            method,
            of: self.of(session),
            client: client(session),
            age_seconds: session.age_s.unwrap_or(0.0),
        }
    }
}

impl BlockedSession {
    /// It has a backend, and nothing says whose: it has just ended, or we may not see it.
    fn is_bare(&self) -> bool {
        self.pid != 0 && self.client_addr.is_none() && self.application_name.is_empty() && self.state.is_empty()
    }
}

fn client_socket(session: &BlockedSession) -> Option<String> {
    let address = session.client_addr.as_ref()?;
    Some(format!("{address}:{}", session.client_port?))
}

/// `127.0.0.1:43122 (psql, idle in transaction)`: where to look for whoever holds the lock, and in what state.
fn client(session: &BlockedSession) -> String {
    let place = client_socket(session).unwrap_or_else(|| "local socket".to_owned());
    let known: Vec<&str> = [session.application_name.as_str(), session.state.as_str()]
        .into_iter()
        .filter(|text| !text.is_empty())
        .collect();
    match (session.pid, known.is_empty()) {
        (0, true) => "prepared transaction".to_owned(),
        (_, true) => place,
        (_, false) => format!("{place} ({})", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn waiting(pid: i32, blocked_by: &[i32]) -> BlockedSession {
        BlockedSession {
            pid,
            blocked_by: blocked_by.to_vec(),
            age_s: Some(f64::from(100 - pid)),
            ..BlockedSession::default()
        }
    }

    fn shape(sessions: &[BlockedSession]) -> Vec<(i32, Vec<i32>)> {
        queues(sessions)
            .iter()
            .map(|queue| (queue.holder.pid, pids(queue)[1..].to_vec()))
            .collect()
    }

    #[test]
    fn each_queue_has_one_root_and_everybody_behind_it_nearest_first() {
        type Row = (&'static str, Vec<BlockedSession>, Vec<(i32, Vec<i32>)>);
        let rows: [Row; 8] = [
            ("nobody waits", vec![waiting(1, &[])], vec![]),
            (
                "a fan",
                (2..7).map(|pid| waiting(pid, &[1])).chain([waiting(1, &[])]).collect(),
                vec![(1, vec![2, 3, 4, 5, 6])],
            ),
            (
                "a chain",
                vec![waiting(4, &[]), waiting(3, &[4]), waiting(2, &[3]), waiting(1, &[2])],
                vec![(4, vec![3, 2, 1])],
            ),
            (
                "behind two roots",
                vec![waiting(1, &[]), waiting(2, &[]), waiting(3, &[1, 2]), waiting(4, &[1])],
                vec![(1, vec![3, 4]), (2, vec![3])],
            ),
            ("a root that has gone", vec![waiting(2, &[9])], vec![(9, vec![2])]),
            ("a prepared transaction", vec![waiting(2, &[0])], vec![(0, vec![2])]),
            (
                "a deadlock, with one behind it: the oldest of the circle, not the oldest of all",
                vec![waiting(3, &[2]), waiting(2, &[3]), waiting(1, &[3])],
                vec![(2, vec![3, 1])],
            ),
            (
                "a session that waits for itself waits for nobody",
                vec![waiting(2, &[2])],
                vec![],
            ),
        ];
        for (name, sessions, expected) in rows {
            assert_eq!(shape(&sessions), expected, "{name}");
        }
    }

    proptest! {
        /// Any graph, circles included: every wait is accounted for, and nobody stands twice in a queue.
        #[test]
        fn everybody_who_waits_stands_behind_whom_they_wait_for(
            edges in proptest::collection::vec((0..12_i32, 0..12_i32), 0..40),
            known in proptest::collection::btree_set(1..12_i32, 0..12),
        ) {
            let mut blocked_by: BTreeMap<i32, Vec<i32>> =
                known.iter().map(|pid| (*pid, Vec::new())).collect();
            for (waiter, blocker) in edges {
                if let Some(list) = blocked_by.get_mut(&waiter) {
                    list.push(blocker);
                }
            }
            let sessions: Vec<BlockedSession> =
                blocked_by.iter().map(|(pid, list)| waiting(*pid, list)).collect();
            let queues = queues(&sessions);
            let roots: BTreeSet<i32> = queues.iter().map(|queue| queue.holder.pid).collect();
            prop_assert_eq!(roots.len(), queues.len(), "a root has one queue");
            for queue in &queues {
                let members: BTreeSet<i32> = pids(queue).into_iter().collect();
                prop_assert_eq!(members.len(), queue.waiting.len() + 1, "nobody stands twice");
                prop_assert!(!queue.waiting.is_empty());
                for waiter in &queue.waiting {
                    prop_assert!(waiter.blocked_by.iter().any(|pid| members.contains(pid)));
                }
                for (waiter, blockers) in &blocked_by {
                    let behind = blockers.iter().any(|pid| pid != waiter && members.contains(pid));
                    prop_assert!(!behind || members.contains(waiter), "{} is missing", waiter);
                }
            }
            for (waiter, blockers) in &blocked_by {
                for blocker in blockers.iter().filter(|pid| *pid != waiter) {
                    prop_assert!(
                        queues.iter().any(|queue| {
                            let members = pids(queue);
                            members.contains(waiter) && members.contains(blocker)
                        }),
                        "{waiter} waits for {blocker} and no queue shows it"
                    );
                }
            }
        }
    }

    fn attribution() -> Attribution {
        Attribution {
            nodes: BTreeMap::from([("node2".to_owned(), Some("service-2".to_owned()))]),
            clients: BTreeMap::from([("127.0.0.1:5000".to_owned(), "node2".to_owned())]),
            unseen: BTreeMap::new(),
            application_name: Some("COMPONENT/NODE/VERSION".parse().expect("a pattern")),
            method: Some(Regex::new(r"/\* (?<method>\w+) \*/").expect("a pattern")),
        }
    }

    #[test]
    fn a_session_belongs_to_the_node_of_its_socket_or_of_its_name_and_else_to_nobody() {
        let session = |name: &str, port: Option<u16>| BlockedSession {
            pid: 7,
            application_name: name.to_owned(),
            client_addr: port.map(|_| "127.0.0.1".to_owned()),
            client_port: port,
            ..BlockedSession::default()
        };
        let rows = [
            ("service/node2/1.0", None, Some("node2")),
            ("service/node2/1.0 ", None, Some("node2")),
            ("service/node9/1.0", None, None),
            ("psql", None, None),
            ("psql", Some(5000), Some("node2")),
            ("psql", Some(5001), None),
            ("x/service/node2", None, None),
        ];
        let blind = Attribution {
            unseen: BTreeMap::from([("node3".to_owned(), "it is down".to_owned())]),
            ..attribution()
        };
        let unknown = SessionOf::Unknown {
            unknown: "the connections of node3 could not be listed: it is down".to_owned(),
        };
        for (name, port, node) in rows {
            let (seen, half_seen) = (attribution().of(&session(name, port)), blind.of(&session(name, port)));
            assert_eq!(seen.node(), node, "{name} {port:?}");
            // While a node cannot be asked, who is nobody's may be its.
            match node {
                Some(_) => assert_eq!(half_seen, seen, "{name} {port:?}"),
                None => assert_eq!(
                    (seen, half_seen),
                    (SessionOf::Outsider {}, unknown.clone()),
                    "{name} {port:?}"
                ),
            }
        }
        let bare = BlockedSession {
            pid: 7,
            ..BlockedSession::default()
        };
        assert!(matches!(attribution().of(&bare), SessionOf::Unknown { .. }));
    }

    #[test]
    fn a_blocker_names_statement_method_node_build_and_client() {
        let queue = Queue {
            holder: BlockedSession {
                pid: 1,
                statement: "SELECT 1 FOR UPDATE".to_owned(),
                client_addr: Some("10.0.0.9".to_owned()),
                client_port: Some(4711),
                application_name: "psql".to_owned(),
                state: "idle in transaction".to_owned(),
                age_s: Some(12.5),
                ..BlockedSession::default()
            },
            waiting: vec![BlockedSession {
                pid: 2,
                statement: "/* updateThing */ UPDATE thing".to_owned(),
                application_name: "service/node2/1.0".to_owned(),
                ..BlockedSession::default()
            }],
        };
        let blocker = attribution().blocker(&queue);
        assert_eq!(blocker.holder.client, "10.0.0.9:4711 (psql, idle in transaction)");
        assert_eq!(
            (blocker.holder.of, blocker.holder.method),
            (SessionOf::Outsider {}, None)
        );
        assert!((blocker.holder.age_seconds - 12.5).abs() < f64::EPSILON);
        let waiter = &blocker.waiting[0];
        assert_eq!(waiter.method.as_deref(), Some("updateThing"));
        assert_eq!(
            (waiter.of.node(), waiter.of.build()),
            (Some("node2"), Some("service-2"))
        );
    }
}
