//! Rate control: how many executions of an invocation run at a time, how many may fail before the
//! rest is called off, in which waves they start, and until when.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::error::Violation;
use crate::given::{Given, unknown};
use crate::limits::COUNT_MAX;

/// A number of targets, or a percentage of all of them: `10` or `10%`.
///
/// # One instance first, then a tenth of them, then the rest
///
/// ```
/// use adjutant::{RunCommand, Share};
///
/// let waves = [Share::from(1), Share::percent(10)];
/// let request = RunCommand::shell("update.sh").on_tagged([("role", "web")]).waves(waves);
/// assert_eq!(serde_json::to_value(&request)?["Waves"], serde_json::json!(["1", "10%"]));
/// assert_eq!("10%".parse::<Share>().map(|share| share.of(25)), Ok(2));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Share(Amount);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Amount {
    Count(u64),
    Percent(u8),
}

use Amount::{Count, Percent};

/// All of the targets, as a percentage.
const ALL: u8 = 100;

impl Share {
    /// A percentage of all targets. Requests with more than 100 are refused.
    pub const fn percent(percent: u8) -> Self {
        Self(Percent(percent))
    }

    /// How many it is of so many targets: a number is what it is, even if it is more than all of
    /// them; a percentage is rounded down, and may come to none.
    pub fn of(self, total: u64) -> u64 {
        match self.0 {
            Count(count) => count,
            Percent(percent) => {
                let (percent, all) = (u64::from(percent.min(ALL)), u64::from(ALL));
                total / all * percent + total % all * percent / all
            }
        }
    }

    /// Whether it is a number from `least` on, or a percentage from there to all.
    fn is_at_least(self, least: u8) -> bool {
        match self.0 {
            Count(count) => count >= least.into(),
            Percent(percent) => (least..=ALL).contains(&percent),
        }
    }

    /// Whether it is less than another one of however many targets.
    fn is_less_than(self, other: Self) -> bool {
        match (self.0, other.0) {
            (Count(this), Count(other)) => this < other,
            (Percent(this), Percent(other)) => this < other,
            _ => false,
        }
    }
}

impl From<u64> for Share {
    fn from(count: u64) -> Self {
        Self(Count(count))
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Count(count) => f.pad(&count.to_string()),
            Percent(percent) => f.pad(&format!("{percent}%")),
        }
    }
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let amount = match text.strip_suffix('%') {
            None => text.parse().ok().map(Count),
            Some(percent) => percent.parse().ok().filter(|it| *it <= ALL).map(Percent),
        };
        amount.map(Self).ok_or_else(|| {
            "want a number, or a percentage up to 100%, such as 10 or 10%".to_owned()
        })
    }
}

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Of text, or of a number that counts.
impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Given::deserialize(deserializer)? {
            Given::Known(share) => Ok(share),
            Given::Unknown(text) => text.parse().map_err(de::Error::custom),
        }
    }
}

/// How the executions of an invocation are let loose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct RateControl {
    /// How many executions run at a time, whichever fires they belong to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_concurrency: Option<Share>,
    /// If more executions of a fire than these end without success, those that wait are cancelled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_errors: Option<Share>,
    /// How many targets of a fire have started by the end of each wave. What is beyond the last one is
    /// a wave more; one that comes to fewer than the one before it adds none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub waves: Vec<Share>,
    /// Seconds from the end of a wave to the next one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wave_soak: Option<u64>,
    /// 0 to 9; what has more of it comes first.
    pub priority: u8,
    /// All executions with the same key share a bound that the host sets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency_key: Option<String>,
    /// Seconds from when an execution was due; it does not start later. At most the `deadline`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_deadline: Option<u64>,
    /// Seconds from when a fire was due; all of it has ended by then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<u64>,
}

