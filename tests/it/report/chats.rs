//! Chats by their APIs: one thread each, told in order and once, whatever is lost on the way.

mod mattermost;
mod server;
mod slack;

use std::fmt::Write as _;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};
use stagegate::model::sinks::{MattermostSink, SlackSink};
use stagegate::model::upgrade::{Event, Severity};
use stagegate::report::{ChatSink, Courier, Mattermost, OnlySink, Sink, Slack, Subject, dispatcher};
use stagegate::store::{EventCopy, LetterQuery, SqliteStore, Store};

use super::{Hand, LONG, NOW, store, tally};
use server::{Post, Server, Trouble, When};

const TOKEN: &str = "xoxb-s3cret-token";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Slack,
    Mattermost,
}

const KINDS: [Kind; 2] = [Kind::Slack, Kind::Mattermost];

async fn server(kind: Kind) -> Server {
    match kind {
        Kind::Slack => Server::start(slack::Workspace::default()).await,
        Kind::Mattermost => Server::start(mattermost::Team::default()).await,
    }
}

fn sink(kind: Kind, name: &str, server: &Server, store: &Arc<SqliteStore>, hand: &Hand) -> Box<dyn Sink> {
    let kept: Arc<dyn Store> = store.clone();
    match kind {
        Kind::Slack => {
            let stated: SlackSink = serde_json::from_value(
                json!({"channel": slack::CHANNEL, "token": "bot", "url": format!("{}/api", server.url)}),
            )
            .expect("a sink");
            let slack = Slack::new(&stated, TOKEN, hand.clock()).expect("a client");
            Box::new(ChatSink::new(name, slack, kept, hand.clock()))
        }
        Kind::Mattermost => {
            let stated: MattermostSink =
                serde_json::from_value(json!({"channel": mattermost::CHANNEL, "token": "bot", "url": server.url}))
                    .expect("a sink");
            let mattermost = Mattermost::new(&stated, TOKEN, None, hand.clock()).expect("a client");
            Box::new(ChatSink::new(name, mattermost, kept, hand.clock()))
        }
    }
}

fn courier(kind: Kind, server: &Server, store: &Arc<SqliteStore>, hand: &Hand) -> Courier {
    Courier::new(
        store.clone(),
        vec![sink(kind, "chat", server, store, hand)],
        hand.clock(),
    )
}

/// Something happens to a promotion.
fn happen(store: &dyn Store, sinks: &[&str], promotion: Option<&str>, reason: &str, message: &str) {
    let subject = Subject {
        component: "ticket-server".into(),
        build: "ticket-server-2.0.4".into(),
        user: "shifter".into(),
    };
    let event = Event {
        at: NOW,
        reason: reason.into(),
        severity: Severity::Step,
        node: reason.starts_with("Node").then(|| message.to_owned()),
        message: message.into(),
    };
    let sinks: Vec<String> = sinks.iter().map(|s| (*s).to_owned()).collect();
    let dispatch = dispatcher(store.home(), &subject, &sinks);
    store
        .copy_event(&EventCopy {
            environment: "production",
            upgrade: None,
            promotion,
            source: &format!("{promotion:?} {reason} {message}"),
            event: &event,
            act: None,
            dispatch: &dispatch,
        })
        .expect("written");
}

const STORY: [(&str, &str); 4] = [
    ("PromotionAsked", "by shifter"),
    ("PromotionUpgrading", "it goes on the nodes"),
    ("NodeUpgraded", "node1"),
    ("PromotionSucceeded", "every gate passed"),
];

fn story(store: &dyn Store) {
    for (reason, message) in STORY {
        happen(store, &["chat"], Some("p1"), reason, message);
    }
}

/// The first message as it is now, and what hangs on it.
fn thread(server: &Server) -> String {
    let posts = server.posts();
    let mut told = String::new();
    for root in posts.iter().filter(|post| post.root.is_none()) {
        let _ = writeln!(told, "{}", root.text);
        for reply in posts.iter().filter(|post| post.root.as_ref() == Some(&root.id)) {
            let _ = writeln!(told, "  {} [{}]", reply.text, reply.key);
        }
    }
    told
}

