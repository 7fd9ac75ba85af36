//! An environment made operable: its nodes with their hosts, its scripts with what they need. Everything that acts on a
//! node goes through here, whether it brings an environment up or moves an upgrade on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::builds;
use super::session::KnownBuild;
use crate::cluster::deployments::DeploymentPlace;
use crate::cluster::pods::{KnownImages, SetPlace};
use crate::home::Home;
use crate::hosts::{AnyHost, DeploymentHost, HostError, LocalHost, NodeAddress, PodHost, Script, SshHost, Step, Work};
use crate::model::build::BuildRef;
use crate::model::environment::{BuildSource, Component, HostRef, PodRef, SshRef};
pub use crate::model::lifecycle::Lifecycle;
use crate::model::manifest::{self, Manifest, ManifestError};
use crate::model::render::{RenderError, Renderer, Variables};
use crate::model::system::{Environment, NodeSite, PortShift};
use crate::model::values::Digest;
use crate::secrets::{SecretError, Secrets};
use crate::settings;
use crate::signals::postgres::{Database, DatabaseConfig};
use crate::store::random_id;
use crate::workspace::{Workspace, WorkspaceError};

/// The key in the status of an Environment that a controller has read from its objects: their namespace. How it stands is there.
pub const OF_NAMESPACE: &str = "ofNamespace";

