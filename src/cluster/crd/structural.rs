//! Rewrites JSON Schema, as schemars makes it of serde's types, into the structural schema of an API server
//! (<https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema>):
//! nothing is referred to, every value has one type, and a choice is a rule in CEL.
//!
//! Defaults are left out: they are the engine's, and one that an API server writes into an object stays there when ours changes.

use serde_json::{Map, Value, json};

/// A schema under rewriting.
type Schema = Map<String, Value>;

/// Keywords that mean in an API server what they mean in JSON Schema.
const SHARED: [&str; 10] = [
    "description",
    "enum",
    "pattern",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "required",
];
/// Formats that an API server knows and checks; of the others the bounds say the same.
const FORMATS: [&str; 4] = ["int32", "int64", "double", "date-time"];

/// The definitions that schemas refer to.
pub(super) struct Definitions<'s>(Option<&'s Schema>);

impl<'s> Definitions<'s> {
    /// Of a whole schema.
    pub(super) fn of(schema: &'s Value) -> Self {
        Self(schema["$defs"].as_object())
    }

    /// What a definition says of itself.
    pub(super) fn description(&self, name: &str) -> Value {
        self.named(name).get("description").cloned().unwrap_or_default()
    }

    /// A definition, rewritten.
    ///
    /// # Panics
    /// There is none of this name.
    pub(super) fn structural(&self, name: &str) -> Schema {
        self.rewritten(self.named(name))
    }

    fn named(&self, name: &str) -> &'s Schema {
        self.0
            .and_then(|all| all.get(name)?.as_object())
            .unwrap_or_else(|| panic!("no definition is called {name}"))
    }

    /// What a schema refers to, with what it says beside.
    fn resolved(&self, schema: &Schema) -> Schema {
        let Some(Value::String(reference)) = schema.get("$ref") else {
            return schema.clone();
        };
        let mut whole = self.resolved(self.named(reference.trim_start_matches("#/$defs/")));
        whole.extend(
            schema
                .iter()
                .filter(|(key, _)| *key != "$ref")
                .map(|(k, v)| (k.clone(), v.clone())),
        );
        whole
    }

    fn rewritten(&self, schema: &Schema) -> Schema {
        let schema = self.resolved(schema);
        let mut structural: Schema = SHARED
            .iter()
            .filter_map(|keyword| Some(((*keyword).to_owned(), schema.get(*keyword)?.clone())))
            .collect();
        match schema.get("type") {
            Some(Value::Array(types)) => {
                let mut some = types.iter().filter(|kind| *kind != "null");
                if let (Some(one), None) = (some.next(), some.next()) {
                    structural.insert("type".to_owned(), one.clone());
                }
                structural.insert("nullable".to_owned(), true.into());
            }
            Some(kind) => {
                structural.insert("type".to_owned(), kind.clone());
            }
            None => {}
        }
        if let Some(format) = schema
            .get("format")
            .filter(|format| FORMATS.iter().any(|known| *format == known))
        {
            structural.insert("format".to_owned(), format.clone());
        }
        if let Some(constant) = schema.get("const") {
            structural.insert("enum".to_owned(), json!([constant]));
            structural.entry("type").or_insert_with(|| json!(type_of(constant)));
        }
        if let Some(items) = schema.get("items").and_then(Value::as_object) {
            structural.insert("items".to_owned(), self.rewritten(items).into());
        }
        if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
            let properties: Schema = properties
                .iter()
                .map(|(name, property)| (name.clone(), self.of_any(property).into()))
                .collect();
            structural.insert("properties".to_owned(), properties.into());
        } else if let Some(values) = schema.get("additionalProperties").filter(|values| !values.is_boolean()) {
            structural.insert("additionalProperties".to_owned(), self.of_any(values).into());
        }
        for keyword in ["oneOf", "anyOf"] {
            if let Some(choices) = schema.get(keyword).and_then(Value::as_array) {
                self.choose(choices, &mut structural);
            }
        }
        bound(&mut structural);
        if !structural.contains_key("type") && !structural.contains_key(INT_OR_STRING) {
            structural.insert(ANYTHING.to_owned(), true.into());
        }
        structural
    }

    /// `true` is a schema, too: that of anything.
    fn of_any(&self, schema: &Value) -> Schema {
        match schema {
            Value::Object(schema) => self.rewritten(schema),
            _ => Map::from_iter([(ANYTHING.to_owned(), true.into())]),
        }
    }

    fn choose(&self, choices: &[Value], structural: &mut Schema) {
        let choices: Vec<Schema> = choices
            .iter()
            .filter_map(Value::as_object)
            .map(|choice| self.resolved(choice))
            .collect();
        let (none, some): (Vec<_>, Vec<_>) = choices
            .into_iter()
            .partition(|choice| choice.get("type") == Some(&json!("null")));
        if !none.is_empty() {
            structural.insert("nullable".to_owned(), true.into());
        }
        let all = |is: fn(&Schema) -> bool| some.iter().all(is);
        if let [one] = &some[..] {
            for (keyword, value) in self.rewritten(one) {
                structural.entry(keyword).or_insert(value);
            }
        } else if all(|choice| choice.get("const").is_some_and(Value::is_string)) {
            words(&some, structural);
        } else if all(|choice| choice.get("type") == Some(&json!("object"))) {
            self.unite(&some, structural);
        } else if all(|choice| {
            choice
                .get("type")
                .is_some_and(|kind| kind == "integer" || kind == "string")
        }) {
            structural.insert(INT_OR_STRING.to_owned(), true.into());
        }
    }

    /// One object that may be any of several: it has what each of them has. Where each is told by a key of its own, exactly one
    /// of these keys is given.
    fn unite(&self, choices: &[Schema], structural: &mut Schema) {
        let mut properties = Map::new();
        let mut keys = Vec::new();
        for choice in choices {
            let choice = self.rewritten(choice);
            if let Some(Value::Object(of_choice)) = choice.get("properties") {
                if let (1, Some(only)) = (of_choice.len(), of_choice.keys().next()) {
                    keys.push(only.clone());
                }
                properties.extend(of_choice.clone());
            }
        }
        structural.insert("type".to_owned(), "object".into());
        structural.insert("properties".to_owned(), properties.into());
        if keys.len() == choices.len() {
            let given: Vec<String> = keys.iter().map(|key| format!("has(self.{key})")).collect();
            let rule = match given.as_slice() {
                // Of the two ways to say it the one that costs less.
                [one, other] => format!("{one} != {other}"),
                given => format!("[{}].exists_one(given, given)", given.join(", ")),
            };
            let named: Vec<String> = keys.iter().map(|key| format!("`{key}`")).collect();
            let rule = json!({
                "rule": rule,
                "message": format!("give exactly one of {}", named.join(", ")),
            });
            add_rules(structural, [rule]);
        }
    }
}

