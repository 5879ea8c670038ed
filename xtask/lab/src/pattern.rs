//! Patterns in which `*` matches any text, `/` included.

use globset::{Glob, GlobMatcher};

#[derive(Clone, Debug)]
pub(crate) struct Pattern(GlobMatcher);

impl Pattern {
    pub fn new(text: &str) -> Self {
        Self(Glob::new(text).unwrap_or_else(|error| panic!("{error}")).compile_matcher())
    }

    pub fn is_match(&self, text: &str) -> bool {
        self.0.is_match(text)
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Patterns(Vec<Pattern>);

impl Patterns {
    pub fn add(&mut self, text: &str) {
        self.0.push(Pattern::new(text));
    }

    pub fn match_any(&self, text: &str) -> bool {
        self.0.iter().any(|pattern| pattern.is_match(text))
    }
}
