//! Tags: a key and a value on a command, an invocation or an instance.

use serde::{Deserialize, Serialize};

use crate::error::Violation;
use crate::limits::Limits;

/// A tag. Requests write it as `Key` and `Value`, responses as `TagKey` and `TagValue`; both are read.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
pub struct Tag {
    /// 1 to 64 characters, neither starting with `acs:` or `aliyun` nor with a URL in it.
    #[serde(alias = "TagKey")]
    pub key: String,
    /// At most 128 characters, without a URL in it. May be empty.
    #[serde(alias = "TagValue")]
    pub value: String,
}

impl Tag {
    /// A tag of this key and value.
    pub fn new(key: impl Into<String>, value: impl Into<String>) -> Self {
        Self { key: key.into(), value: value.into() }
    }
}

impl<K: Into<String>, V: Into<String>> From<(K, V)> for Tag {
    fn from((key, value): (K, V)) -> Self {
        Self::new(key, value)
    }
}

/// The use of a request's tags; each use has its own codes and limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TagUse {
    /// The tags are put on the records that the request makes, or select records that have them.
    Tag,
    /// They select the instances to run on.
    ResourceTag,
    /// They are put on an instance.
    Instance,
}

impl TagUse {
    /// The codes of: too many, an empty key, a malformed key, a malformed value, a key given twice.
    const fn codes(self) -> [&'static str; 5] {
        match self {
            Self::Tag | Self::Instance => [
                "NumberExceed.Tags",
                "MissingParameter.TagKey",
                "InvalidTagKey.Malformed",
                "InvalidTagValue.Malformed",
                "Duplicate.TagKey",
            ],
            Self::ResourceTag => [
                "NumberExceed.ResourceTags",
                "MissingParameter.ResourceTagKey",
                "InvalidResourceTagKey.Malformed",
                "InvalidResourceTagValue.Malformed",
                "Duplicate.ResourceTagKey",
            ],
        }
    }

    const fn field(self) -> &'static str {
        match self {
            Self::Tag | Self::Instance => "Tag",
            Self::ResourceTag => "ResourceTag",
        }
    }

    const fn max(self, limits: &Limits) -> usize {
        match self {
            Self::Tag => limits.tags_max,
            Self::ResourceTag => limits.resource_tags_max,
            // Nobody has more to say of a machine.
            Self::Instance => 1_000,
        }
    }
}

/// Checks the tags of a request.
pub(crate) fn check(tags: &[Tag], tag_use: TagUse, limits: &Limits, found: &mut Vec<Violation>) {
    let [too_many, no_key, bad_key, bad_value, twice] = tag_use.codes();
    let mut refuse =
        |code, message: String| found.push(Violation::new(code, 400, tag_use.field(), message));
    let (max, given) = (tag_use.max(limits), tags.len());
    if given > max {
        return refuse(too_many, format!("want at most {max}; it has {given}"));
    }
    for (n, tag) in tags.iter().enumerate() {
        let number = n + 1;
        if tag.key.is_empty() {
            refuse(no_key, format!("number {number} has no key"));
        } else if let Some(why) = malformed(&tag.key, limits.tag_key_chars_max) {
            refuse(bad_key, format!("the key of number {number} {why}"));
        } else if let Some(prefix) = ["acs:", "aliyun"].iter().find(|p| tag.key.starts_with(**p)) {
            refuse(
                bad_key,
                format!("the key of number {number} starts with `{prefix}`, which is reserved"),
            );
        }
        if let Some(why) = malformed(&tag.value, limits.tag_value_chars_max) {
            refuse(bad_value, format!("the value of number {number} {why}"));
        }
        if tags[..n].iter().any(|before| before.key == tag.key && !tag.key.is_empty()) {
            refuse(twice, format!("`{}` is given twice", tag.key));
        }
    }
}

