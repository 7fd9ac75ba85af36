//! The command line: one file a command. Data goes to stdout, everything else to stderr.

mod adopt;
mod approve;
mod attest;
mod audit;
mod backup;
mod build;
mod called;
mod check;
mod control;
mod controller;
mod diff;
mod down;
mod events;
mod freeze;
mod gate;
mod get;
mod github;
mod ground;
mod hooks;
mod init;
mod install;
mod lint;
mod pipeline;
mod plan;
mod plugin;
mod post_receive;
mod pre_receive;
mod printer;
mod promote;
mod pulse;
mod quickstart;
mod reference;
mod refresh;
mod rehearse;
mod replica;
mod reports;
mod serve;
mod standing;
mod status;
mod up;
mod upgrade;
mod verdict;
mod view;
mod why;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum};

pub use self::reference::{plugin_reference, reference};

use self::ground::GroundError;
use self::plugin::PluginError;
use self::printer::Printer;
use crate::cluster::replica::ReplicaError;
use crate::commits::base::BaseError;
use crate::commits::policy::CommitPolicySpec;
use crate::commits::prek::PrekError;
use crate::commits::proof::{AttestError, KeyError};
use crate::commits::repository::RepositoryError;
use crate::engine::builds::BuildError;
use crate::engine::disturb::DisturbError;
use crate::engine::fleet::FleetError;
use crate::engine::promotion::PromotionError;
use crate::engine::promotion::signatures::SignatureError;
use crate::engine::replica::KeepError;
use crate::engine::session::SessionError;
use crate::engine::up::UpError;
use crate::model::upgrade::Phase;
use crate::refresh::RefreshError;
use crate::server::ServeError;
use crate::store::{BuildStatus, StoreError};
use crate::workspace::WorkspaceError;

/// How a command ended, as its exit code says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: done.
    Done,
    /// 1: an error of ours.
    Errored,
    /// 2: usage, or an invalid file.
    Usage,
    /// 3: a gate failed and the nodes are back, a rehearsal came out otherwise than expected, or a replica differs so.
    GateFailed,
    /// 4: the nodes are not back, or going back did not cure.
    NotCured,
    /// 5: held, or ended by an operator.
    Held,
    /// 6: the rules refuse.
    Refused,
    /// 124: not done in time; paused.
    TimedOut,
    /// 130: asked to end.
    Interrupted,
}

impl Exit {
    fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Errored => 1,
            Exit::Usage => 2,
            Exit::GateFailed => 3,
            Exit::NotCured => 4,
            Exit::Held => 5,
            Exit::Refused => 6,
            Exit::TimedOut => 124,
            Exit::Interrupted => 130,
        }
    }

    /// One word for programs.
    fn word(self) -> &'static str {
        match self {
            Exit::Done => "Done",
            Exit::Errored => "Errored",
            Exit::Usage => "Invalid",
            Exit::GateFailed => "GateFailed",
            Exit::NotCured => "NotCured",
            Exit::Held => "Held",
            Exit::Refused => "Refused",
            Exit::TimedOut => "TimedOut",
            Exit::Interrupted => "Interrupted",
        }
    }

    /// What an upgrade's phase means for who waits for it.
    fn of(phase: Phase) -> Self {
        match phase {
            Phase::Succeeded => Exit::Done,
            Phase::Errored => Exit::Errored,
            Phase::RolledBack => Exit::GateFailed,
            Phase::RollbackIneffective | Phase::Failed => Exit::NotCured,
            Phase::Paused
            | Phase::Inconclusive
            | Phase::Aborted
            | Phase::Pending
            | Phase::Preflight
            | Phase::Baseline
            | Phase::Rolling
            | Phase::Soak
            | Phase::RollingBack => Exit::Held,
        }
    }
}

/// How data is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For people with wide screens.
    Wide,
    /// The resource.
    Json,
    /// The resource.
    Yaml,
    /// Its kind and name alone.
    Name,
    /// Findings as code scanners hand them on; `check` alone has any.
    Sarif,
}

