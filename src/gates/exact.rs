//! Floating-point numbers as text that reads back to the same bits. They travel as strings because a JSON number may be
//! read back one unit in the last place off, which would change a recomputed verdict (I6).

use serde::{Deserialize, Deserializer, Serializer, de::Error};

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's `with` hands over a reference")]
pub(super) fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    // Rust prints the shortest digits that read back to the same number.
    serializer.serialize_str(&format!("{value:?}"))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let text = String::deserialize(deserializer)?;
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(value),
        Ok(_) | Err(_) => Err(D::Error::custom(format!("\"{text}\" is not a finite number"))),
    }
}
