//! The languages that sources can be built from, and how each is.

mod go;
mod java;
mod node;
mod php;
mod python;
mod ruby;
mod rust;
mod site;

use std::fmt;
use std::str::FromStr;

use super::plan::{Plan, Sources};
use crate::image::{ImageError, Result};

/// How the sources become an image.
pub(super) fn plan(language: Language, sources: &Sources) -> Result<Plan> {
    match language {
        Language::Ruby => ruby::plan(sources, false),
        Language::Rails => ruby::plan(sources, true),
        Language::Node => node::plan(sources),
        Language::Python => python::plan(sources),
        Language::Go => go::plan(sources),
        Language::Php => php::plan(sources),
        Language::Java => java::plan(sources),
        Language::Rust => rust::plan(sources),
        Language::Static => site::plan(sources),
    }
}

/// A file of the sources is not what it should be.
fn wrong(sources: &Sources, file: &str, reason: impl fmt::Display) -> ImageError {
    ImageError::Build { name: sources.title(), reason: format!("{}: {reason}", sources.name(file)) }
}

/// What sources are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)] // the names say what they are
pub enum Language {
    Ruby,
    Rails,
    Node,
    Python,
    Go,
    Php,
    Java,
    Rust,
    Static,
}

/// A word that names no [`Language`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a supported language; there are {names}", names = Language::names())]
pub struct UnknownLanguage(pub String);

impl Language {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Ruby,
        Self::Rails,
        Self::Node,
        Self::Python,
        Self::Go,
        Self::Php,
        Self::Java,
        Self::Rust,
        Self::Static,
    ];

    /// The name by which it is written: `ruby`, `rails`, `node`, ….
    pub fn name(self) -> &'static str {
        match self {
            Self::Ruby => "ruby",
            Self::Rails => "rails",
            Self::Node => "node",
            Self::Python => "python",
            Self::Go => "go",
            Self::Php => "php",
            Self::Java => "java",
            Self::Rust => "rust",
            Self::Static => "static",
        }
    }

    fn names() -> String {
        Self::ALL.map(Self::name).join(", ")
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Language {
    type Err = UnknownLanguage;

    fn from_str(word: &str) -> Result<Self, UnknownLanguage> {
        Self::ALL.into_iter().find(|l| l.name() == word).ok_or_else(|| UnknownLanguage(word.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for language in Language::ALL {
            assert_eq!(language.to_string().parse(), Ok(language));
        }
        assert_eq!(
            "Perl".parse::<Language>().unwrap_err().to_string(),
            "`Perl` is not a supported language; there are ruby, rails, node, python, go, php, java, rust, static"
        );
    }
}