/// Below the list of commands. Lines are short enough for 80 columns.
const AFTER_HELP: &str = "\
To begin: `stagegate init DIR` makes a workspace with a system that works, and says
how to go on. ENV is the name of a file in the workspace's environments/.

Environment variables:
  STAGEGATE_WORKSPACE   directory with environments/, pipelines/ and templates/
                        (default: the working directory)
  STAGEGATE_STATE       directory where everything is kept that must survive
                        (default: /var/lib/stagegate for root,
                        ~/.local/state/stagegate for others)
  STAGEGATE_PORT_SHIFT  added to every local port, so that two replicas live side
                        by side
  STAGEGATE_USER        who asks, in reports (default: the login name)
  STAGEGATE_LISTEN      where `stagegate serve` answers /healthz
  STAGEGATE_KEY         the SSH key that signs what you say of promotions
  STAGEGATE_LOG         what is logged on stderr, as `stagegate=debug`
  NO_COLOR              with any value: messages without colours

Exit codes:
  0    done
  1    an error of ours (Errored)
  2    usage, or a file that is not valid
  3    a gate failed and the nodes are back (RolledBack); a rehearsal came out
       otherwise than expected; a replica differs where nobody expects it
  4    not cured (RollbackIneffective, Failed)
  5    held or ended by an operator (Paused, Inconclusive, Aborted)
  6    refused: another driver, another upgrade, a quarantine, findings in commits,
       objects or a namespace of somebody else's; nothing there to pause, resume,
       abort, retry or undo
  124  not done within --timeout; the upgrade is paused
  130  interrupted; the same command goes on with it

Data goes to stdout, everything else to stderr. With -o json the last thing on
stdout is one resource (apiVersion, kind, metadata, spec, status), whatever the
exit code; a command that has none prints a Status with what came of it.";