/// Why something could not be asked of a node.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// A script's text.
    #[error("{component}: {source}")]
    Render {
        /// The component.
        component: String,
        /// What is wrong.
        source: RenderError,
    },
    /// A secret.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// A component has no such action.
    #[error("component {component} has no action `{action}`; its environment states it under `actions`")]
    NoAction {
        /// The component.
        component: String,
        /// The action.
        action: &'static str,
    },
    /// A database's address.
    #[error("database {name}: {why}")]
    Database {
        /// The database.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// An object.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The host.
    #[error(transparent)]
    Host(#[from] HostError),
}

/// A node's place: where it is and how it is spoken to.
#[derive(Debug, Clone)]
pub struct Place {
    /// The node as the environment has it.
    pub site: NodeSite,
    /// Its directory and pid file.
    pub address: NodeAddress,
    /// Its machine.
    pub host: Arc<AnyHost>,
}

/// An environment with its hosts.
#[derive(Debug)]
pub struct Fleet {
    /// The environment.
    pub environment: Environment,
    /// Its secrets.
    pub secrets: Secrets,
    /// The files beside its own: what a build is copied from.
    pub workspace: Workspace,
    home: Home,
    renderer: Renderer,
    places: BTreeMap<String, Vec<Place>>,
    /// One a name, for all that ask it: its connections are bounded, however many nodes are watched.
    databases: Mutex<BTreeMap<String, Database>>,
}

impl Fleet {
    /// Reads an environment from the workspace's files and makes it operable.
    ///
    /// # Errors
    /// Everything that is wrong with the files.
    pub fn read(home: &Home, workspace: &Workspace, name: &str, shift: PortShift) -> Result<Self, WorkspaceError> {
        let (environment, templates) = workspace.environment(name, shift)?;
        let mut fleet = Self::new(environment, templates, home);
        fleet.workspace = workspace.clone();
        Ok(fleet)
    }

    /// Makes an environment operable. Speaks to nobody yet.
    #[must_use]
    pub fn new(environment: Environment, renderer: Renderer, home: &Home) -> Self {
        let mut hosts = Hosts::new(home);
        let mut places: BTreeMap<String, Vec<Place>> = BTreeMap::new();
        for component in &environment.spec.components {
            let pid_file = component.service.as_ref().map(|s| s.pid_file.clone());
            let sites = environment.sites(&component.name);
            let of_component = sites
                .iter()
                .map(|site| Place {
                    address: NodeAddress {
                        environment: environment.name.clone(),
                        node: site.name.clone(),
                        directory: match &site.host {
                            Some(HostRef::Ssh(ssh)) => ssh.directory.clone(),
                            // It has none that we go into.
                            Some(HostRef::Pod(_)) => String::new(),
                            None => home.node(&environment.name, &site.name).to_string_lossy().into_owned(),
                        },
                        pid_file: pid_file.clone(),
                    },
                    host: hosts.host(site.host.as_ref(), component),
                    site: site.clone(),
                })
                .collect();
            places.insert(component.name.clone(), of_component);
        }
        let secrets = Secrets::new(environment.spec.secrets.clone(), home.environment(&environment.name));
        Self {
            environment,
            secrets,
            workspace: Workspace::at(settings::workspace()),
            home: home.clone(),
            renderer,
            places,
            databases: Mutex::default(),
        }
    }

    /// The nodes of a component, in the environment's order.
    pub fn places(&self, component: &str) -> &[Place] {
        self.places.get(component).map_or(&[], Vec::as_slice)
    }

    /// The image of each build of a component, as far as anybody here knows them.
    pub(super) fn images(&self, component: &Component) -> BTreeMap<Digest, String> {
        images(&self.home, component)()
    }

    /// The Kubernetes objects of all components, as they are for a namespace.
    ///
    /// # Errors
    /// A template that does not render, or not to objects.
    pub fn manifests(&self, namespace: &str) -> Result<Vec<Manifest>, FleetError> {
        Ok(manifest::all(&self.environment, &self.renderer, namespace)?)
    }

    /// The templates of its texts.
    #[must_use]
    pub fn renderer(&self) -> &Renderer {
        &self.renderer
    }

    /// Identifies what is said of a component and how it is done: its part of the environment with the templates of the
    /// folders that its actions come from. Its nodes and its first build have rules of their own.
    #[must_use]
    pub fn rules(&self, component: &Component) -> Digest {
        let mut said = component.clone();
        said.build = None;
        said.nodes.clear();
        let folder = |name: &str| name.split('/').next().unwrap_or_default().to_owned();
        let stated = component.actions.each().into_iter().filter_map(|(_, action)| action);
        let folders: BTreeSet<String> = stated.map(|action| folder(&action.template)).collect();
        let templates: Vec<_> = self
            .renderer
            .sources()
            .filter(|(name, _)| folders.contains(&folder(name)))
            .collect();
        Digest::of(format!("{said:?}{templates:?}").as_bytes())
    }

    /// Every node of every component.
    pub fn all_places(&self) -> impl Iterator<Item = &Place> {
        self.environment
            .spec
            .components
            .iter()
            .flat_map(|component| self.places(&component.name))
    }

    /// A lifecycle script of a node, with the component's secrets.
    ///
    /// # Errors
    /// The component has no such action, its template does not render, or a secret cannot be read.
    pub fn script(
        &self,
        component: &Component,
        site: Option<&NodeSite>,
        build: Option<&BuildRef>,
        action: Lifecycle,
    ) -> Result<Script, FleetError> {
        let stated = action.of(component).ok_or_else(|| FleetError::NoAction {
            component: component.name.clone(),
            action: action.word(),
        })?;
        let render = |source| FleetError::Render {
            component: component.name.clone(),
            source,
        };
        let context = self.environment.context(&component.name, site, build);
        let variables = Variables::new(&context).map_err(render)?;
        Ok(Script {
            text: self.renderer.render(&stated.template, &variables).map_err(render)?,
            deadline: stated.timeout.map_or(action.default_timeout(), |t| t.0),
            secrets: self.secrets.all(&component.secrets)?,
            environment: BTreeMap::new(),
        })
    }

    /// A step that runs one script of a component on a node.
    ///
    /// # Errors
    /// As [`Fleet::script`].
    pub fn script_step(
        &self,
        component: &Component,
        site: &NodeSite,
        build: Option<&BuildRef>,
        action: Lifecycle,
        id: String,
    ) -> Result<Step, FleetError> {
        let script = self.script(component, Some(site), build, action)?;
        let work = match action {
            Lifecycle::Setup => Work::Setup(script),
            Lifecycle::Start => Work::Start { start: script },
            Lifecycle::Stop => Work::Stop { stop: script },
            Lifecycle::Check
            | Lifecycle::Prepare
            | Lifecycle::Install
            | Lifecycle::Drain
            | Lifecycle::Admit
            | Lifecycle::Warm
            | Lifecycle::Remove => Work::Script(script),
        };
        Ok(Step {
            id,
            action: action.word().to_owned(),
            work,
        })
    }

    /// A database of the environment: the same one, with the same few connections, to all who ask. Does not connect.
    ///
    /// # Errors
    /// No such database, an address that does not render, a password that cannot be read.
    pub fn database(&self, name: &str) -> Result<Database, FleetError> {
        // Each entry is made and put in by one call, so a panic elsewhere has left nothing half done.
        let mut databases = self.databases.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(database) = databases.get(name) {
            return Ok(database.clone());
        }
        let database = Database::new(self.database_config(name)?);
        databases.insert(name.to_owned(), database.clone());
        Ok(database)
    }

    /// As [`Fleet::database`], for those who open a session of their own.
    ///
    /// # Errors
    /// As [`Fleet::database`].
    pub fn database_config(&self, name: &str) -> Result<DatabaseConfig, FleetError> {
        let wrong = |why: String| FleetError::Database {
            name: name.to_owned(),
            why,
        };
        let spec = &self.environment.spec;
        let stated = spec
            .databases
            .iter()
            .find(|d| d.name == name)
            .ok_or_else(|| wrong("the environment's `databases` do not have it".to_owned()))?;
        let context = self.environment.context("", None, None);
        let text = |template: &str| {
            self.renderer
                .render_text(template, &context)
                .map_err(|e| wrong(e.to_string()))
        };
        let address = &stated.postgres;
        let port = text(&address.port)?;
        let port = port
            .trim()
            .parse()
            .map_err(|_| wrong(format!("its port is `{port}`, which is no port")))?;
        let mut config = DatabaseConfig::new(
            text(&address.host)?,
            port,
            text(&address.database)?,
            text(&address.user)?,
        );
        if let Some(password) = &address.password {
            config.password = Some(self.secrets.text(password)?);
        }
        Ok(config)
    }

    /// Renders a text of the environment.
    ///
    /// # Errors
    /// As [`Renderer::render_text`].
    pub fn render_text(&self, text: &str, context: &serde_json::Value) -> Result<String, RenderError> {
        self.renderer.render_text(text, context)
    }
}

/// One connection a machine, however many nodes it carries, and one a workload of a cluster.
struct Hosts {
    home: Home,
    local: Arc<AnyHost>,
    ssh: BTreeMap<SshKey, Arc<AnyHost>>,
    sets: BTreeMap<String, Arc<SetPlace>>,
    deployments: BTreeMap<String, Arc<DeploymentPlace>>,
    control_directory: PathBuf,
}

type SshKey = (String, Option<u16>, Option<String>);

/// A socket's path is bounded (unix(7)); `SshHost` states how much of it a directory may use.
const LONGEST_CONTROL_DIRECTORY: usize = 60;

impl Hosts {
    fn new(home: &Home) -> Self {
        let mut control_directory = home.connections();
        if control_directory.as_os_str().len() > LONGEST_CONTROL_DIRECTORY {
            // Private, since its name cannot be guessed and its mode is ours.
            control_directory = std::env::temp_dir().join(format!("stagegate-{}", &random_id()[..12]));
        }
        Self {
            home: home.clone(),
            local: Arc::new(AnyHost::Local(LocalHost::new())),
            ssh: BTreeMap::new(),
            sets: BTreeMap::new(),
            deployments: BTreeMap::new(),
            control_directory,
        }
    }

    fn host(&mut self, reference: Option<&HostRef>, component: &Component) -> Arc<AnyHost> {
        match reference {
            None => Arc::clone(&self.local),
            Some(HostRef::Ssh(ssh)) => self.ssh(ssh),
            Some(HostRef::Pod(PodRef::OfDeployment(pods))) => {
                let made = self.deployments.entry(component.name.clone()).or_insert_with(|| {
                    Arc::new(DeploymentPlace::new(pods.deployment.clone(), stated_images(component)))
                });
                Arc::new(AnyHost::Deployment(DeploymentHost::new(Arc::clone(made), pods.role)))
            }
            Some(HostRef::Pod(PodRef::OfSet(pod))) => {
                let home = &self.home;
                let made = self
                    .sets
                    .entry(component.name.clone())
                    .or_insert_with(|| Arc::new(SetPlace::new(pod.set.clone(), images(home, component))));
                Arc::new(AnyHost::Pod(PodHost::new(Arc::clone(made), pod.ordinal)))
            }
        }
    }

    fn ssh(&mut self, reference: &SshRef) -> Arc<AnyHost> {
        let SshRef {
            destination,
            port,
            config,
            directory: _,
        } = reference;
        let key = (destination.clone(), *port, config.clone());
        let made = self.ssh.entry(key).or_insert_with(|| {
            let destination = match port {
                Some(port) => format!("ssh://{destination}:{port}"),
                None => destination.clone(),
            };
            let mut host = SshHost::new(destination, self.control_directory.clone());
            if let Some(config) = config {
                host = host.with_config(config);
            }
            Arc::new(AnyHost::Ssh(host))
        });
        Arc::clone(made)
    }
}

/// The image of each build that a component's source states.
fn stated_images(component: &Component) -> BTreeMap<Digest, String> {
    let Some(BuildSource::Images(images)) = &component.source else {
        return BTreeMap::new();
    };
    let stated = builds::of_images(component).into_iter();
    stated
        .filter_map(|build| Some((build.digest, images.image(&build.version)?)))
        .collect()
}

/// The image of each build of a component: those that its source states, or, where a build has files beside its image, those of
/// the builds that the home knows.
fn images(home: &Home, component: &Component) -> Box<KnownImages> {
    if matches!(&component.source, Some(BuildSource::Images(_))) {
        let stated = stated_images(component);
        return Box::new(move || stated.clone());
    }
    let (home, component) = (home.clone(), component.name.clone());
    Box::new(move || match KnownBuild::all(&home) {
        Ok(known) => {
            let ours = known.into_values().filter(|build| build.spec.component == component);
            ours.filter_map(|build| Some((build.spec.digest, build.spec.image()?)))
                .collect()
        }
        Err(why) => {
            tracing::warn!(%why, "no image of {component} is known");
            BTreeMap::new()
        }
    })
}