/// An API server estimates what a rule costs by how much there may be, and takes no rule over what has no bound. No resource of
/// ours comes near these.
const MOST_ITEMS: u32 = 1_000;
const LONGEST: u32 = 32_768;

fn bound(structural: &mut Schema) {
    let keyword = match structural.get("type").and_then(Value::as_str) {
        Some("array") => ("maxItems", MOST_ITEMS),
        Some("object") if structural.contains_key("additionalProperties") => ("maxProperties", MOST_ITEMS),
        Some("string") if !structural.contains_key("enum") && !structural.contains_key("format") => {
            ("maxLength", LONGEST)
        }
        _ => return,
    };
    structural.entry(keyword.0).or_insert_with(|| keyword.1.into());
}

/// A value of any type.
const ANYTHING: &str = "x-kubernetes-preserve-unknown-fields";
/// A number or a text.
const INT_OR_STRING: &str = "x-kubernetes-int-or-string";

/// Adds rules in CEL.
pub(super) fn add_rules(schema: &mut Schema, rules: impl IntoIterator<Item = Value>) {
    let there = schema.entry("x-kubernetes-validations").or_insert_with(|| json!([]));
    if let Value::Array(there) = there {
        there.extend(rules);
    }
}

/// One of several words, each with its meaning, which `kubectl explain` shows in the description of the whole.
fn words(choices: &[Schema], structural: &mut Schema) {
    let words: Vec<&Value> = choices.iter().filter_map(|choice| choice.get("const")).collect();
    let meanings = choices.iter().filter_map(|choice| {
        let (word, meaning) = (choice.get("const")?.as_str()?, choice.get("description")?.as_str()?);
        Some(format!("{word}: {meaning}"))
    });
    let before = structural.get("description").and_then(Value::as_str).map(str::to_owned);
    let text: Vec<String> = before.into_iter().chain(meanings).collect();
    structural.insert("type".to_owned(), "string".into());
    structural.insert("enum".to_owned(), json!(words));
    structural.insert("description".to_owned(), text.join("\n").into());
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null | Value::Object(_) => "object",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
    }
}