#[derive(Debug, Parser)]
#[command(
    name = "stagegate",
    version,
    about = "Keeps a staging replica of a system of server nodes, upgrades it batch by batch behind health gates, \
             rolls a bad build back and proves the cure.",
    after_help = AFTER_HELP,
    max_term_width = 100
)]
struct Arguments {
    /// How data is written: table, wide, json, yaml or name; of `check` also sarif
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        default_value = "table",
        value_name = "FORMAT",
        hide_possible_values = true
    )]
    output: Output,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The main job, from nothing: bring the shipped replica up, catch a bad build, pass a good one
    ///
    /// Looks for missing Debian packages first, and changes nothing when it may not install them. The replica runs on
    /// afterwards; `stagegate down ENV --purge` removes it.
    Quickstart(quickstart::Arguments),
    /// Make a workspace with commented starters
    ///
    /// Makes environments/, pipelines/, templates/, hooks/ and builds/ with a small web server on two local nodes. What is
    /// there is never overwritten.
    Init(init::Arguments),
    /// Check resource files and templates
    ///
    /// Shows everything that is wrong at once, each with file, line and what to do, and exits 2; touches nothing.
    Lint(lint::Arguments),
    /// Bring an environment up: every node set up, running and answering
    ///
    /// What is there already is not done again, so the same command brings back what was stopped or cut off.
    Up(up::Arguments),
    /// Stop an environment's services; with --purge delete everything of it
    Down(down::Arguments),
    /// What runs where, and what goes on
    Status(status::Arguments),
    /// How a replica differs from what it is a replica of
    ///
    /// Compares the builds that run by the record, what the files say, the Kubernetes objects that come of it, and the schemas
    /// of databases. What the replica's own file states is expected, and so is what `expectedDifferences` gives a reason for;
    /// exits 3 when anything else differs, else 0. Changes nothing.
    Diff(diff::Arguments),
    /// What an upgrade would change, on which nodes, in which batches, and how long it takes
    Plan(plan::Arguments),
    /// Put a build onto an environment, batch by batch behind its gates
    ///
    /// Drives the upgrade from this process; where `stagegate serve` runs on the same state it hands over and watches. The
    /// same command again goes on with an upgrade that was interrupted, killed or held. A build that fails a gate is rolled
    /// back and quarantined for this environment. The first SIGINT ends after the running steps (of a watcher: ends the
    /// watching only).
    #[command(after_help = "Example:\n  stagegate upgrade demo --build web=2.0 --timeout 30m")]
    Upgrade(upgrade::Arguments),
    /// Put a build through the stage of its pipeline that leads into an environment
    ///
    /// Looks at what the stage demands: that the stages before have verified these very bytes, rehearsals, soak, windows, freezes, approvals.
    /// What keeps it is said, and waited for where that may help; then the build goes onto the environment as by `upgrade`. The same command
    /// again goes on with a promotion that is open. What ran there last comes back without waiting for anybody.
    #[command(after_help = "Example:\n  stagegate promote web=2.0 --to production --reason 'OPS-12'")]
    Promote(promote::Arguments),
    /// Approve of a promotion, signed with your SSH key
    ///
    /// Bound to the build's digest, to what would be done and to what was known: when one of these changes the approval no longer counts.
    Approve(approve::ApproveArguments),
    /// Reject a promotion, signed with your SSH key
    Reject(approve::RejectArguments),
    /// Take your approval of a promotion back
    Withdraw(approve::WithdrawArguments),
    /// End a promotion that has not gone on yet
    Cancel(approve::CancelArguments),
    /// Stop the line: nothing enters these environments until it is lifted, or for a while
    ///
    /// What ran there last may come back all the same, and so may what is on its way back.
    #[command(
        after_help = "Example:\n  stagegate freeze production --reason 'calls queue on one row lock' --in-flight pause"
    )]
    Freeze(freeze::Arguments),
    /// Lift a freeze that a command has stated
    Unfreeze(freeze::LiftArguments),
    /// The way of builds to production, as it stands
    Pipeline(pipeline::Arguments),
    /// Hold the running upgrade once its steps have ended
    Pause(control::PauseArguments),
    /// Go on with a held upgrade
    Resume(control::StayingArguments),
    /// Take the running upgrade back to the builds before it
    Abort(control::Arguments),
    /// Begin again what did not come through
    ///
    /// A held upgrade goes on with its attempts anew; one that has ended is opened anew with the same build, which is
    /// refused while that build is quarantined.
    Retry(control::StayingArguments),
    /// Go back to the build before the last upgrade that succeeded
    ///
    /// An upgrade like any other, behind the same gates. Undone twice, the newer build is back.
    Undo(control::UndoArguments),
    /// The first thing that keeps an upgrade from going on, and what clears it
    Why(why::Arguments),
    /// What happened
    Events(events::Arguments),
    /// The last upgrades
    History(events::HistoryArguments),
    /// Run disturbances and upgrades together, and compare what comes out with what must
    ///
    /// Exits 0 when every expectation held, else 3. Drives from this process, also where `stagegate serve` runs.
    Rehearse(rehearse::Arguments),
    /// Data for a replica from the environment that it is a replica of, masked on the way
    ///
    /// Replaces the rows of the tables that the replica's component states under `refresh`, in one transaction. What tells of people
    /// or lets somebody in is masked in the database that it comes from; it is compared before anything is kept, and one value that came
    /// through takes all of it back.
    #[command(
        after_help = "Examples:\n  stagegate refresh shop-staging --dry-run\n  stagegate refresh shop-staging -o json"
    )]
    Refresh(refresh::Arguments),
    /// Builds that are known here
    Build(build::Arguments),
    /// Recorded verdicts
    Gate(gate::Arguments),
    /// What was decided here, by whom and why: a record that nobody can change unseen
    Audit(audit::Arguments),
    /// Reports that their sink refused for good
    Reports(reports::Arguments),
    /// Resources as they are stored
    Get(get::Arguments),
    /// Drive what has no driver, carry every report, and answer /healthz, until SIGTERM
    ///
    /// One process for all environments of the state directory. It takes up upgrades that a dead driver has left and those
    /// that `stagegate upgrade` hands over, leaves alone what an operator has paused, and delivers reports for ever. It reads
    /// the workspace anew for each upgrade. SIGTERM or SIGINT ends it once the running steps have ended.
    Serve(serve::Arguments),
    /// Drive the upgrades that are objects of Kubernetes, until SIGTERM
    ///
    /// Environments, Builds and Upgrades are objects of one namespace (`stagegate crds` defines them), and their status is the
    /// state. Of several replicas one leads, by a Lease; the others take over when it ends or is lost. KUBECONFIG says which
    /// cluster it is, in a pod its service account. SIGTERM ends it once the running steps have ended.
    #[command(
        after_help = "Example:\n  stagegate controller --namespace shop --volume /var/lib/stagegate --templates templates"
    )]
    Controller(controller::Arguments),
    /// Copy the state while it is in use
    ///
    /// A state that is put back from a copy remembers less than its nodes have seen: they refuse it until `stagegate adopt`.
    Backup(backup::Arguments),
    /// Take an environment's nodes over from another home, or from a later state of this one
    ///
    /// A node serves one home, and of it the newest driver. After the state was lost, or put back from a backup, this makes
    /// the nodes serve the one that is here, and refuse whatever still drives from the other. Prints whom each has served.
    Adopt(adopt::Arguments),
    /// Make our check of commits required at GitHub
    #[command(name = "github")]
    GitHub(github::Arguments),
    /// Check what is staged, or commits, or every file, by the commit policy
    ///
    /// The policy is hooks/policy.yaml of the protected branch as the remote last had it. One line for each finding:
    /// `path:line:col rule message; fix`. Exits 6 when something is refused, 0 otherwise. What is only suggested is shown and
    /// refuses nothing. Nothing is set aside, and nothing is downloaded. `-o sarif` is for code scanners.
    #[command(after_help = "Examples:\n  stagegate check --fix\n  stagegate check --range origin/main..HEAD -o json")]
    Check(check::Arguments),
    /// git's hooks of this clone
    Hooks(hooks::Arguments),
    /// Signed proof that commits were checked: keys, what is proven, notes
    Attest(attest::Arguments),
    /// Check a push before it is accepted: a server's pre-receive hook
    ///
    /// Reads `OLD NEW REF` lines from standard input, as git writes them, and looks at every new commit of every ref, in the
    /// push's quarantine. The policy is the default branch's as it is before the push. Writes nothing and starts nothing.
    /// What is over the policy's bounds is refused as a whole.
    #[command(
        after_help = "Example, as hooks/pre-receive of a bare repository:\n  #!/bin/sh\n  exec stagegate pre-receive"
    )]
    PreReceive(pre_receive::Arguments),
    /// Ask for a full run of what was pushed: a server's post-receive hook
    ///
    /// Reads `OLD NEW REF` lines from standard input, as git writes them, and queues the new tip of every branch and tag for
    /// `stagegate serve`, to be judged by the default branch as it was before the push. Never fails a push: what it cannot do
    /// is said on standard error.
    #[command(
        after_help = "Example, as hooks/post-receive of a bare repository:\n  #!/bin/sh\n  exec stagegate post-receive"
    )]
    PostReceive(post_receive::Arguments),
    /// Full runs of commits' hooks in a sandbox, and what came of them
    ///
    /// `stagegate serve` runs what `post-receive` has queued: every hook of the default branch's configuration over all files
    /// of the commit, each in a sandbox without network. Where no sandbox can be had, nothing is proven.
    Verdict(verdict::Arguments),
    /// The JSON schema of every resource
    Schema,
    /// The custom resource definitions of our kinds, for an API server of Kubernetes
    #[command(after_help = "Example:\n  stagegate crds | kubectl apply --server-side -f -")]
    Crds,
    /// What has to be applied so that the controller runs in a cluster
    #[command(after_help = "Example:\n  stagegate install --print --namespace shop | kubectl apply --server-side -f -")]
    Install(install::Arguments),
    /// Completions for a shell
    #[command(after_help = "Example:\n  stagegate completions bash >/etc/bash_completion.d/stagegate")]
    Completions {
        /// Which
        shell: clap_complete::Shell,
    },
}

