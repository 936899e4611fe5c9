//! Words of executors, hosts and sinks that go into a record, within a bound.

use std::borrow::Cow;

/// The longest remark that a record keeps, in bytes.
const BYTES_MAX: usize = 4 << 10;
/// Bytes kept for the note on how much is left out.
const NOTE_BYTES: usize = 64;
/// Bytes of a remark that are left for the deed if the rest is its reason.
const DEED_BYTES: usize = 512;
/// Bytes from the beginning of a longer text. There are fewer than from the end, because the end
/// mostly says more.
const HEAD_BYTES: usize = 1 << 10;

/// The words of a record: all of a short text, the beginning and the end of a longer text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Remark {
    /// The whole text, or its beginning if something is left out.
    head: String,
    tail: String,
    bytes_left_out: usize,
}

impl Remark {
    pub(crate) fn is_empty(&self) -> bool {
        self.head.is_empty()
    }

    /// Returns a reason that fits into a remark as a part of it.
    pub(crate) fn reason(text: &str) -> Self {
        let mut reason = Self::default();
        reason.push(text, BYTES_MAX - DEED_BYTES);
        reason
    }

    /// Adds words to the end.
    pub(crate) fn push_str(&mut self, text: &str) {
        self.push(text, BYTES_MAX);
    }

    fn push(&mut self, text: &str, bytes_max: usize) {
        if self.bytes_left_out > 0 {
            self.tail.push_str(text);
        } else {
            self.head.push_str(text);
            if self.head.len() <= bytes_max {
                return;
            }
            self.tail = self.head.split_off(start_of_char(&self.head, HEAD_BYTES));
            self.head.shrink_to_fit();
        }
        let tail_from = self.tail.len().saturating_sub(bytes_max - NOTE_BYTES - HEAD_BYTES);
        let tail_from = (tail_from..).find(|at| self.tail.is_char_boundary(*at));
        let tail = self.tail.split_off(tail_from.unwrap_or_default());
        self.bytes_left_out += self.tail.len();
        self.tail = tail;
    }

    /// Returns the words for the record, with a note where something is left out.
    pub(crate) fn text(&self) -> Cow<'_, str> {
        match self.bytes_left_out {
            0 => Cow::Borrowed(&self.head),
            bytes => Cow::Owned(format!("{} … {bytes} bytes left out … {}", self.head, self.tail)),
        }
    }
}

/// Returns the start of the character to which the byte at `at` belongs.
fn start_of_char(text: &str, at: usize) -> usize {
    (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default()
}

impl From<String> for Remark {
    fn from(text: String) -> Self {
        let mut remark = Self { head: text, ..Self::default() };
        remark.push_str("");
        remark
    }
}

impl From<&str> for Remark {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_keeps_its_ends_and_says_how_much_is_left_out() {
        let check = |texts: &[&str]| {
            let mut remark = Remark::default();
            texts.iter().for_each(|text| remark.push_str(text));
            let (whole, kept) = (texts.concat(), remark.text().into_owned());
            if whole.len() <= BYTES_MAX {
                assert_eq!(kept, whole);
                return;
            }
            assert!(kept.len() <= BYTES_MAX, "{} bytes", kept.len());
            assert!(kept.len() > BYTES_MAX - NOTE_BYTES - 8, "{} bytes", kept.len());
            let parts: Vec<_> = kept.split(" … ").collect();
            let [head, note, tail] = *parts else { panic!("{kept}") };
            assert!(whole.starts_with(head) && whole.ends_with(tail), "{kept}");
            let left_out = whole.len() - head.len() - tail.len();
            assert_eq!(note, format!("{left_out} bytes left out"));
        };
        check(&["", "exit code 1"]);
        check(&[&"x".repeat(BYTES_MAX)]);
        check(&[&"x".repeat(BYTES_MAX + 1)]);
        check(&[&"x".repeat(BYTES_MAX), "; and", "; more"]);
        for before in 0..4 {
            check(&[&"x".repeat(before), &"ü😀".repeat(3_000)]);
            check(&[&"ü😀".repeat(3_000), &"x".repeat(before)]);
        }
        check(&[&"a".repeat(8 << 20), &"b".repeat(5_000), "; c"]);
        // A reason that was cut is not cut again when its deed is added.
        let reason = Remark::reason(&"z".repeat(8 << 20)).text().into_owned();
        assert!(reason.ends_with("zzz"), "{reason}");
        let deed = "d".repeat(BYTES_MAX - reason.len());
        assert_eq!(Remark::from(deed.clone() + &reason).text(), deed + &reason);
    }
}
