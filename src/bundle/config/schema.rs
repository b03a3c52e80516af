//! The JSON Schema of `lakeforge.yml`, by which editors complete and check it.

/// The schema, draft 2020-12. It refuses nothing that the program takes, but for a key without a value.
pub(crate) const SCHEMA: &str = include_str!("../../../templates/lakeforge.schema.json");

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};

    use regex::Regex;
    use serde_json::Value;

    use super::super::{Config, keys};
    use super::SCHEMA;
    use crate::bundle::node::Node;
    use crate::bundle::yaml::Document;

    fn schema() -> Value {
        serde_json::from_str(SCHEMA).unwrap()
    }

    /// Returns whether `value` is as `schema` says; knows the keywords that the file uses and no other.
    fn holds(root: &Value, schema: &Value, value: &Value) -> bool {
        let below = |schema: &Value, value: &Value| holds(root, schema, value);
        schema.as_object().unwrap().iter().all(|(keyword, says)| match keyword.as_str() {
            "$schema" | "$defs" | "title" | "description" | "format" => true,
            "$ref" => {
                let pointer = says.as_str().unwrap().strip_prefix('#').unwrap();
                below(root.pointer(pointer).unwrap(), value)
            }
            "type" => match says {
                Value::Array(types) => types.iter().any(|one| is_a(one, value)),
                one => is_a(one, value),
            },
            "enum" => says.as_array().unwrap().contains(value),
            "const" => says == value,
            "anyOf" => says.as_array().unwrap().iter().any(|one| below(one, value)),
            "allOf" => says.as_array().unwrap().iter().all(|one| below(one, value)),
            "not" => !below(says, value),
            "pattern" => {
                let pattern = Regex::new(says.as_str().unwrap()).unwrap();
                value.as_str().is_none_or(|text| pattern.is_match(text))
            }
            "maxLength" => value
                .as_str()
                .is_none_or(|text| text.chars().count() as u64 <= says.as_u64().unwrap()),
            "minimum" => value.as_f64().is_none_or(|number| number >= says.as_f64().unwrap()),
            "maximum" => value.as_f64().is_none_or(|number| number <= says.as_f64().unwrap()),
            "items" => value.as_array().is_none_or(|all| all.iter().all(|one| below(says, one))),
            "uniqueItems" => value.as_array().is_none_or(|all| {
                all.iter().map(Value::to_string).collect::<BTreeSet<_>>().len() == all.len()
            }),
            "required" => value.as_object().is_none_or(|map| {
                says.as_array().unwrap().iter().all(|key| map.contains_key(key.as_str().unwrap()))
            }),
            "properties" => value.as_object().is_none_or(|map| {
                let known = says.as_object().unwrap();
                map.iter().all(|(key, one)| known.get(key).is_none_or(|says| below(says, one)))
            }),
            "propertyNames" => value
                .as_object()
                .is_none_or(|map| map.keys().all(|key| below(says, &Value::from(key.as_str())))),
            "additionalProperties" => value.as_object().is_none_or(|map| {
                let known = schema.get("properties").and_then(Value::as_object);
                map.iter()
                    .filter(|(key, _)| known.is_none_or(|known| !known.contains_key(*key)))
                    .all(|(_, one)| says.as_bool().unwrap_or_else(|| below(says, one)))
            }),
            other => panic!("the keyword `{other}` is not looked at"),
        })
    }

    fn is_a(kind: &Value, value: &Value) -> bool {
        match kind.as_str().unwrap() {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "number" => value.is_number(),
            "integer" => value.is_u64() || value.is_i64(),
            "boolean" => value.is_boolean(),
            "null" => value.is_null(),
            other => panic!("there is no type `{other}`"),
        }
    }

    /// Returns whether the program takes the text, and whether the schema does.
    fn verdicts(text: &str) -> (bool, bool) {
        let document =
            Document::parse("lakeforge.yml", PathBuf::from("/repo"), text.to_owned()).unwrap();
        let schema = schema();
        (Config::read(&Node::root(&document)).is_ok(), holds(&schema, &schema, document.value()))
    }

    #[test]
    fn every_key_is_in_the_schema_and_no_other() {
        let schema = schema();
        let known = [
            ("file", keys::FILE),
            ("project", keys::PROJECT),
            ("branch", keys::BRANCH),
            ("endpoint", keys::ENDPOINT),
            ("role", keys::ROLE),
            ("database", keys::DATABASE),
            ("branch_policy", keys::BRANCH_POLICY),
            ("app", keys::APP),
            ("expect", keys::EXPECT),
            ("migrate", keys::MIGRATE),
            ("gc", keys::GC),
        ];
        for (name, keys) in known {
            let definition = &schema["$defs"][name];
            let properties = definition["properties"].as_object().unwrap();
            let described: BTreeSet<&str> = properties.keys().map(String::as_str).collect();
            assert_eq!(described, keys.iter().copied().collect(), "{name}");
            assert_eq!(definition["additionalProperties"], false, "{name}");
        }
        let with_properties = schema["$defs"].as_object().unwrap().iter();
        let count = with_properties.filter(|(_, one)| one.get("properties").is_some()).count();
        assert_eq!(count, known.len());
    }

    #[test]
    fn the_examples_are_as_the_schema_says() {
        for example in ["clinic", "single"] {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(example);
            let text = std::fs::read_to_string(folder.join("lakeforge.yml")).unwrap();
            assert_eq!(verdicts(&text), (true, true), "{example}");
        }
    }

    #[test]
    fn program_and_schema_take_and_refuse_the_same() {
        for text in [
            "",
            "projects: [a, b-1]",
            "projects: {a: , b: {branches: [dev], endpoints: [reports], pg_version: 16}}",
            "projects: {a: {prevent_destroy: false}}",
            "projects: {a: {roles: [reader], databases: {orders: {owner: reader, name: o_1}}}}",
            "projects: {a: {branches: {dev: {roles: {team: {identity: group, name: Team A}}}}}}",
            "projects: {a: {roles: {tool: {login: password, createdb: true, superuser: false}}}}",
            "projects: {a: {retention: 14d, min_cu: 0.5, max_cu: 8, suspend_after: 1h30m}}",
            "projects: {a: {display_name: A shop, branches: {dev: , x: {source: dev, ttl: 7 days}}}}",
            "projects: {a: {branches: {x: {expires_at: '2027-01-02T03:04:05Z', protected: true}}}}",
            "projects: {a: {branches: {x: {no_expiry: true, endpoints: {r: {type: read_only}}}}}}",
            "branch: {ttl: PT1H}",
            "apps: [web]\npreviews: [preview]",
            "apps: {web: {health: /up, expect: {status: 204, body: [1]}, migrate: {command: x}}}",
            "apps: {web: {migrate: {command: x, directory: .., project: shop}}}",
            "gc: {prefix: pr-, grace: 24h, protected_names: [dev]}\ntemplates: mine\nout: a.yml",
        ] {
            assert_eq!(verdicts(text), (true, true), "{text}");
        }
        for text in [
            "[]",
            "project: [a]",
            "projects: [A]",
            "projects: [a-]",
            "projects: {a: {branches: [dev, dev]}}",
            "projects: {A: }",
            "projects: {a: {branchs: [dev]}}",
            "projects: {a: {min_cu: 0.25}}",
            "projects: {a: {max_cu: 65}}",
            "projects: {a: {pg_version: 16.5}}",
            "projects: {a: {branches: {b: {ttl: 1d, no_expiry: true}}}}",
            "projects: {a: {branches: {b: {no_expiry: false}}}}",
            "projects: {a: {branches: {b: {protected: maybe}}}}",
            "projects: {a: {endpoints: {r: {type: writer}}}}",
            "projects: {a: {roles: [abc]}}",
            "projects: {a: {roles: {team: {identity: group}}}}",
            "projects: {a: {roles: {team: {login: maybe}}}}",
            "projects: {a: {databases: [orders]}}",
            "projects: {a: {databases: {orders: {owner: A}}}}",
            "branch: {ttl: 7}",
            "branch: {ttl: soon}",
            "apps: {a: {health: x}}",
            "apps: {a: {expect: {status: 1000}}}",
            "apps: {a: {migrate: {directory: x}}}",
            "gc: [x]",
            "gc: {protected_names: dev}",
            "templates: ' '",
            "previews: preview",
        ] {
            assert_eq!(verdicts(text), (false, false), "{text}");
        }
    }
}
