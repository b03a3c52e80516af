//! Where in a YAML text a value or key stands.

use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error as _, IgnoredAny, MapAccess, SeqAccess,
    Visitor,
};

use super::place::Step;

/// Returns line and column, both from 1, of the value at `path` of `text`, or of its key with
/// `at_key`. Merge keys are keys like others here.
pub(super) fn position(text: &str, path: &[Step], at_key: bool) -> Option<(usize, usize)> {
    let locate = Locate { path, at_key };
    let found = locate.deserialize(serde_yaml::Deserializer::from_str(text)).err()?;
    found.location().map(|location| (location.line(), location.column()))
}

/// Walks along `path` and fails on the node at its end: the YAML crate tells positions in errors alone.
#[derive(Clone, Copy)]
struct Locate<'p> {
    path: &'p [Step],
    at_key: bool,
}

impl<'p> Locate<'p> {
    fn here<E: serde::de::Error>(self) -> Result<(), E> {
        if self.path.is_empty() { Err(E::custom("here")) } else { Ok(()) }
    }

    fn rest(self) -> Locate<'p> {
        Locate { path: &self.path[1..], at_key: self.at_key }
    }
}

impl<'de> DeserializeSeed<'de> for Locate<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Locate<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.here()
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<(), E> {
        self.here()
    }

    fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<(), E> {
        self.here()
    }

    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<(), E> {
        self.here()
    }

    fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<(), E> {
        self.here()
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<(), E> {
        self.here()
    }

    fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<(), E> {
        self.here()
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<(), A::Error> {
        self.here()?;
        let mut index = 0;
        loop {
            let wanted = self.path.first() == Some(&Step::Index(index));
            let more = if wanted {
                sequence.next_element_seed(self.rest())?
            } else {
                sequence.next_element::<IgnoredAny>()?.map(|_| ())
            };
            if more.is_none() {
                return Ok(());
            }
            index += 1;
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut mapping: A) -> Result<(), A::Error> {
        self.here()?;
        let stop = self.at_key && self.path.len() == 1;
        while let Some(wanted) = mapping.next_key_seed(IsKey { step: &self.path[0], stop })? {
            if wanted {
                mapping.next_value_seed(self.rest())?;
            } else {
                mapping.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }

    fn visit_enum<A: EnumAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        Err(A::Error::custom("here"))
    }
}

/// Compares a key; fails on it when it is the wanted one and `stop` says so.
struct IsKey<'p> {
    step: &'p Step,
    stop: bool,
}

impl<'de> DeserializeSeed<'de> for IsKey<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for IsKey<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<bool, E> {
        let wanted = matches!(self.step, Step::Key(wanted) if wanted == key);
        if wanted && self.stop { Err(E::custom("here")) } else { Ok(wanted) }
    }
}