/// What the whole story is in a chat that nothing happened to.
const WHOLE: &str = "\
ticket-server@2.0.4 promotion to production: every gate passed.
  ticket-server@2.0.4 promotion to production: by shifter. [home-1]
  ticket-server@2.0.4 promotion to production: it goes on the nodes. [home-2]
  ticket-server@2.0.4 upgrade on: node1 by shifter. [home-3]
  ticket-server@2.0.4 promotion to production: every gate passed. [home-4]
";

#[tokio::test]
async fn a_promotion_is_one_thread_whose_first_message_says_how_it_stands() {
    for kind in KINDS {
        let (hand, store, server) = (Hand::default(), store(), server(kind).await);
        story(&*store);
        happen(&*store, &["chat"], None, "FreezeBegun", "the night shift is alone");
        let courier = courier(kind, &server, &store, &hand);
        assert_eq!(courier.pass().await.expect("passed"), tally(5, 0, 0), "{kind:?}");
        let alone = "production is frozen by shifter: the night shift is alone\n";
        assert_eq!(thread(&server), format!("{WHOLE}{alone}"), "{kind:?}");
        server.has_no_complaint();
    }
}

/// The courier is dropped in the middle of each request that it makes, before and after the chat has done what it was asked; the
/// next one has nothing but the store.
#[tokio::test]
async fn wherever_a_courier_dies_there_is_one_thread_and_each_report_is_told_once() {
    for kind in KINDS {
        let mut died = 0;
        for when in [When::Before, When::After] {
            for request in 0.. {
                let (hand, store, server) = (Hand::default(), store(), server(kind).await);
                story(&*store);
                server.trouble(request, when, Trouble::Hangs);
                let first = courier(kind, &server, &store, &hand);
                let killed = tokio::select! {
                    passed = first.pass() => { passed.expect("passed"); false }
                    () = server.hung() => true,
                };
                drop(first);
                hand.forward(LONG);
                let next = courier(kind, &server, &store, &hand);
                next.pass().await.expect("passed");
                assert_eq!(thread(&server), WHOLE, "{kind:?}, request {request}, {when:?}");
                server.has_no_complaint();
                if !killed {
                    break;
                }
                died += 1;
            }
        }
        // A first message, four answers and two changes of the first, each before and after.
        assert_eq!(died, 2 * 7, "{kind:?}");
    }
}

#[tokio::test]
async fn a_lost_answer_opens_no_second_thread_and_repeats_no_message() {
    for kind in KINDS {
        for (when, trouble) in [
            (When::Before, Trouble::Cut),
            (When::After, Trouble::Cut),
            (When::Before, Trouble::Status(503, None)),
            (When::After, Trouble::Status(502, None)),
            (When::Before, Trouble::Status(429, Some(30))),
        ] {
            for request in 0..7 {
                let (hand, store, server) = (Hand::default(), store(), server(kind).await);
                story(&*store);
                server.trouble(request, when, trouble);
                let courier = courier(kind, &server, &store, &hand);
                let first = courier.pass().await.expect("passed");
                assert_eq!(first.deferred, 1, "{kind:?}, request {request}, {when:?} {trouble:?}");
                hand.forward(LONG);
                courier.pass().await.expect("passed");
                assert_eq!(
                    thread(&server),
                    WHOLE,
                    "{kind:?}, request {request}, {when:?} {trouble:?}"
                );
                server.has_no_complaint();
            }
        }
    }
}

#[tokio::test]
async fn a_chat_that_asks_for_time_gets_it() {
    for kind in KINDS {
        let (hand, store, server) = (Hand::default(), store(), server(kind).await);
        story(&*store);
        server.trouble(0, When::Before, Trouble::Status(429, Some(1_800)));
        let courier = courier(kind, &server, &store, &hand);
        assert_eq!(courier.pass().await.expect("passed"), tally(0, 1, 0));
        let due = store.next_due("chat").expect("read").expect("one waits");
        assert_eq!(
            due.duration_since(NOW),
            jiff::SignedDuration::from_secs(1_800),
            "{kind:?}"
        );
    }
}

