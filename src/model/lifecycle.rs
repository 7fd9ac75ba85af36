//! The lifecycle actions of a component: what they are called, how long they may take, and what their scripts are told.

use std::time::Duration;

use super::environment::{Action, Actions, Component};

/// One lifecycle action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifecycle {
    /// Once, before the first start: a database cluster, certificates.
    Setup,
    /// Preflight.
    Check,
    /// Once a build: compilers run.
    Prepare,
    /// Unpacks a build.
    Install,
    /// Until the service is started.
    Start,
    /// Until the requests in flight have ended.
    Stop,
    /// A balancer's answer.
    Drain,
    /// A balancer's answer.
    Admit,
    /// First requests.
    Warm,
    /// Before the directory is deleted.
    Remove,
}

impl Lifecycle {
    /// The key under `actions`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Lifecycle::Setup => "setup",
            Lifecycle::Check => "check",
            Lifecycle::Prepare => "prepare",
            Lifecycle::Install => "install",
            Lifecycle::Start => "start",
            Lifecycle::Stop => "stop",
            Lifecycle::Drain => "drain",
            Lifecycle::Admit => "admit",
            Lifecycle::Warm => "warm",
            Lifecycle::Remove => "remove",
        }
    }

    /// Long enough for what such an action does on a slow machine, short enough to be noticed on the same day.
    #[must_use]
    pub fn default_timeout(self) -> Duration {
        match self {
            Lifecycle::Prepare => Duration::from_mins(30),
            Lifecycle::Setup | Lifecycle::Install => Duration::from_mins(10),
            Lifecycle::Start | Lifecycle::Warm | Lifecycle::Stop | Lifecycle::Remove => Duration::from_mins(2),
            Lifecycle::Check | Lifecycle::Drain | Lifecycle::Admit => Duration::from_mins(1),
        }
    }

    /// The component's action, if it has one.
    #[must_use]
    pub fn of(self, component: &Component) -> Option<&Action> {
        let mut each = component.actions.each().into_iter();
        each.find_map(|(lifecycle, action)| (lifecycle == self).then_some(action)?)
    }

    /// Whether its script is told a build wherever it runs. `down` stops and removes without asking what ran, and `up` sets
    /// up and starts what has no `build` as it is.
    #[must_use]
    pub fn is_told_build(self, component: &Component) -> bool {
        component.source.is_some()
            && match self {
                Lifecycle::Stop | Lifecycle::Remove => false,
                Lifecycle::Setup | Lifecycle::Start => component.build.is_some(),
                Lifecycle::Check
                | Lifecycle::Prepare
                | Lifecycle::Install
                | Lifecycle::Drain
                | Lifecycle::Admit
                | Lifecycle::Warm => true,
            }
    }
}

impl Actions {
    /// Every action with what is stated for it. Destructured, so that one that is added cannot be left out here.
    #[must_use]
    pub fn each(&self) -> [(Lifecycle, Option<&Action>); 10] {
        let Actions {
            setup,
            check,
            prepare,
            install,
            start,
            stop,
            drain,
            admit,
            warm,
            remove,
        } = self;
        [
            (Lifecycle::Setup, setup.as_ref()),
            (Lifecycle::Check, check.as_ref()),
            (Lifecycle::Prepare, prepare.as_ref()),
            (Lifecycle::Install, install.as_ref()),
            (Lifecycle::Start, start.as_ref()),
            (Lifecycle::Stop, stop.as_ref()),
            (Lifecycle::Drain, drain.as_ref()),
            (Lifecycle::Admit, admit.as_ref()),
            (Lifecycle::Warm, warm.as_ref()),
            (Lifecycle::Remove, remove.as_ref()),
        ]
    }
}