/// Whether these words, the program's name first or kubectl's, are a command line that the program understands, or its plugin.
///
/// # Errors
/// What is wrong with them, as the program would say it.
pub fn understood<'a>(words: impl Iterator<Item = &'a str>) -> Result<(), String> {
    let mut words = words.peekable();
    if words.next_if_eq(&"kubectl").is_some() {
        return plugin::understood(words);
    }
    Arguments::try_parse_from(words).map(|_| ()).map_err(|e| e.to_string())
}

/// Parses the arguments, runs the command, and says how it ended.
#[must_use]
pub fn main() -> ExitCode {
    if plugin::is_called() {
        return plugin::main();
    }
    let ended = match Arguments::try_parse() {
        Ok(Arguments { output, command }) if output == Output::Sarif && !matches!(command, Command::Check(_)) => {
            let error = clap::error::ErrorKind::InvalidValue;
            not_understood(&Arguments::command().error(error, "only `check` writes sarif"))
        }
        Ok(Arguments { output, command }) => {
            log_to_stderr();
            let printer = Printer::new(output);
            ended(run(command, &printer), &printer)
        }
        Err(error) => not_understood(&error),
    };
    ExitCode::from(ended.code())
}

/// Says how a command ended.
fn ended(result: anyhow::Result<Exit>, printer: &Printer) -> Exit {
    match result {
        Ok(exit) => {
            printer.end(exit);
            exit
        }
        Err(error) => {
            let error = ground::in_our_words(error);
            let exit = exit_of(&error);
            printer.error(&error, exit);
            exit
        }
    }
}

