//! `--limit`: what the processes of a run may use, as options spell it.

use std::str::FromStr;

use adjutant::ResourceLimits;

use crate::duration;

/// One thing that can be limited.
struct Kind {
    name: &'static str,
    unit: Unit,
    get: fn(&ResourceLimits) -> Option<u64>,
    set: fn(ResourceLimits, u64) -> ResourceLimits,
}

#[derive(Clone, Copy)]
enum Unit {
    Seconds,
    Bytes,
    Things,
}

static KINDS: [Kind; 6] = [
    Kind {
        name: "cpu",
        unit: Unit::Seconds,
        get: |limits| limits.cpu_seconds,
        set: ResourceLimits::cpu_seconds,
    },
    Kind {
        name: "memory",
        unit: Unit::Bytes,
        get: |limits| limits.memory_bytes,
        set: ResourceLimits::memory_bytes,
    },
    Kind {
        name: "files",
        unit: Unit::Things,
        get: |limits| limits.open_files,
        set: ResourceLimits::open_files,
    },
    Kind {
        name: "processes",
        unit: Unit::Things,
        get: |limits| limits.processes,
        set: ResourceLimits::processes,
    },
    Kind {
        name: "file-size",
        unit: Unit::Bytes,
        get: |limits| limits.file_size_bytes,
        set: ResourceLimits::file_size_bytes,
    },
    Kind {
        name: "address-space",
        unit: Unit::Bytes,
        get: |limits| limits.address_space_bytes,
        set: ResourceLimits::address_space_bytes,
    },
];

/// A limit that has no number.
const NO_NEW_PRIVILEGES: &str = "no-new-privileges";

/// The letters of sizes, and the powers of 2 they stand for.
const SIZES: [(char, u32); 3] = [('K', 10), ('M', 20), ('G', 30)];

/// One limit, such as `memory=256M`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    set: fn(ResourceLimits, u64) -> ResourceLimits,
    most: u64,
}

impl Limit {
    /// All of them; the last of each kind counts.
    pub(crate) fn all(limits: &[Self]) -> ResourceLimits {
        limits.iter().fold(ResourceLimits::default(), |all, limit| (limit.set)(all, limit.most))
    }
}

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim() == NO_NEW_PRIVILEGES {
            return Ok(Self { set: |limits, _| limits.no_new_privileges(), most: 0 });
        }
        let kind = text.trim().split_once('=').and_then(|(name, most)| {
            KINDS.iter().find(|kind| kind.name == name).map(|kind| (kind, most))
        });
        let Some((kind, most)) = kind else {
            let names = KINDS.each_ref().map(|kind| kind.name).join(", ");
            return Err(format!(
                "want NAME=MOST, where NAME is one of {names}; or {NO_NEW_PRIVILEGES}"
            ));
        };
        let wanted = || format!("want {} after `{}=`", kind.unit.wanted(), kind.name);
        Ok(Self { set: kind.set, most: kind.unit.read(most).ok_or_else(wanted)? })
    }
}

impl Unit {
    fn wanted(self) -> &'static str {
        match self {
            Self::Seconds => "seconds, or a duration as in 10s or 5m,",
            Self::Bytes => "bytes, as in 4096, 512K, 256M or 1G,",
            Self::Things => "a number",
        }
    }

    fn read(self, text: &str) -> Option<u64> {
        match self {
            Self::Seconds => duration::seconds(text),
            Self::Things => text.parse().ok(),
            Self::Bytes => {
                let size = SIZES.iter().find_map(|(letter, power)| {
                    let number = text.strip_suffix([*letter, letter.to_ascii_lowercase()])?;
                    Some((number, 1 << power))
                });
                let (number, size): (_, u64) = size.unwrap_or((text, 1));
                number.parse::<u64>().ok()?.checked_mul(size)
            }
        }
    }

    fn write(self, most: u64) -> String {
        let fits = |(_, power): &&(char, u32)| most.is_multiple_of(1 << power) && most > 0;
        match self {
            Self::Seconds => format!("{most}s"),
            Self::Things => most.to_string(),
            Self::Bytes => match SIZES.iter().rev().find(fits) {
                Some((letter, power)) => format!("{}{letter}", most >> power),
                None => most.to_string(),
            },
        }
    }
}

/// Limits as `--limit` takes them; nothing if there is none.
pub(crate) fn spelled(limits: &ResourceLimits) -> String {
    let given = KINDS.iter().filter_map(|kind| {
        (kind.get)(limits).map(|most| format!("{}={}", kind.name, kind.unit.write(most)))
    });
    let flag = limits.no_new_privileges.then(|| NO_NEW_PRIVILEGES.to_owned());
    given.chain(flag).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_written_as_they_are_read() {
        let check = |text: &str, want: &str| {
            let limits: Vec<Limit> =
                text.split(',').map(|one| one.parse().expect("a limit")).collect();
            assert_eq!(spelled(&Limit::all(&limits)), want);
        };
        let all = "cpu=10s,memory=256M,files=64,processes=32,file-size=1G,address-space=3K,\
                   no-new-privileges";
        check(all, all);
        check("no-new-privileges", "no-new-privileges");
        check("cpu=1,cpu=7", "cpu=7s");
        check("cpu=5m", "cpu=300s");
        check("memory=1024k,file-size=1025", "memory=1M,file-size=1025");
    }

    #[test]
    fn other_texts_are_refused() {
        let check = |text: &str, want: &str| {
            let error = text.parse::<Limit>().expect_err(text);
            assert!(error.contains(want), "{text}: {error}");
        };
        check("", "NAME is one of cpu, memory, files, processes, file-size, address-space");
        check("cpu", "want NAME=MOST");
        check("rss=1", "want NAME=MOST");
        check("cpu=10x", "want seconds, or a duration as in 10s or 5m, after `cpu=`");
        check("memory=1T", "want bytes, as in 4096, 512K, 256M or 1G, after `memory=`");
        check("memory=18446744073709551615K", "want bytes");
        check("files=-1", "want a number after `files=`");
    }
}