/// The priority of a request that states none: there is room for others on both sides.
pub(crate) const PRIORITY: u8 = 5;
pub(crate) const PRIORITY_MAX: u8 = 9;
/// A wave a target, of as many as a request may have by default.
const WAVES_MAX: usize = 100;
const KEY_CHARS_MAX: usize = 64;
/// Time for somebody to look at a wave, over a weekend and holidays.
const WAVE_SOAK_S_MAX: u64 = 7 * 24 * 3600;
const DEADLINE_S_MAX: u64 = 30 * 24 * 3600;

pub(super) fn usual_priority() -> u8 {
    PRIORITY
}

pub(super) fn is_usual(priority: &u8) -> bool {
    *priority == PRIORITY
}

impl Default for RateControl {
    fn default() -> Self {
        Self {
            max_concurrency: None,
            max_errors: None,
            waves: Vec::new(),
            wave_soak: None,
            priority: PRIORITY,
            concurrency_key: None,
            start_deadline: None,
            deadline: None,
        }
    }
}

impl RateControl {
    /// Whether it is that of a request that says nothing of it.
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Whether something is to happen when a time is over.
    pub(crate) fn is_timed(&self) -> bool {
        self.start_deadline.is_some() || self.deadline.is_some()
    }
}

/// The fields of a request that say how its executions are let loose.
#[derive(Debug)]
pub(super) struct RateFields<'a> {
    pub max_concurrency: Option<&'a Given<Share>>,
    pub max_errors: Option<&'a Given<Share>>,
    pub waves: &'a [Given<Share>],
    pub wave_soak: Option<u64>,
    pub priority: Option<u64>,
    pub concurrency_key: Option<&'a str>,
    pub start_deadline: Option<u64>,
    pub deadline: Option<u64>,
}

impl RateFields<'_> {
    /// What they come to, as far as they are sound.
    pub(super) fn check(&self, found: &mut Vec<Violation>) -> RateControl {
        let code = "InvalidParameter.MaxConcurrency";
        let concurrency = ShareRule { code, field: "MaxConcurrency", least: 1 };
        let errors = ShareRule { code: "InvalidParameter.MaxErrors", field: "MaxErrors", least: 0 };
        RateControl {
            max_concurrency: self.max_concurrency.and_then(|given| concurrency.check(given, found)),
            max_errors: self.max_errors.and_then(|given| errors.check(given, found)),
            waves: self.check_waves(found),
            wave_soak: self.check_wave_soak(found),
            priority: self.check_priority(found),
            concurrency_key: self.check_key(found),
            start_deadline: self.check_start_deadline(found),
            deadline: {
                let code = "InvalidParameter.Deadline";
                seconds(self.deadline, 1..=DEADLINE_S_MAX, code, "Deadline", found)
            },
        }
    }

    fn check_waves(&self, found: &mut Vec<Violation>) -> Vec<Share> {
        const CODE: &str = "InvalidParameter.Waves";
        const FIELD: &str = "Waves";
        let count = self.waves.len();
        if count > WAVES_MAX {
            let message = format!("want at most {WAVES_MAX} waves; it has {count}");
            found.push(Violation::new(CODE, 400, FIELD, message));
            return Vec::new();
        }
        let rule = ShareRule { code: CODE, field: FIELD, least: 1 };
        let waves: Vec<_> =
            self.waves.iter().filter_map(|given| rule.check(given, found)).collect();
        let shrinks = waves.iter().enumerate().find_map(|(place, wave)| {
            let larger = waves[..place].iter().find(|before| wave.is_less_than(**before))?;
            Some((larger, wave))
        });
        if let Some((larger, wave)) = shrinks {
            let message = format!(
                "each wave counts those before it too; want none smaller than one before it, {wave} comes after {larger}"
            );
            found.push(Violation::new(CODE, 400, FIELD, message));
        }
        waves
    }

    fn check_wave_soak(&self, found: &mut Vec<Violation>) -> Option<u64> {
        const CODE: &str = "InvalidParameter.WaveSoak";
        const FIELD: &str = "WaveSoak";
        if self.wave_soak.is_some() && self.waves.is_empty() {
            let message = "goes with Waves only; leave it out or give some";
            found.push(Violation::new(CODE, 400, FIELD, message));
        }
        seconds(self.wave_soak, 0..=WAVE_SOAK_S_MAX, CODE, FIELD, found)
    }

    fn check_start_deadline(&self, found: &mut Vec<Violation>) -> Option<u64> {
        const CODE: &str = "InvalidParameter.StartDeadline";
        const FIELD: &str = "StartDeadline";
        let start = seconds(self.start_deadline, 1..=DEADLINE_S_MAX, CODE, FIELD, found)?;
        // Of a Deadline that is none itself nothing follows.
        if let Some(end) = self.deadline.filter(|end| (1..start).contains(end)) {
            let message = format!("want at most the Deadline, {end} seconds; it is {start}");
            found.push(Violation::new(CODE, 400, FIELD, message));
        }
        Some(start)
    }

    fn check_priority(&self, found: &mut Vec<Violation>) -> u8 {
        let Some(given) = self.priority else { return PRIORITY };
        u8::try_from(given).ok().filter(|priority| *priority <= PRIORITY_MAX).unwrap_or_else(|| {
            let message = format!("want 0 to {PRIORITY_MAX}; it is {given}");
            found.push(Violation::new("InvalidParameter.Priority", 400, "Priority", message));
            PRIORITY
        })
    }

    fn check_key(&self, found: &mut Vec<Violation>) -> Option<String> {
        let key = self.concurrency_key?;
        let chars = key.chars().count();
        let is_control = key.chars().any(char::is_control);
        if !(1..=KEY_CHARS_MAX).contains(&chars) || is_control {
            let has = if is_control { "a control character".to_owned() } else { chars.to_string() };
            let message = format!(
                "want 1 to {KEY_CHARS_MAX} characters, none a control character; it has {has}"
            );
            let (code, field) = ("InvalidParameter.ConcurrencyKey", "ConcurrencyKey");
            found.push(Violation::new(code, 400, field, message));
        }
        Some(key.to_owned())
    }
}