#[tokio::test]
async fn what_is_found_is_ones_own_also_where_much_was_said_since() {
    for kind in KINDS {
        let (hand, store, server) = (Hand::default(), store(), server(kind).await);
        for (reason, message) in STORY {
            happen(&*store, &["chat", "other"], Some("p1"), reason, message);
        }
        let other = Courier::new(
            store.clone(),
            vec![sink(kind, "other", &server, &store, &hand)],
            hand.clock(),
        );
        other.pass().await.expect("passed");
        server.trouble(0, When::After, Trouble::Cut);
        let ours = courier(kind, &server, &store, &hand);
        assert_eq!(ours.pass().await.expect("passed"), tally(0, 1, 0));
        // More than a page of the channel.
        server.chatter(450);
        hand.forward(LONG);
        ours.pass().await.expect("passed");
        let both = format!("{WHOLE}{WHOLE}");
        let said: String = thread(&server)
            .lines()
            .filter(|line| !line.contains("chatter"))
            .fold(String::new(), |all, line| all + line + "\n");
        assert_eq!(said, both, "{kind:?}");
        server.has_no_complaint();
    }
}

#[tokio::test]
async fn a_thread_whose_first_message_somebody_deleted_is_opened_anew() {
    for kind in KINDS {
        let (hand, store, server) = (Hand::default(), store(), server(kind).await);
        let courier = courier(kind, &server, &store, &hand);
        happen(&*store, &["chat"], Some("p1"), STORY[0].0, STORY[0].1);
        courier.pass().await.expect("passed");
        let first = server
            .posts()
            .into_iter()
            .find(|post| post.root.is_none())
            .expect("opened");
        server.delete(&first.id);
        for (reason, message) in &STORY[1..] {
            happen(&*store, &["chat"], Some("p1"), reason, message);
        }
        assert_eq!(courier.pass().await.expect("passed"), tally(3, 0, 0), "{kind:?}");
        let anew: Vec<&str> = WHOLE.lines().filter(|line| !line.contains("[home-1]")).collect();
        assert_eq!(thread(&server).lines().collect::<Vec<_>>(), anew, "{kind:?}");
        server.has_no_complaint();
    }
}

/// As each says that it will never take this message.
fn refuses(kind: Kind) -> (u16, Value) {
    match kind {
        Kind::Slack => (200, json!({"ok": false, "error": "msg_blocked_by_dlp"})),
        Kind::Mattermost => (
            400,
            json!({"id": "plugin.message_will_be_posted.dismiss_post", "message": "no"}),
        ),
    }
}

/// What it is not told of is no answer below it, and neither hides a gap nor lets the first message lie.
#[tokio::test]
async fn a_chat_that_is_told_a_part_of_it_knows_of_gaps_and_of_how_it_stands() {
    for kind in KINDS {
        let (hand, store, server) = (Hand::default(), store(), server(kind).await);
        let only = json!({"reasons": ["PromotionAsked", "NodeUpgraded"]});
        let only = serde_json::from_value(only).expect("a filter");
        let partly = OnlySink::new(only, sink(kind, "chat", &server, &store, &hand));
        let courier = Courier::new(store.clone(), vec![Box::new(partly)], hand.clock());
        let happen = |reason: &str, message: &str| happen(&*store, &["chat"], Some("p1"), reason, message);
        // There is nothing that could be shown before it is told of.
        happen("PromotionWaiting", "for somebody");
        happen("PromotionAsked", "by shifter");
        assert_eq!(courier.pass().await.expect("passed"), tally(1, 0, 0), "{kind:?}");
        server.answers_always(Some(refuses(kind)));
        happen("NodeUpgraded", "node1");
        assert_eq!(courier.pass().await.expect("passed"), tally(0, 0, 1), "{kind:?}");
        server.answers_always(None);
        happen("PromotionUpgrading", "it goes on the nodes");
        happen("NodeUpgraded", "node2");
        assert_eq!(courier.pass().await.expect("passed"), tally(1, 0, 0), "{kind:?}");
        let expected = "\
ticket-server@2.0.4 promotion to production: it goes on the nodes.
  ticket-server@2.0.4 promotion to production: by shifter. [home-2]
  ticket-server@2.0.4 upgrade on: node2 by shifter. (1 report before this one was refused here: stagegate reports list) [home-5]
";
        assert_eq!(thread(&server), expected, "{kind:?}");
        server.has_no_complaint();
    }
}

