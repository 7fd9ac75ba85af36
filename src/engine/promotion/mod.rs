//! Promotions: what a home knows that they are decided on ([`known`]), what follows from that and from the words of people for one of them
//! ([`facts`]), the way that it is on ([`way`]), and, for the embedded home, how one is stored ([`record`]) and its turn taken ([`turn`]).
//! What a promotion does next is decided elsewhere ([`crate::promotion`]); what was decided is done after it is written down, and done once
//! however often it is asked for.

pub mod board;
pub mod facts;
pub mod known;
pub mod proven;
pub mod record;
pub mod signatures;
pub mod turn;
pub mod way;

use jiff::SignedDuration;

pub use self::facts::Vouched;
pub use self::known::{FREEZE, Known, freezes};
pub use self::record::{Change, PromotionRecord, event, prune, subject};
use self::signatures::SignatureError;
pub use self::turn::{Ground, Turned};
pub use self::way::{Way, act, way, way_of};
use super::session::SessionError;
use crate::store::StoreError;
use crate::workspace::WorkspaceError;

/// The kind, as the state has it.
pub const KIND: &str = crate::store::PROMOTION;
/// Somebody has written meanwhile: a turn is taken anew so often before the next look takes it.
const TURNS: u32 = 8;
/// A decision is written within this of its look, or not at all: who was stopped meanwhile looks again.
pub const LONGEST_LOOK: SignedDuration = SignedDuration::from_secs(30);

/// Why a promotion cannot be looked at, or gone on with.
#[derive(Debug, thiserror::Error)]
pub enum PromotionError {
    /// The state.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The files.
    #[error(transparent)]
    Workspace(#[from] WorkspaceError),
    /// A signature.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// Its upgrade.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// A build that is not in the state.
    #[error("build {0} is not known here; `stagegate build list` shows what is")]
    UnknownBuild(String),
    /// No such promotion.
    #[error("there is no promotion {0}; `stagegate get promotions` lists them")]
    Unknown(String),
    /// The files have no way for it.
    #[error(
        "no pipeline leads {component} into {environment}: no file of kind Pipeline in pipelines/ has `component: {component}` and a stage \
         with `environment: {environment}`{there}"
    )]
    NoWay {
        /// The component.
        component: String,
        /// The environment.
        environment: String,
        /// The ways that there are.
        there: String,
    },
    /// Two ways for it.
    #[error("pipelines {} and {} both lead {component} into {environment}; take one of the two stages out", ways[0], ways[1])]
    TwoWays {
        /// The component.
        component: String,
        /// The environment.
        environment: String,
        /// The pipelines.
        ways: Vec<String>,
    },
    /// The pipeline cannot be used.
    #[error("pipeline {pipeline} cannot be used: {wrong}")]
    WrongPipeline {
        /// Which.
        pipeline: String,
        /// What is wrong with it.
        wrong: String,
    },
    /// The stage was taken out of the pipeline while a promotion was under way.
    #[error(
        "promotion {promotion} is of stage {stage} of pipeline {pipeline}, which the files no longer have; put it back, or `stagegate cancel {promotion}`"
    )]
    StageGone {
        /// The promotion.
        promotion: String,
        /// Its pipeline.
        pipeline: String,
        /// Its stage.
        stage: String,
    },
    /// The environment's file has another component by now.
    #[error("environment {environment} has no component {component}")]
    NoComponent {
        /// The environment.
        environment: String,
        /// The component.
        component: String,
    },
    /// Others write all the time.
    #[error("promotion {0} changes faster than it can be decided on")]
    Restless(String),
}