/// Help is asked for as an error too, in clap's eyes.
fn not_understood(error: &clap::Error) -> Exit {
    let printer = Printer::new(output_asked_for(std::env::args()));
    if error.use_stderr() && !printer.is_for_people() {
        printer.error(
            &anyhow::Error::msg(error.to_string().trim_end().to_owned()),
            Exit::Usage,
        );
    } else {
        // Nobody is there to be told that nobody reads.
        let _ = error.print();
    }
    if error.use_stderr() { Exit::Usage } else { Exit::Done }
}

/// What `-o` says on a command line that is not understood as a whole.
fn output_asked_for(words: impl Iterator<Item = String>) -> Output {
    let words: Vec<String> = words.collect();
    let stated = words.iter().enumerate().find_map(|(i, word)| match word.as_str() {
        "-o" | "--output" => words.get(i + 1).map(String::as_str),
        word => word.strip_prefix("--output=").or_else(|| word.strip_prefix("-o")),
    });
    stated
        .and_then(|format| Output::from_str(format.trim_start_matches('='), true).ok())
        .unwrap_or(Output::Table)
}

fn run(command: Command, printer: &Printer) -> anyhow::Result<Exit> {
    match command {
        Command::Quickstart(arguments) => wait_for(quickstart::run(arguments, printer)),
        Command::Up(arguments) => wait_for(up::run(arguments, printer)),
        Command::Down(arguments) => wait_for(down::run(arguments, printer)),
        Command::Status(arguments) => status::run(&arguments, printer),
        Command::Upgrade(arguments) => wait_for(upgrade::run(arguments, printer)),
        Command::Diff(arguments) => wait_for(diff::run(arguments, printer)),
        Command::Plan(arguments) => wait_for(plan::run(arguments, printer)),
        Command::Promote(arguments) => wait_for(promote::run(arguments, printer)),
        Command::Approve(arguments) => wait_for(approve::approve(arguments, printer)),
        Command::Reject(arguments) => wait_for(approve::reject(arguments, printer)),
        Command::Withdraw(arguments) => wait_for(approve::withdraw(arguments, printer)),
        Command::Cancel(arguments) => wait_for(approve::cancel(arguments, printer)),
        Command::Freeze(arguments) => wait_for(freeze::run(arguments, printer)),
        Command::Unfreeze(arguments) => wait_for(freeze::lift(arguments, printer)),
        Command::Pipeline(arguments) => pipeline::run(&arguments, printer),
        Command::Pause(arguments) => wait_for(control::pause(arguments, printer)),
        Command::Resume(arguments) => wait_for(control::resume(arguments, printer)),
        Command::Abort(arguments) => wait_for(control::abort(arguments, printer)),
        Command::Retry(arguments) => wait_for(control::retry(arguments, printer)),
        Command::Undo(arguments) => wait_for(control::undo(arguments, printer)),
        Command::Serve(arguments) => wait_for(serve::run(arguments, printer)),
        Command::Controller(arguments) => wait_for(controller::run(arguments, printer)),
        Command::Events(arguments) => events::run(&arguments, printer),
        Command::History(arguments) => events::history(&arguments, printer),
        Command::Why(arguments) => why::run(&arguments, printer),
        Command::Audit(arguments) => audit::run(&arguments, printer),
        Command::Reports(arguments) => wait_for(reports::run(arguments, printer)),
        Command::Get(arguments) => get::run(&arguments, printer),
        Command::Lint(arguments) => lint::run(&arguments, printer),
        Command::Gate(arguments) => gate::run(&arguments, printer),
        Command::Build(arguments) => wait_for(build::run(arguments, printer)),
        Command::Backup(arguments) => backup::run(&arguments, printer),
        Command::Adopt(arguments) => wait_for(adopt::run(arguments, printer)),
        Command::GitHub(arguments) => wait_for(github::run(arguments, printer)),
        Command::Check(arguments) => check::run(&arguments, printer),
        Command::Hooks(arguments) => hooks::run(&arguments, printer),
        Command::Attest(arguments) => attest::run(&arguments, printer),
        Command::PreReceive(arguments) => pre_receive::run(&arguments, printer),
        Command::PostReceive(arguments) => Ok(post_receive::run(&arguments, printer)),
        Command::Verdict(arguments) => wait_for(verdict::run(arguments, printer)),
        Command::Init(arguments) => wait_for(init::run(arguments, printer)),
        Command::Schema => {
            printer.line(&serde_json::to_string_pretty(&schema())?)?;
            Ok(Exit::Done)
        }
        Command::Crds => {
            printer.line(crds()?.trim_end())?;
            Ok(Exit::Done)
        }
        Command::Install(arguments) => install::run(&arguments, printer),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "stagegate", &mut script);
            printer.line(String::from_utf8(script)?.trim_end())?;
            Ok(Exit::Done)
        }
        Command::Refresh(arguments) => wait_for(refresh::run(arguments, printer)),
        Command::Rehearse(arguments) => wait_for(rehearse::run(arguments, printer)),
    }
}