/// What comes late is told late, and the first message still says how it stands.
#[tokio::test]
async fn a_report_that_is_sent_again_is_no_news_of_how_it_stands() {
    for kind in KINDS {
        let (hand, store, server) = (Hand::default(), store(), server(kind).await);
        let courier = courier(kind, &server, &store, &hand);
        happen(&*store, &["chat"], Some("p1"), STORY[0].0, STORY[0].1);
        courier.pass().await.expect("passed");
        let refused = refuses(kind);
        server.answers_always(Some(refused));
        happen(&*store, &["chat"], Some("p1"), STORY[1].0, STORY[1].1);
        assert_eq!(courier.pass().await.expect("passed"), tally(0, 0, 1));
        server.answers_always(None);
        happen(&*store, &["chat"], Some("p1"), STORY[3].0, STORY[3].1);
        assert_eq!(courier.pass().await.expect("passed"), tally(1, 0, 0));
        assert_eq!(store.revive(&LetterQuery::default()).expect("revived"), 1);
        assert_eq!(courier.pass().await.expect("passed"), tally(1, 0, 0));
        let told = thread(&server);
        assert!(
            told.starts_with("ticket-server@2.0.4 promotion to production: every gate passed."),
            "{told}"
        );
        assert!(told.ends_with("it goes on the nodes. [home-2]\n"), "{told}");
        server.has_no_complaint();
    }
}

/// Without the right to read nobody can know; told twice is better than never, and both have the same key.
#[tokio::test]
async fn a_bot_that_may_not_read_tells_again_what_it_does_not_know_of() {
    for kind in KINDS {
        let (hand, store, server) = (Hand::default(), store(), server(kind).await);
        let courier = courier(kind, &server, &store, &hand);
        happen(&*store, &["chat"], Some("p1"), STORY[0].0, STORY[0].1);
        server.may_not_read();
        server.trouble(1, When::After, Trouble::Cut);
        assert_eq!(courier.pass().await.expect("passed"), tally(0, 1, 0));
        hand.forward(LONG);
        assert_eq!(courier.pass().await.expect("passed"), tally(1, 0, 0), "{kind:?}");
        let keys: Vec<String> = server.posts().into_iter().map(|Post { key, .. }| key).collect();
        assert_eq!(keys, ["home-thread-p1", "home-1", "home-1"], "{kind:?}");
        // What it heard of it knows, also where the first message's change is lost.
        happen(&*store, &["chat"], Some("p1"), STORY[1].0, STORY[1].1);
        server.trouble(1, When::After, Trouble::Cut);
        assert_eq!(courier.pass().await.expect("passed"), tally(0, 1, 0));
        hand.forward(LONG);
        assert_eq!(courier.pass().await.expect("passed"), tally(1, 0, 0), "{kind:?}");
        let of_second = server.posts().into_iter().filter(|post| post.key == "home-2").count();
        assert_eq!(of_second, 1, "{kind:?}");
        server.has_no_complaint();
    }
}

