//! A place in a text that is being read, and the tidy form of what has been read so far.

use std::borrow::Cow;

use super::error::ParseError;

/// Reads one stretch of a text from left to right and writes its canonical spelling.
pub(super) struct Cursor<'a> {
    text: &'a str,
    at: usize,
    end: usize,
    canonical: &'a mut String,
}

impl<'a> Cursor<'a> {
    /// A cursor over the bytes `start..end` of `text`, which must be character boundaries.
    pub(super) fn new(
        text: &'a str,
        (start, end): (usize, usize),
        canonical: &'a mut String,
    ) -> Self {
        Cursor { text, at: start, end, canonical }
    }

    /// What has not been read yet.
    pub(super) fn rest(&self) -> &'a str {
        &self.text[self.at..self.end]
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn is_done(&self) -> bool {
        self.at == self.end
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.rest().bytes().next()
    }

    /// Reads `symbol`, in either case, if it comes next.
    pub(super) fn eat(&mut self, symbol: u8) -> bool {
        let is_next = self.peek().is_some_and(|byte| byte.eq_ignore_ascii_case(&symbol));
        if is_next {
            self.at += 1;
            self.canonical.push(symbol.into());
        }
        is_next
    }

    /// Reads blanks and tabs; the canonical spelling has one blank for them if `keep`.
    pub(super) fn eat_blanks(&mut self, keep: bool) -> bool {
        let start = self.at;
        while matches!(self.peek(), Some(b' ' | b'\t')) {
            self.at += 1;
        }
        let any = self.at > start;
        if any && keep {
            self.canonical.push(' ');
        }
        any
    }

    /// The digits that come next, unread.
    pub(super) fn digits(&self) -> &'a str {
        self.run(|byte| byte.is_ascii_digit())
    }

    /// The letters that come next, unread.
    pub(super) fn letters(&self) -> &'a str {
        self.run(|byte| byte.is_ascii_alphabetic())
    }

    /// Passes over text that is spelled `canonically`.
    pub(super) fn read(&mut self, text: &str, canonically: &str) {
        self.at += text.len();
        self.canonical.push_str(canonically);
    }

    /// An error at this place.
    pub(super) fn error(&self, expected: impl Into<Cow<'static, str>>) -> ParseError {
        ParseError::new(self.at, expected, self.rest())
    }

    fn run(&self, of: impl Fn(&u8) -> bool) -> &'a str {
        let rest = self.rest();
        let length = rest.as_bytes().iter().take_while(|byte| of(byte)).count();
        &rest[..length]
    }
}