/// The JSON schema of every resource, as `stagegate schema` prints it.
#[must_use]
pub fn schema() -> serde_json::Value {
    crate::model::schema::document::<BuildStatus, CommitPolicySpec>()
}

/// The definitions of our kinds for Kubernetes as documents of YAML, as `stagegate crds` prints them.
///
/// # Errors
/// They cannot be written as YAML.
pub fn crds() -> anyhow::Result<String> {
    documents(crate::cluster::crd::all(&schema()))
}

/// What runs the controller in a cluster, as `stagegate install --print` prints it.
///
/// # Errors
/// It cannot be written as YAML.
pub fn manifests(namespace: &str, image: &str) -> anyhow::Result<String> {
    let definitions = crate::cluster::crd::all(&schema());
    documents(crate::cluster::install::manifests(namespace, image, definitions))
}

fn documents(objects: impl IntoIterator<Item = serde_json::Value>) -> anyhow::Result<String> {
    let mut text = String::new();
    for object in objects {
        text.push_str("---\n");
        text.push_str(&crate::model::text::to_yaml(&object)?);
    }
    Ok(text)
}

/// Commands that only read need no runtime, and start faster without.
fn wait_for(command: impl Future<Output = anyhow::Result<Exit>>) -> anyhow::Result<Exit> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(command)
}