/// Returns the faults of tags that select records.
pub(crate) fn violations(tags: &[Tag], limits: &Limits) -> Vec<Violation> {
    let mut found = Vec::new();
    check(tags, TagUse::Tag, limits, &mut found);
    found
}

/// Returns the fault of a key or a value.
fn malformed(text: &str, chars_max: usize) -> Option<String> {
    let chars = text.chars().count();
    if chars > chars_max {
        return Some(format!("has {chars} characters; want at most {chars_max}"));
    }
    let has = |what: &str| text.contains(what);
    (has("http://") || has("https://")).then(|| "has a URL in it".to_owned())
}

/// For `#[serde(with)]`: the tags of a response, as in `"Tags": {"Tag": [{"TagKey": …}]}`.
pub(crate) mod response {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Tag;

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Entry {
        tag_key: String,
        tag_value: String,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Wrapped {
        tag: Vec<Entry>,
    }

    pub(crate) fn serialize<S: Serializer>(tags: &[Tag], serializer: S) -> Result<S::Ok, S::Error> {
        let entry = |tag: &Tag| Entry { tag_key: tag.key.clone(), tag_value: tag.value.clone() };
        Wrapped { tag: tags.iter().map(entry).collect() }.serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<Tag>, D::Error> {
        let entries = Wrapped::deserialize(d)?.tag.into_iter();
        Ok(entries.map(|entry| Tag { key: entry.tag_key, value: entry.tag_value }).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_checked_at_their_edges() {
        let check = |tags: Vec<(String, String)>, want: &[&str]| {
            let tags: Vec<Tag> = tags.into_iter().map(Tag::from).collect();
            for (tag_use, with) in [(TagUse::Tag, "Tag"), (TagUse::ResourceTag, "ResourceTag")] {
                let mut found = Vec::new();
                super::check(&tags, tag_use, &Limits::alibaba(), &mut found);
                let codes: Vec<_> = found.iter().map(|violation| violation.code).collect();
                let want: Vec<_> = want.iter().map(|code| code.replace("Tag", with)).collect();
                assert_eq!(codes, want, "{tags:?}");
            }
        };
        let one = |key: &str, value: &str| vec![(key.to_owned(), value.to_owned())];
        check(one("key", ""), &[]);
        check(one(&"k".repeat(64), &"ä".repeat(128)), &[]);
        check(one(&"k".repeat(65), ""), &["InvalidTagKey.Malformed"]);
        check(one("key", &"v".repeat(129)), &["InvalidTagValue.Malformed"]);
        check(one("", "value"), &["MissingParameter.TagKey"]);
        check(one("acs:key", ""), &["InvalidTagKey.Malformed"]);
        check(one("aliyunkey", ""), &["InvalidTagKey.Malformed"]);
        check(
            one("see https://x", "http://y"),
            &["InvalidTagKey.Malformed", "InvalidTagValue.Malformed"],
        );
        let twice = [one("key", "1"), one("key", "2")].concat();
        check(twice, &["Duplicate.TagKey"]);
        let many = |count| (0..count).map(|n| (format!("k{n}"), String::new())).collect::<Vec<_>>();
        check(many(10), &[]);
        let codes = |tag_use| {
            let mut found = Vec::new();
            let tags: Vec<Tag> = many(21).into_iter().map(Tag::from).collect();
            super::check(&tags, tag_use, &Limits::alibaba(), &mut found);
            found.iter().map(|violation| violation.code).collect::<Vec<_>>()
        };
        assert_eq!(codes(TagUse::Tag), ["NumberExceed.Tags"]);
        assert_eq!(codes(TagUse::ResourceTag), ["NumberExceed.ResourceTags"]);
    }

    #[test]
    fn both_spellings_are_read() {
        for json in [r#"{"Key":"k","Value":"v"}"#, r#"{"TagKey":"k","TagValue":"v"}"#] {
            assert_eq!(serde_json::from_str::<Tag>(json).expect(json), Tag::new("k", "v"));
        }
    }
}
