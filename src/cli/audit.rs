//! `stagegate audit list | verify | export`: what was decided, by whom, when and why.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::printer::Printer;
use super::view::{self, API_VERSION};
use super::{Exit, ground};
use crate::audit::{Act, Broken, Head, Record, Verifier};
use crate::home::Home;
use crate::report::in_one_line;
use crate::store::Store as _;

/// Records read at once: a megabyte or two.
const AT_ONCE: u32 = 5_000;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The last acts
    List(ListArguments),
    /// Whether the record is whole
    ///
    /// Every record has the hash of the one before it, so nothing can be changed or taken out of the middle. That its end was not cut off
    /// is shown by a head that was kept elsewhere: every report carries one as `auditHead`. Exits 1 where it is not whole.
    #[command(
        after_help = "Example:\n  stagegate audit verify --against 120:sha256:6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"
    )]
    Verify(VerifyArguments),
    /// Every act, oldest first, for other programs
    Export(ExportArguments),
}

#[derive(Debug, Args)]
struct ListArguments {
    /// Of this environment alone
    #[arg(long, value_name = "ENV", value_parser = ground::environment_name)]
    env: Option<String>,
    /// How many of the last ones
    #[arg(long, default_value_t = 50)]
    last: usize,
}

#[derive(Debug, Args)]
struct VerifyArguments {
    /// A head that was kept, as COUNT:sha256:HEX
    #[arg(long, value_name = "HEAD")]
    against: Option<Head>,
}

#[derive(Debug, Args)]
struct ExportArguments {
    /// As what
    #[arg(long, value_enum, default_value = "jsonl")]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A line of JSON each
    Jsonl,
    /// Comma-separated values (RFC 4180), with a header
    Csv,
}

/// The record is not what it was.
#[derive(Debug, thiserror::Error)]
#[error(
    "the audit of {home} is not whole: {why}; who could write there since the last head that was kept is who to ask"
)]
pub(super) struct NotWhole {
    home: String,
    why: Broken,
}

pub(super) fn run(arguments: &Arguments, printer: &Printer) -> anyhow::Result<Exit> {
    let home = ground::look()?;
    match &arguments.command {
        Command::List(arguments) => list(&home, arguments, printer),
        Command::Verify(arguments) => verify(&home, arguments, printer),
        Command::Export(arguments) => export(&home, arguments.format, printer),
    }
}

/// Takes every record, in order.
fn each(home: &Home, mut take: impl FnMut(Record) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mut after = 0;
    loop {
        let records = home.store().audit(after, AT_ONCE)?;
        let Some(last) = records.last() else { return Ok(()) };
        after = last.seq;
        for record in records {
            take(record)?;
        }
    }
}

fn list(home: &Home, arguments: &ListArguments, printer: &Printer) -> anyhow::Result<Exit> {
    let mut acts = std::collections::VecDeque::new();
    each(home, |record| {
        let act: Act = serde_json::from_str(&record.act)?;
        if arguments.env.as_ref().is_none_or(|env| *env == act.environment) {
            acts.push_back((record, act));
            if acts.len() > arguments.last {
                acts.pop_front();
            }
        }
        Ok(())
    })?;
    let items = acts
        .iter()
        .map(|(record, act)| resource(record, act))
        .collect::<Result<Vec<_>, _>>()?;
    let list = json!({
        "apiVersion": API_VERSION, "kind": "List", "metadata": {"name": "audit"}, "items": items,
    });
    printer.resource(&list, |p| {
        for (record, act) in &acts {
            p.line(&format!(
                "{:<6} {}  {:<16} {:<18} {:<28} {:<14} {}",
                record.seq,
                view::moment(act.at),
                or_dash(&act.who),
                act.what,
                act.of,
                or_dash(&act.environment),
                in_one_line(&act.why)
            ))?;
        }
        Ok(())
    })?;
    Ok(Exit::Done)
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

fn resource(record: &Record, act: &Act) -> serde_json::Result<Value> {
    let mut spec = serde_json::to_value(act)?;
    spec["hash"] = json!(record.hash);
    Ok(json!({
        "apiVersion": API_VERSION, "kind": "Act", "metadata": {"name": format!("act-{}", record.seq)}, "spec": spec,
    }))
}

fn verify(home: &Home, arguments: &VerifyArguments, printer: &Printer) -> anyhow::Result<Exit> {
    let not_whole = |why| NotWhole {
        home: home.store().home().to_owned(),
        why,
    };
    let mut verifier = Verifier::new(arguments.against);
    each(home, |record| Ok(verifier.take(&record).map_err(not_whole)?))?;
    let head = verifier.end().map_err(not_whole)?;
    let resource = json!({
        "apiVersion": API_VERSION,
        "kind": "AuditHead",
        "metadata": {"name": home.store().home()},
        "status": {"head": head.to_string(), "records": head.count},
    });
    printer.resource(&resource, |p| {
        p.line(&format!("{} records, whole; its head is {head}", head.count))
    })?;
    Ok(Exit::Done)
}

fn export(home: &Home, format: Format, printer: &Printer) -> anyhow::Result<Exit> {
    if format == Format::Csv {
        printer.line("seq,at,who,what,of,environment,why,evidence,hash")?;
    }
    each(home, |record| {
        if printer.is_unread() {
            return Ok(());
        }
        let line = match format {
            Format::Jsonl => {
                let act: Value = serde_json::from_str(&record.act)?;
                serde_json::to_string(&json!({"seq": record.seq, "act": act, "hash": record.hash}))?
            }
            Format::Csv => {
                let act: Act = serde_json::from_str(&record.act)?;
                csv(&record, &act)
            }
        };
        printer.line(&line)
    })?;
    Ok(Exit::Done)
}

/// One line, as RFC 4180 has it. What a spreadsheet would take for a formula is kept from being one.
fn csv(record: &Record, act: &Act) -> String {
    let Act {
        at,
        who,
        what,
        of,
        environment,
        why,
        evidence,
    } = act;
    let evidence = evidence.map(|digest| digest.to_string()).unwrap_or_default();
    let (seq, at, hash) = (record.seq.to_string(), at.to_string(), record.hash.to_string());
    let quoted = |text: &str| {
        let text = in_one_line(text);
        let guard = if text.starts_with(['=', '+', '-', '@']) {
            "'"
        } else {
            ""
        };
        format!("\"{guard}{}\"", text.replace('"', "\"\""))
    };
    let [who, what, of, environment, why] = [who, what, of, environment, why].map(|text| quoted(text));
    [seq, at, who, what, of, environment, why, evidence, hash].join(",")
}