/// What somebody writes as a reason, for those who read it later.
fn reason(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("it is shown to others, and says nothing".to_owned()),
        said => Ok(said.to_owned()),
    }
}

fn exit_of(error: &anyhow::Error) -> Exit {
    let of_plugin = error.downcast_ref::<PluginError>().map(PluginError::exit);
    let exit = of_plugin.or_else(|| error.chain().find_map(exit_of_cause));
    exit.unwrap_or(Exit::Errored)
}

/// An error that is another one's only content has no cause of its own, so both are looked for.
fn exit_of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<Exit> {
    if cause.is::<WorkspaceError>() || cause.is::<GroundError>() || cause.is::<DisturbError>() {
        return Some(Exit::Usage);
    }
    if let Some(
        RepositoryError::NoRepository
        | RepositoryError::NoRepositoryAt(_)
        | RepositoryError::Range(_)
        | RepositoryError::Unborn(_)
        | RepositoryError::Commit { .. },
    ) = cause.downcast_ref()
    {
        return Some(Exit::Usage);
    }
    if let Some(exit) = exit_of_promotion(cause) {
        return Some(exit);
    }
    let key = match cause.downcast_ref() {
        Some(AttestError::Key(key)) => Some(key),
        _ => cause.downcast_ref(),
    };
    if let Some(exit) = key.and_then(exit_of_key) {
        return Some(exit);
    }
    if let Some(PrekError::Config(_)) = cause.downcast_ref() {
        return Some(Exit::Usage);
    }
    if let Some(BaseError::Invalid { .. } | BaseError::Unreadable { .. }) = cause.downcast_ref() {
        return Some(Exit::Usage);
    }
    let session = match cause.downcast_ref() {
        Some(ServeError::Session(session)) => Some(session),
        _ => match cause.downcast_ref() {
            Some(PromotionError::Session(session)) => Some(session),
            _ => cause.downcast_ref::<SessionError>(),
        },
    };
    let store = match session {
        Some(SessionError::Refused(_) | SessionError::Foreign(_)) => return Some(Exit::Refused),
        Some(SessionError::Interrupted) => return Some(Exit::Interrupted),
        Some(SessionError::Store(store)) => Some(store),
        _ => cause.downcast_ref(),
    };
    // Two who hand over at once are both let in to ask, and the store says who was first.
    if let Some(StoreError::Held { .. } | StoreError::Unfinished { .. }) = store {
        return Some(Exit::Refused);
    }
    match cause.downcast_ref() {
        Some(
            RefreshError::Mask(_)
            | RefreshError::Same { .. }
            | RefreshError::Table { .. }
            | RefreshError::Schema { .. }
            | RefreshError::Unmasked { .. },
        ) => return Some(Exit::Refused),
        Some(RefreshError::TooLong { .. }) => return Some(Exit::TimedOut),
        Some(RefreshError::Database(_) | RefreshError::InTheWay { .. } | RefreshError::Unknown(_)) | None => {}
    }
    let up = cause.downcast_ref::<UpError>();
    match up {
        Some(UpError::Interrupted) => return Some(Exit::Interrupted),
        Some(UpError::Refused(_)) => return Some(Exit::Refused),
        _ => {}
    }
    let kept = cause.downcast_ref::<KeepError>();
    if let Some(KeepError::UnknownBuild { .. } | KeepError::OtherPlace { .. }) = kept {
        return Some(Exit::Refused);
    }
    if let Some(exit) = exit_of_replica(kept, cause) {
        return Some(exit);
    }
    let build = match up {
        Some(UpError::Build(build)) => Some(build),
        _ => cause.downcast_ref(),
    };
    if let Some(BuildError::UnknownVersion { .. } | BuildError::NoSource(_) | BuildError::Commit { .. }) = build {
        return Some(Exit::Usage);
    }
    let fleet = match (up, kept) {
        (Some(UpError::Fleet(fleet)), _) | (_, Some(KeepError::Fleet(fleet))) => Some(fleet),
        _ => cause.downcast_ref(),
    };
    // A text that holds for some builds only may still have a hole; the files are what is to be mended.
    if let Some(FleetError::Render { .. } | FleetError::Manifest(_) | FleetError::Database { .. }) = fleet {
        return Some(Exit::Usage);
    }
    None
}