#[tokio::test]
async fn a_refusal_for_good_says_what_to_do_and_holds_no_secret() {
    for (kind, answer, expected) in [
        (
            Kind::Slack,
            (200, json!({"ok": false, "error": "invalid_auth"})),
            "into the secret `bot`",
        ),
        (
            Kind::Slack,
            (200, json!({"ok": false, "error": "channel_not_found"})),
            "look at the ID",
        ),
        (
            Kind::Slack,
            (200, json!({"ok": false, "error": "not_in_channel"})),
            "invite the bot",
        ),
        (
            Kind::Slack,
            (
                200,
                json!({"ok": false, "error": "missing_scope", "needed": "chat:write"}),
            ),
            "the scope chat:write",
        ),
        (
            Kind::Slack,
            (200, json!({"ok": false, "error": format!("odd {TOKEN}")})),
            "odd [hidden]",
        ),
        (Kind::Slack, (404, json!({})), "look at the sink's `url`"),
        (
            Kind::Mattermost,
            (
                401,
                json!({"id": "api.context.session_expired.app_error", "message": format!("{TOKEN} is no session")}),
            ),
            "[hidden] is no session; put a token of the bot",
        ),
        (
            Kind::Mattermost,
            (
                403,
                json!({"id": "api.context.permissions.app_error", "message": "no permission"}),
            ),
            "let the bot into the team and the channel",
        ),
        (Kind::Mattermost, (404, json!({})), "look at the sink's `url`"),
        (
            Kind::Mattermost,
            (
                400,
                json!({"id": "model.post.is_valid.channel_id.app_error", "message": "Invalid channel id."}),
            ),
            "look at the sink's `channel`",
        ),
    ] {
        let (hand, store, server) = (Hand::default(), store(), server(kind).await);
        happen(&*store, &["chat"], Some("p1"), STORY[0].0, STORY[0].1);
        server.answers_always(Some(answer.clone()));
        let courier = courier(kind, &server, &store, &hand);
        assert_eq!(
            courier.pass().await.expect("passed"),
            tally(0, 0, 1),
            "{kind:?} {answer:?}"
        );
        let why = store.pending(None, None).expect("read")[0]
            .last_error
            .clone()
            .expect("why");
        assert!(why.contains(expected), "{kind:?} {answer:?}: {why}");
        assert!(!why.contains("s3cret"), "{why}");
    }
}

/// What is no answer of the chat's own (a proxy's page, a gateway) passes.
#[tokio::test]
async fn what_may_pass_is_waited_for() {
    for (kind, answer) in [
        (Kind::Slack, (200, json!({"ok": false, "error": "internal_error"}))),
        (Kind::Slack, (200, json!({"ok": false, "error": "ratelimited"}))),
        (Kind::Slack, (200, json!("a login page"))),
        (Kind::Slack, (302, json!(""))),
        (Kind::Mattermost, (200, json!("a login page"))),
        (Kind::Mattermost, (302, json!(""))),
        (
            Kind::Mattermost,
            (
                500,
                json!({"id": "api.post.deduplicate_create_post.pending", "message": "wait"}),
            ),
        ),
    ] {
        let (hand, store, server) = (Hand::default(), store(), server(kind).await);
        happen(&*store, &["chat"], Some("p1"), STORY[0].0, STORY[0].1);
        server.answers_always(Some(answer.clone()));
        let courier = courier(kind, &server, &store, &hand);
        assert_eq!(
            courier.pass().await.expect("passed"),
            tally(0, 1, 0),
            "{kind:?} {answer:?}"
        );
    }
}

/// For the state of a sink, wherever it is printed.
#[test]
fn the_token_is_never_shown() {
    let clock: stagegate::report::Clock = Arc::new(|| Timestamp::UNIX_EPOCH);
    let slack: SlackSink = serde_json::from_value(json!({"channel": slack::CHANNEL, "token": "bot"})).expect("a sink");
    let made = Slack::new(&slack, TOKEN, clock.clone()).expect("a client");
    assert!(!format!("{made:?}").contains("s3cret"));
    let why = Slack::new(&slack, "s3cret\u{7f}", clock).expect_err("no header has it");
    assert!(why.contains("`bot`") && !why.contains("s3cret"), "{why}");
}
