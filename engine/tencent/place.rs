//! Where whole outputs go: this dialect names a bucket and folders in it by themselves, the engine
//! keeps them as one place.

use crate::command::settings::unfit_for_folders;
use crate::error::Violation;

use super::error::violation;

/// Longest URL of a bucket, in characters: with the folders it fits into what the engine keeps.
const BUCKET_CHARS_MAX: usize = 190;
/// Longest folders in it, in characters.
const PREFIX_CHARS_MAX: usize = 60;

pub(super) const PREFIX: &str = "OutputCOSKeyPrefix";
const BUCKET: &str = "OutputCOSBucketUrl";

/// What a request says of the place. A part that is given takes the place of the command's own; an
/// empty one takes that away.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Place {
    pub bucket: Option<String>,
    pub prefix: Option<String>,
}

impl Place {
    /// Checks the parts and takes off the slash that each may end in; nothing, if one is unfit.
    pub(super) fn new(
        bucket: Option<String>,
        prefix: Option<String>,
        found: &mut Vec<Violation>,
    ) -> Self {
        let before = found.len();
        let whole = |text: String| text.strip_suffix('/').map(str::to_owned).unwrap_or(text);
        if let Some(why) = bucket.as_deref().and_then(unfit_for_bucket) {
            found.push(violation("InvalidParameterValue.InvalidOutputCOSBucketUrl", BUCKET, why));
        }
        let (bucket, prefix) = (bucket.map(whole), prefix.map(whole));
        let why = prefix.as_deref().and_then(|prefix| unfit_for_folders(prefix, PREFIX_CHARS_MAX));
        if let Some(why) = why {
            found.push(violation("InvalidParameterValue.InvalidOutputCOSKeyPrefix", PREFIX, why));
        }
        if found.len() > before {
            // Nobody is told twice.
            return Self::default();
        }
        Self { bucket, prefix }
    }

    /// Whether nothing is said.
    pub(super) fn is_unsaid(&self) -> bool {
        self.bucket.is_none() && self.prefix.is_none()
    }

    /// The place that results where this was the place before: nowhere without a bucket. The error
    /// is what is wrong with folders that are in no bucket.
    pub(super) fn over(self, before: Option<&str>) -> Result<Option<String>, &'static str> {
        let (bucket, prefix) = split(before.unwrap_or_default());
        let names_folders = self.prefix.as_deref().is_some_and(|prefix| !prefix.is_empty());
        let (bucket, prefix) = (self.bucket.unwrap_or(bucket), self.prefix.unwrap_or(prefix));
        match (bucket.is_empty(), prefix.is_empty()) {
            (true, _) if names_folders => Err("these folders are in no bucket; give its URL too"),
            (true, _) => Ok(None),
            (false, true) => Ok(Some(bucket)),
            (false, false) => Ok(Some(format!("{bucket}/{prefix}"))),
        }
    }
}

/// The bucket and the folders of a place.
pub(super) fn split(place: &str) -> (String, String) {
    let host = place.find("://").map_or(0, |at| at + 3);
    match place[host..].split_once('/') {
        Some((bucket, prefix)) => (format!("{}{bucket}", &place[..host]), prefix.to_owned()),
        None => (place.to_owned(), String::new()),
    }
}

/// What is wrong with the URL of a bucket; an empty one is none.
fn unfit_for_bucket(url: &str) -> Option<String> {
    let chars = url.chars().count();
    if chars > BUCKET_CHARS_MAX {
        return Some(format!("want at most {BUCKET_CHARS_MAX} characters; it has {chars}"));
    }
    if url.is_empty() {
        return None;
    }
    let host = url.strip_prefix("https://").map(|host| host.strip_suffix('/').unwrap_or(host));
    let is_host = |host: &str| {
        !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || "-._:".contains(c))
    };
    if host.is_some_and(is_host) {
        return None;
    }
    Some("want `https://` and the host of a bucket; folders in it go into the prefix".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_checked() {
        let check = |bucket: &str, prefix: &str, want: &[&str]| {
            let mut found = Vec::new();
            Place::new(Some(bucket.to_owned()), Some(prefix.to_owned()), &mut found);
            let fields: Vec<_> = found.iter().map(|violation| violation.field).collect();
            assert_eq!(fields, want, "{bucket} {prefix}");
        };
        check("https://b-1.cos.ap-x.example.com", "a/b", &[]);
        check("https://b/", "a/", &[]);
        check("", "", &[]);
        check("http://b", "a", &[BUCKET]);
        check("https://", "a", &[BUCKET]);
        check("https://b/a", "", &[BUCKET]);
        check(&format!("https://{}", "b".repeat(182)), &"x".repeat(60), &[]);
        check(&format!("https://{}", "b".repeat(183)), &"x".repeat(61), &[BUCKET, PREFIX]);
        for prefix in ["/a", "a//b", "a/../b", "..", "a b", "ä"] {
            check("https://b", prefix, &[PREFIX]);
        }
    }

    #[test]
    fn parts_are_put_together_and_taken_apart() {
        let check = |before: Option<&str>, bucket: Option<&str>, prefix: Option<&str>, want| {
            let place =
                Place { bucket: bucket.map(str::to_owned), prefix: prefix.map(str::to_owned) };
            let whole = place.over(before).map_err(|_| ());
            assert_eq!(whole, want, "{before:?} {bucket:?} {prefix:?}");
        };
        let at = |place: &str| Ok(Some(place.to_owned()));
        check(None, None, None, Ok(None));
        check(None, Some("https://b"), None, at("https://b"));
        check(None, Some("https://b"), Some("x/y"), at("https://b/x/y"));
        check(None, None, Some("x"), Err(()));
        check(Some("https://b/x"), None, Some("y"), at("https://b/y"));
        check(Some("https://b/x"), Some("https://c"), None, at("https://c/x"));
        check(Some("https://b/x"), Some(""), None, Ok(None));
        check(Some("https://b/x"), None, Some(""), at("https://b"));
        let parts = |bucket: &str, prefix: &str| (bucket.to_owned(), prefix.to_owned());
        assert_eq!(split("https://b/x/y"), parts("https://b", "x/y"));
        assert_eq!(split("oss://b"), parts("oss://b", ""));
        assert_eq!(split(""), parts("", ""));
    }
}
