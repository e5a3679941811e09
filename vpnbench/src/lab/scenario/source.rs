//! The text of a scenario and where its keys are, so that every complaint names file and line.

use std::fs;
use std::ops::Range;
use std::path::Path;

use serde::de::DeserializeOwned;
use toml::de::{DeTable, DeValue};

use super::embedded;
use super::error::{Place, ScenarioError};

/// A named text.
#[derive(Debug, Clone)]
pub struct Source {
    name: String,
    text: String,
}

impl Source {
    /// A text with the name that complaints give it.
    #[must_use]
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Source {
        Source {
            name: name.into(),
            text: text.into(),
        }
    }

    /// Reads a file; a bare name that is no file is looked up among the program's own scenarios.
    ///
    /// # Errors
    /// When there is neither.
    pub fn open(path: &Path) -> Result<Source, ScenarioError> {
        let name = path.display().to_string();
        let read = fs::read_to_string(path);
        match read {
            Ok(text) => Ok(Source { name, text }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let found = embedded::find(&name);
                let found = found.ok_or(ScenarioError::Unknown { name })?;
                Ok(Source::new(found.file_name(), found.text))
            }
            Err(source) => Err(ScenarioError::Unreadable {
                path: path.to_owned(),
                source,
            }),
        }
    }

    /// A scenario in which everything has its default.
    #[must_use]
    pub fn empty() -> Source {
        Source::new("command line", "name = \"command-line\"\n")
    }

    /// The text itself.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Reads the text as a `T`.
    ///
    /// # Errors
    /// With the place of the first key or value that does not fit.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, ScenarioError> {
        toml::from_str(&self.text).map_err(|error| {
            let message = error.message().trim().replace('\n', ", ");
            let span = error.span();
            let exact = span
                .clone()
                .and_then(|span| self.key_within(span, &message));
            ScenarioError::Invalid {
                place: self.place(exact.or(span)),
                message,
            }
        })
    }

    /// Sections that read their own keys complain about the section as a whole and begin with the
    /// key: "streams: unknown field". Then the key's own place is meant.
    fn key_within(&self, section: Range<usize>, message: &str) -> Option<Range<usize>> {
        let (key, _) = message.split_once(": ")?;
        let parsed = DeTable::parse(&self.text).ok()?;
        let sections = parsed.get_ref().iter();
        let mut around = sections.filter(|(_, value)| {
            let span = value.span();
            span.start <= section.start && section.start <= span.end
        });
        let (name, value) = around.next()?;
        let DeValue::Table(table) = value.get_ref() else {
            return None;
        };
        let has_it = table.keys().any(|inner| is_head(inner.get_ref(), key));
        has_it.then(|| find(&self.text, &format!("{}.{key}", name.get_ref())))?
    }

    /// Where a dotted key was given; the nearest table around it where it was not, since then a
    /// default is to blame.
    #[must_use]
    pub fn place_of(&self, key: &str) -> Place {
        self.place(find(&self.text, key))
    }

    fn place(&self, span: Option<Range<usize>>) -> Place {
        let position = span.map(|span| {
            let before = self.text.get(..span.start).unwrap_or(&self.text);
            let line = before.matches('\n').count() + 1;
            let start = before.rfind('\n').map_or(0, |at| at + 1);
            (line, before[start..].chars().count() + 1)
        });
        Place::File {
            name: self.name.clone(),
            position,
        }
    }
}

/// Bytes of the deepest part of a dotted key that the text has.
fn find(text: &str, key: &str) -> Option<Range<usize>> {
    let parsed = DeTable::parse(text).ok()?;
    let mut table: &DeTable<'_> = parsed.get_ref();
    let mut rest = key;
    let mut found = None;
    loop {
        let (name, value) = table
            .iter()
            .filter(|(name, _)| is_head(name.get_ref(), rest))
            // A quoted key may hold dots: the longest one that fits is meant.
            .max_by_key(|(name, _)| name.get_ref().len())?;
        found = Some(name.span()).or(found);
        rest = rest[name.get_ref().len()..].trim_start_matches('.');
        match value.get_ref() {
            DeValue::Table(inner) if !rest.is_empty() => {
                if !inner.keys().any(|name| is_head(name.get_ref(), rest)) {
                    return found;
                }
                table = inner;
            }
            _ => return found,
        }
    }
}

fn is_head(name: &str, key: &str) -> bool {
    let after = key.strip_prefix(name);
    after.is_some_and(|after| after.is_empty() || after.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_deepest_part_of_a_key() {
        let text = "[wire]\nunit = \"skb\"\n[sysctls]\n\"net.ipv4.tcp_sack\" = 1\n";
        let source = Source::new("x.toml", text);
        let at = |key| source.place_of(key).to_string();
        assert_eq!(at("wire.unit"), "x.toml:2:1");
        assert_eq!(
            at("wire.place"),
            "x.toml:1:2",
            "the section, as the key is not there"
        );
        assert_eq!(at("sysctls.net.ipv4.tcp_sack"), "x.toml:4:1");
        assert_eq!(at("vpn.name"), "x.toml");
    }
}
