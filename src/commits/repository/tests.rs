//! Commits that are made to cost much, and what is told of them within the bounds.

use super::*;

struct World {
    place: tempfile::TempDir,
    git: git2::Repository,
    blob: Oid,
}

impl World {
    fn new() -> Self {
        let place = tempfile::tempdir().expect("a directory");
        let git = git2::Repository::init(place.path()).expect("a repository");
        let blob = git
            .odb()
            .expect("objects")
            .write(ObjectType::Blob, b"text\n")
            .expect("written");
        Self { place, git, blob }
    }

    /// libgit2's own builder would refuse what these tests are about.
    fn tree(&self, entries: impl IntoIterator<Item = (&'static str, String, Oid)>) -> Oid {
        let mut text = Vec::new();
        for (mode, name, id) in entries {
            text.extend_from_slice(format!("{mode} {name}\0").as_bytes());
            text.extend_from_slice(id.as_bytes());
        }
        let odb = self.git.odb().expect("objects");
        odb.write(ObjectType::Tree, &text).expect("written")
    }

    fn commit(&self, name: &str, parents: &[Oid], tree: Oid) -> Oid {
        let parents: Vec<String> = parents.iter().map(|id| format!("parent {id}\n")).collect();
        let parents = parents.concat();
        let who = format!("{name} <a@b.c> 1 +0000");
        let text = format!("tree {tree}\n{parents}author {who}\ncommitter {who}\n\nAdd\n");
        let odb = self.git.odb().expect("objects");
        odb.write(ObjectType::Commit, text.as_bytes()).expect("written")
    }

    fn opened(&self) -> Repository {
        Repository::open_at(self.place.path()).expect("a repository")
    }
}

#[test]
fn what_is_read_for_a_commit_is_bounded_though_nothing_of_it_is_new() {
    let world = World::new();
    // 15 MB each, and one entry of 60,000 is another.
    let large = |last: &str| {
        let name = |at: usize| format!("{at:0250}");
        let all = (0..60_000).map(|at| ("100644", name(at), world.blob));
        world.tree(all.chain([("100644", last.to_owned(), world.blob)]))
    };
    let ten = |id| world.tree((0..10).map(|at| ("40000", format!("d{at}"), id)));
    let before = world.commit("A", &[], ten(large("x")));
    let after = world.commit("A", &[before], ten(large("y")));
    let why = world.opened().commit(after).expect_err("too much");
    assert!(matches!(why, RepositoryError::TreesTooLarge { .. }), "{why}");
}

#[test]
fn a_parent_that_is_named_often_is_compared_once_and_more_than_a_few_are_refused() {
    let world = World::new();
    let file = |name: &str| ("100644", name.to_owned(), world.blob);
    let parent = world.commit("A", &[], world.tree([file("a")]));
    let tree = world.tree([file("a"), file("b")]);
    let read = |parents: &[Oid]| world.opened().commit(world.commit("A", parents, tree));
    let facts = read(&[parent; MOST_PARENTS]).expect("read");
    let names: Vec<&[u8]> = facts.changes.iter().map(|c| c.path.as_slice()).collect();
    assert_eq!((facts.parents, names), (MOST_PARENTS, vec![&b"b"[..]]));
    let why = read(&[parent; MOST_PARENTS + 1]).expect_err("too many");
    assert!(matches!(why, RepositoryError::TooManyParents { .. }), "{why}");
}

#[test]
fn of_an_author_whose_name_is_endless_the_begin_is_read() {
    let world = World::new();
    let id = world.commit(&"n".repeat(1 << 20), &[], world.tree([]));
    let author = world.opened().author(id);
    assert_eq!(author, format!("{} <a@b.c>", "n".repeat(MOST_AUTHOR_BYTES)));
}

#[test]
fn names_in_directories_are_those_of_the_commit_in_whatever_order_its_trees_are() {
    let world = World::new();
    let file = |name: &str| ("100644", name.to_owned(), world.blob);
    let deep = world.tree([file("z"), file("y")]);
    let upper = world.tree([("40000", "e".to_owned(), deep), file("c")]);
    let root = world.tree([
        ("40000", "d".to_owned(), upper),
        file("a"),
        ("40000", "b".to_owned(), deep),
    ]);
    let id = world.commit("A", &[], root);
    let asked = ["", "d", "d/e", "a", "d/none", "b"].map(|name| name.as_bytes().to_vec());
    let names = world.opened().committed_names(id, &HashSet::from(asked)).expect("read");
    let mut shown: Vec<String> = names
        .iter()
        .map(|(directory, names)| {
            let names: Vec<_> = names.iter().map(|name| String::from_utf8_lossy(name)).collect();
            format!("{}: {}", String::from_utf8_lossy(directory), names.join(" "))
        })
        .collect();
    shown.sort();
    assert_eq!(shown, [": a b d", "b: y z", "d/e: y z", "d: c e"]);
}
