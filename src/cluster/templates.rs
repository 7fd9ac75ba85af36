//! The templates of a controller: a `ConfigMap` that its kubelet brings into its pod in its own time. Who has changed it knows by the digest
//! when the controller has what was written.

use std::collections::BTreeMap;

use crate::model::values::Digest;

/// The `ConfigMap`.
pub const NAME: &str = "stagegate-templates";

/// Of these files, by their names.
#[must_use]
pub fn digest<T: AsRef<[u8]>>(files: &BTreeMap<String, T>) -> Digest {
    let mut all = Vec::new();
    for (name, bytes) in files {
        let bytes = bytes.as_ref();
        // With its lengths, so that nothing of one file can be taken for a part of another.
        all.extend_from_slice(format!("{} {} ", name.len(), bytes.len()).as_bytes());
        all.extend_from_slice(name.as_bytes());
        all.extend_from_slice(bytes);
    }
    Digest::of(&all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_names_and_other_bytes_are_another_digest() {
        let of = |files: &[(&str, &str)]| {
            let files = files.iter().map(|(name, text)| ((*name).to_owned(), *text));
            digest(&files.collect())
        };
        let one = of(&[("a", "bc"), ("d", "")]);
        assert_eq!(one, of(&[("d", ""), ("a", "bc")]), "in whichever order");
        for other in [
            &[("ab", "c"), ("d", "")][..],
            &[("a", "bc")],
            &[("a", "b"), ("d", "c")],
            &[],
        ] {
            assert_ne!(one, of(other), "{other:?}");
        }
    }
}
