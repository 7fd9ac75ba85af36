//! `stagegate attest key create | list | rotate | revoke`.

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::cli::printer::Printer;
use crate::cli::view::API_VERSION;
use crate::cli::{Exit, ground};
use crate::commits::proof::keys::{KIND, OwnKey};
use crate::commits::proof::{Keys, Standing};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make a key
    ///
    /// The private half is a file below keys/ of the state directory, readable for its owner alone. It is not in a backup.
    Create,
    /// The keys, and how they stand
    List,
    /// Make a new key that signs from now on; what the old one signed before still counts
    Rotate,
    /// End a key: nothing that it ever signed counts from now on
    Revoke {
        /// Its name, or the first 8 digits of it or more
        key: String,
        /// Why; it is shown wherever the key is named
        #[arg(long, value_parser = crate::cli::reason)]
        reason: String,
    },
}

pub(super) fn run(arguments: &Arguments, printer: &Printer) -> anyhow::Result<Exit> {
    let now = Timestamp::now();
    match &arguments.action {
        Action::List => {
            let home = ground::look()?;
            list(&Keys::of(&home).all()?, printer)?;
        }
        Action::Create => {
            let home = ground::home()?;
            changed(&Keys::of(&home).create(now)?, "signs from now on", printer)?;
        }
        Action::Rotate => {
            let home = ground::home()?;
            changed(&Keys::of(&home).rotate(now)?, "signs from now on", printer)?;
        }
        Action::Revoke { key, reason } => {
            let home = ground::home()?;
            let revoked = Keys::of(&home).revoke(key, reason, now)?;
            changed(&revoked, "is revoked; nothing that it signed counts any more", printer)?;
        }
    }
    Ok(Exit::Done)
}

fn changed(key: &OwnKey, what: &str, printer: &Printer) -> anyhow::Result<()> {
    printer.resource(&resource(key), |p| {
        p.line(&key.public.id().to_string())?;
        p.note(&format!("key {} {what}", key.public.id().short()));
        Ok(())
    })
}

fn list(keys: &[OwnKey], printer: &Printer) -> anyhow::Result<()> {
    let items: Vec<Value> = keys.iter().map(resource).collect();
    let list =
        json!({"apiVersion": API_VERSION, "kind": "List", "metadata": {"name": "attestation-keys"}, "items": items});
    printer.resource(&list, |p| {
        let rows = keys
            .iter()
            .map(|key| {
                let (standing, at, reason) = match &key.standing {
                    Standing::Active { since } => ("active", since, ""),
                    Standing::Retired { at } => ("retired", at, ""),
                    Standing::Revoked { at, reason } => ("revoked", at, reason.as_str()),
                    // A key of this home is trusted by nobody's leave.
                    Standing::Trusted(_) => ("trusted", &key.since, ""),
                };
                let reason = crate::commits::finding::plain(reason);
                vec![
                    key.public.id().short(),
                    standing.to_owned(),
                    at.to_string(),
                    key.public.to_string(),
                    reason,
                ]
            })
            .collect();
        p.table(&["KEY", "STANDING", "SINCE", "PUBLIC KEY", "REASON"], rows)
    })
}

fn resource(key: &OwnKey) -> Value {
    let id = key.public.id();
    let status = match &key.standing {
        Standing::Active { since } => json!({"phase": "Active", "since": since}),
        Standing::Retired { at } => json!({"phase": "Retired", "since": key.since, "retiredAt": at}),
        Standing::Revoked { at, reason } => {
            json!({"phase": "Revoked", "since": key.since, "revokedAt": at, "reason": reason})
        }
        Standing::Trusted(what) => json!({"phase": "Trusted", "for": what}),
    };
    json!({
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": id.to_string()},
        "spec": {"publicKey": key.public.to_string()},
        "status": status,
    })
}