/// What a replica's namespace or its objects say no to.
fn exit_of_replica(kept: Option<&KeepError>, cause: &(dyn std::error::Error + 'static)) -> Option<Exit> {
    let replica = match kept {
        Some(KeepError::Replica(replica)) => Some(replica),
        _ => cause.downcast_ref(),
    };
    match replica {
        Some(
            ReplicaError::Refused(_)
            | ReplicaError::NotOurs { .. }
            | ReplicaError::OtherCluster { .. }
            | ReplicaError::Ending(_),
        ) => Some(Exit::Refused),
        Some(ReplicaError::Interrupted) => Some(Exit::Interrupted),
        Some(
            ReplicaError::NoCluster { .. }
            | ReplicaError::Unreachable { .. }
            | ReplicaError::Api { .. }
            | ReplicaError::NotReady { .. }
            | ReplicaError::Stays { .. },
        )
        | None => None,
    }
}

/// Names and files are for the operator to mend; a word that counts for nothing is refused.
fn exit_of_promotion(cause: &(dyn std::error::Error + 'static)) -> Option<Exit> {
    if let Some(refused) = cause.downcast_ref::<approve::Refused>() {
        return Some(match refused {
            approve::Refused::Nobody { .. }
            | approve::Refused::Uncounted { .. }
            | approve::Refused::UnderWay { .. }
            | approve::Refused::Ended { .. } => Exit::Refused,
        });
    }
    let signature = match cause.downcast_ref() {
        Some(
            PromotionError::Unknown(_)
            | PromotionError::UnknownBuild(_)
            | PromotionError::NoWay { .. }
            | PromotionError::TwoWays { .. }
            | PromotionError::WrongPipeline { .. }
            | PromotionError::StageGone { .. }
            | PromotionError::NoComponent { .. }
            | PromotionError::Workspace(_),
        ) => return Some(Exit::Usage),
        Some(PromotionError::Signature(signature)) => Some(signature),
        Some(PromotionError::Store(_) | PromotionError::Session(_) | PromotionError::Restless(_)) | None => {
            cause.downcast_ref()
        }
    };
    match signature {
        Some(SignatureError::NoKey { .. } | SignatureError::Unsigned { .. } | SignatureError::Keys { .. }) => {
            Some(Exit::Usage)
        }
        Some(SignatureError::System { .. }) | None => None,
    }
}

/// Which key is meant, and whether there is one, is for the operator to say; the rest is refused, or is ours.
fn exit_of_key(key: &KeyError) -> Option<Exit> {
    match key {
        KeyError::Unknown(_) | KeyError::Ambiguous(_) | KeyError::None => Some(Exit::Usage),
        KeyError::Exists(_)
        | KeyError::Busy
        | KeyError::Revoked { .. }
        | KeyError::Loose { .. }
        | KeyError::Foreign { .. } => Some(Exit::Refused),
        KeyError::Store(_)
        | KeyError::File { .. }
        | KeyError::Unread { .. }
        | KeyError::Wrong { .. }
        | KeyError::Make(_) => None,
    }
}

fn log_to_stderr() {
    tracing_subscriber::fmt()
        .with_env_filter(crate::settings::log_filter())
        .with_writer(std::io::stderr)
        .with_ansi(crate::settings::colours_on_stderr())
        .with_target(false)
        .init();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_second_is_refused_wherever_it_shows() {
        let unfinished = || StoreError::Unfinished {
            environment: "one".to_owned(),
            upgrade: "web-2".to_owned(),
        };
        let errors = [
            SessionError::from(unfinished()).into(),
            ServeError::from(SessionError::from(unfinished())).into(),
            unfinished().into(),
        ];
        for error in errors {
            assert_eq!(exit_of(&error), Exit::Refused, "{error:?}");
        }
    }
}
