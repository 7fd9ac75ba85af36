//! The image of `docs/kubernetes/Containerfile`, built as it says. No registry is asked: the image that it begins with is made of
//! Debian's packages under that name, and the program is that of this run in the place of one that is compiled for minutes.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use stagegate::model::values::Digest;

use super::lab::run;
use crate::fetched::once;

const RECIPE: &str = "docs/kubernetes/Containerfile";

/// Images of Debian, with what was made of them.
struct Images {
    storage: PathBuf,
    /// What is mounted; no other run has it.
    mounts: tempfile::TempDir,
}

impl Images {
    /// With the image that the recipe's last stage begins with, made once.
    fn with_base(name: &str) -> Self {
        let suite = name.strip_prefix("debian:").and_then(|rest| rest.strip_suffix("-slim"));
        let suite = suite.unwrap_or_else(|| panic!("{RECIPE} begins with {name}, which no test can make; teach it"));
        let place = once(&format!("image-{}", Digest::of(name.as_bytes()).short()), |place| {
            let root = place.join("root.tar");
            let make = ["--quiet", "--variant=minbase", "--mode=root", "--format=tar", suite];
            run("mmdebstrap", make.iter().map(OsStr::new).chain([root.as_os_str()]));
            let recipe = place.join("Containerfile");
            fs::write(&recipe, "FROM scratch\nADD root.tar /\n").expect("written");
            let name = format!("docker.io/library/{name}");
            let build = [OsStr::new("build"), OsStr::new("--tag"), OsStr::new(&name)];
            Self::at(place).run(build.into_iter().chain([place.as_os_str()]));
            fs::remove_file(&root).expect("ours");
        });
        Self::at(&place)
    }

    fn at(place: &Path) -> Self {
        Self {
            storage: place.join("storage"),
            mounts: tempfile::tempdir().expect("a directory"),
        }
    }

    /// Where a container may begin no container of its own, what runs in a build has a root directory of its own and no more.
    fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) {
        let mut command = Command::new("buildah");
        command
            .env("BUILDAH_ISOLATION", "chroot")
            .args(["--storage-driver", "overlay", "--root"])
            .arg(&self.storage)
            .arg("--runroot")
            .arg(self.mounts.path())
            .args(arguments);
        let done = command.output().expect("buildah is there: tests/run installs it");
        let words = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{command:?}: {words}");
    }
}

/// Builds it into an archive, under this name. What the recipe fetches it fetches once: layers are kept.
pub fn archive(name: &str, archive: &Path) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let recipe = fs::read_to_string(root.join(RECIPE)).expect("a recipe");
    let base = recipe.lines().filter_map(|line| line.strip_prefix("FROM ")).next_back();
    let images = Images::with_base(base.expect("a stage"));
    let build = tempfile::tempdir().expect("a directory");
    let program = build.path().join("source/target/release/stagegate");
    fs::create_dir_all(program.parent().expect("below")).expect("made");
    let ours = OsStr::new(env!("CARGO_BIN_EXE_stagegate"));
    run("strip", [OsStr::new("-o"), program.as_os_str(), ours]);
    let context = format!("build={}", build.path().display());
    images.run(
        [
            "build",
            "--layers",
            "--pull=never",
            "--build-context",
            &context,
            "--tag",
            name,
            "--file",
        ]
        .iter()
        .map(OsStr::new)
        .chain([root.join(RECIPE).as_os_str(), root.as_os_str()]),
    );
    // Those of earlier runs, whose program was another.
    images.run(["rmi", "--prune"]);
    let to = format!("docker-archive:{}:docker.io/library/{name}", archive.display());
    images.run(["push", name, &to]);
}
