//! A build: an immutable named set of artifacts, known by the digest over its full locked set.

use std::fmt::Write as _;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::Digest;

/// What a Build is. Made by us from its component's source; immutable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BuildSpec {
    /// The component that it is a build of.
    pub component: String,
    /// Its version, as the source names it.
    pub version: String,
    /// See [`BuildSpec::digest_of`].
    pub digest: Digest,
    /// Everything that it consists of, each pinned by its content.
    pub locked: Vec<LockedPackage>,
    /// The commit that its sources are, as its component's `commits` named it when the build was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<CommitRef>,
}

/// A commit, or a directory of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CommitRef {
    /// The repository's directory on the driver's machine, below the workspace or absolute.
    pub repository: String,
    /// Full name of the commit.
    pub commit: String,
    /// The directory of it that the build is; without one it is the whole tree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// What stands for the version of an image: two tags of the same bytes are one build.
pub const IMAGE: &str = "image";

/// One part of a build.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LockedPackage {
    /// Name of the package, path of the file, or repository of the image.
    pub name: String,
    /// Its version; of a file its mode, of an image [`IMAGE`].
    pub version: String,
    /// SHA-256 of the archives that are acceptable, or of the image's manifest, hexadecimal.
    pub sha256: Vec<String>,
}

impl LockedPackage {
    fn image(repository: &str, manifest: &Digest) -> Self {
        Self {
            name: repository.to_owned(),
            version: IMAGE.to_owned(),
            sha256: vec![manifest.hex()],
        }
    }

    /// Whether it is a container image.
    #[must_use]
    pub fn is_image(&self) -> bool {
        self.version == IMAGE
    }
}

/// A build as scripts and messages speak of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildRef {
    /// `COMPONENT-VERSION`.
    pub name: String,
    /// The version.
    pub version: String,
    /// The digest.
    pub digest: Digest,
}

impl BuildSpec {
    /// A build of this locked set; the order in which it was found does not matter.
    #[must_use]
    pub fn new(component: &str, version: &str, mut locked: Vec<LockedPackage>) -> Self {
        for package in &mut locked {
            package.sha256.sort();
        }
        locked.sort();
        Self {
            digest: Self::digest_of(component, &locked),
            component: component.to_owned(),
            version: version.to_owned(),
            locked,
            commit: None,
        }
    }

    /// The build that is one container image.
    #[must_use]
    pub fn of_image(component: &str, version: &str, repository: &str, manifest: &Digest) -> Self {
        Self::new(component, version, vec![LockedPackage::image(repository, manifest)])
    }

    /// The same build, which is an image beside its files, too: its pods run the one, its servers the others.
    #[must_use]
    pub fn with_image(self, repository: &str, manifest: &Digest) -> Self {
        let Self {
            component,
            version,
            digest: _,
            mut locked,
            commit,
        } = self;
        locked.push(LockedPackage::image(repository, manifest));
        Self {
            commit,
            ..Self::new(&component, &version, locked)
        }
    }

    /// The image that it is, as a pod names it, if it is one.
    #[must_use]
    pub fn image(&self) -> Option<String> {
        let image = self.locked.iter().find(|part| part.is_image())?;
        Some(format!("{}@sha256:{}", image.name, image.sha256.first()?))
    }

    /// What it consists of beside its image.
    pub fn files(&self) -> impl Iterator<Item = &LockedPackage> {
        self.locked.iter().filter(|part| !part.is_image())
    }

    /// The same build, as of this commit. Its digest stays: it is of what the build consists of, not of where that came from.
    #[must_use]
    pub fn of_commit(self, commit: CommitRef) -> Self {
        Self {
            commit: Some(commit),
            ..self
        }
    }

    /// SHA-256 over the component's name and one line a package, `NAME VERSION SHA256…`, sorted. The version that was
    /// asked for is in it as its own package's; how it was asked for is not.
    #[must_use]
    pub fn digest_of(component: &str, locked: &[LockedPackage]) -> Digest {
        let mut lines: Vec<String> = locked
            .iter()
            .map(|LockedPackage { name, version, sha256 }| format!("{name} {version} {}", sha256.join(" ")))
            .collect();
        lines.sort();
        let mut text = format!("{component}\n");
        for line in lines {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{line}");
        }
        Digest::of(text.as_bytes())
    }

    /// `COMPONENT-VERSION`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}-{}", self.component, self.version)
    }

    /// As scripts and messages speak of it.
    #[must_use]
    pub fn reference(&self) -> BuildRef {
        BuildRef {
            name: self.name(),
            version: self.version.clone(),
            digest: self.digest,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, hash: &str) -> LockedPackage {
        LockedPackage {
            name: name.into(),
            version: "1".into(),
            sha256: vec![hash.into()],
        }
    }

    #[test]
    fn a_digest_is_of_the_set_and_of_nothing_else() {
        let (a, b) = (package("a", "11"), package("b", "22"));
        let one = BuildSpec::new("server", "1.0", vec![a.clone(), b.clone()]);
        let other = BuildSpec::new("server", "1.0", vec![b.clone(), a.clone()]);
        assert_eq!(one, other);
        let changed = BuildSpec::new("server", "1.0", vec![a, package("b", "23")]);
        assert_ne!(one.digest, changed.digest);
        assert_eq!(one.name(), "server-1.0");
        let commit = CommitRef {
            repository: "r".to_owned(),
            commit: "1".repeat(40),
            path: None,
        };
        assert_eq!(one.clone().of_commit(commit).digest, one.digest);
    }

    #[test]
    fn a_build_with_an_image_is_of_both() {
        let files = BuildSpec::new("web", "1", vec![package("a", "11")]);
        let (image, other) = (Digest::of(b"1"), Digest::of(b"2"));
        let both = files.clone().with_image("r.example.org/web", &image);
        assert_eq!(both.image(), Some(format!("r.example.org/web@{image}")));
        assert_eq!(both.files().count(), 1);
        assert_eq!(files.image(), None);
        let digests = [
            files.digest,
            both.digest,
            files.with_image("r.example.org/web", &other).digest,
            BuildSpec::of_image("web", "1", "r.example.org/web", &image).digest,
        ];
        for (i, digest) in digests.iter().enumerate() {
            assert!(!digests[..i].contains(digest), "{digests:?}");
        }
    }
}