/// What a share in a request is held to.
struct ShareRule {
    code: &'static str,
    field: &'static str,
    /// As a number and as a percentage.
    least: u8,
}

impl ShareRule {
    fn check(&self, given: &Given<Share>, found: &mut Vec<Violation>) -> Option<Share> {
        let Self { code, field, least } = *self;
        match given {
            Given::Known(Share(Count(count))) if *count > COUNT_MAX => {
                let message = format!("want at most {COUNT_MAX}; it is {count}");
                found.push(Violation::new(code, 400, field, message));
                None
            }
            Given::Known(share) if share.is_at_least(least) => Some(*share),
            _ => {
                let want = format!("a number from {least} on, or {least}% to {ALL}%");
                found.push(unknown(code, 400, field, &given.to_string(), &want));
                None
            }
        }
    }
}

/// Checks seconds that a request states.
fn seconds(
    given: Option<u64>,
    range: RangeInclusive<u64>,
    code: &'static str,
    field: &'static str,
    found: &mut Vec<Violation>,
) -> Option<u64> {
    if let Some(seconds) = given.filter(|seconds| !range.contains(seconds)) {
        let (min, max) = range.into_inner();
        let message = format!("want {min} to {max} seconds; it is {seconds}");
        found.push(Violation::new(code, 400, field, message));
    }
    given
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn shares_are_numbers_and_percentages() {
        let check = |text: &str, total: u64, want: u64| {
            let share: Share = text.parse().unwrap_or_else(|why| panic!("{text}: {why}"));
            assert_eq!(share.of(total), want, "{text} of {total}");
            assert_eq!(share.to_string(), text.trim());
            assert_eq!(serde_json::from_value::<Share>(json!(share)).expect(text), share);
        };
        check("0", 100, 0);
        check("10", 100, 10);
        check("10", 3, 10);
        check(" 7 ", 100, 7);
        check("0%", 100, 0);
        check("10%", 100, 10);
        check("10%", 9, 0);
        check("10%", 19, 1);
        check("99%", 10, 9);
        check("100%", 7, 7);
        check("33%", 0, 0);
        check("1%", u64::MAX, u64::MAX / 100);
        check("100%", u64::MAX, u64::MAX);
        check("18446744073709551615", 1, u64::MAX);
        assert_eq!(Share::percent(u8::MAX).of(u64::MAX), u64::MAX);
        assert_eq!(serde_json::from_value::<Share>(json!(7)).expect("a number"), Share::from(7));
    }

    #[test]
    fn other_texts_are_no_shares() {
        for text in ["", "%", "-1", "1.5", "101%", "256%", "-1%", "10 %%", "ten", "1e2", "0x10"] {
            let error = text.parse::<Share>().expect_err(text);
            assert!(error.contains("a number, or a percentage up to 100%"), "{text}: {error}");
            serde_json::from_value::<Share>(json!(text)).expect_err(text);
        }
        for value in [json!(-1), json!(1.5), json!(true), json!(null), json!([1])] {
            serde_json::from_value::<Share>(value.clone()).expect_err(&value.to_string());
        }
    }

    #[test]
    fn what_is_stored_is_what_was_said() {
        let check = |control: RateControl, want: serde_json::Value| {
            let stored = serde_json::to_value(&control).expect("JSON");
            assert_eq!(stored, want);
            assert_eq!(serde_json::from_value::<RateControl>(stored).expect("readable"), control);
        };
        let default = RateControl::default();
        assert!(
            default.is_default() && !RateControl { priority: 0, ..default.clone() }.is_default()
        );
        check(default, json!({"Priority": 5}));
        let all = RateControl {
            max_concurrency: Some(Share::percent(10)),
            max_errors: Some(Share::from(0)),
            waves: vec![Share::from(1), Share::percent(100)],
            wave_soak: Some(60),
            priority: 9,
            concurrency_key: Some("db".to_owned()),
            start_deadline: Some(1),
            deadline: Some(2),
        };
        check(
            all,
            json!({
                "MaxConcurrency": "10%", "MaxErrors": "0", "Waves": ["1", "100%"], "WaveSoak": 60,
                "Priority": 9, "ConcurrencyKey": "db", "StartDeadline": 1, "Deadline": 2,
            }),
        );
    }

    #[test]
    fn waves_do_not_shrink() {
        let check = |waves: &[&str], want: Option<(&str, &str)>| {
            let waves: Vec<_> =
                waves.iter().map(|wave| Given::Known(wave.parse().expect("a share"))).collect();
            let fields = RateFields {
                max_concurrency: None,
                max_errors: None,
                waves: &waves,
                wave_soak: None,
                priority: None,
                concurrency_key: None,
                start_deadline: None,
                deadline: None,
            };
            let mut found = Vec::new();
            fields.check(&mut found);
            let told: Vec<_> = found.iter().map(|violation| violation.message.as_str()).collect();
            let want = want.map(|(larger, wave)| {
                format!(
                    "each wave counts those before it too; want none smaller than one before it, {wave} comes after {larger}"
                )
            });
            assert_eq!(told, Vec::from_iter(want.as_deref()), "{waves:?}");
        };
        check(&[], None);
        check(&["1", "10%", "100%"], None);
        check(&["1", "1", "10%", "10%"], None);
        // Whether these shrink depends on the number of targets.
        check(&["10%", "1", "20%", "2"], None);
        check(&["100%", "1"], None);
        check(&["2", "1"], Some(("2", "1")));
        check(&["2", "50%", "1"], Some(("2", "1")));
        check(&["50%", "100", "49%"], Some(("50%", "49%")));
    }
}
