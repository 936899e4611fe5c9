//! Distributions in buckets of fixed bounds: eight to each doubling, so that a value is known to an eighth.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::ser::{Serialize, SerializeStruct, Serializer};

/// Binary digits of a value that tell buckets apart, beside the first.
const DIGITS: u32 = 3;
/// Buckets to each doubling; as many for the values below it, one each.
const EACH: usize = 1 << DIGITS;
/// As many as take every value.
const BUCKETS: usize = (u64::BITS - DIGITS + 1) as usize * EACH;

/// Where values are counted as they come.
#[derive(Debug)]
pub(super) struct Recorder {
    buckets: [AtomicU64; BUCKETS],
    sum: AtomicU64,
    max: AtomicU64,
}

impl Default for Recorder {
    fn default() -> Self {
        let buckets = [const { AtomicU64::new(0) }; BUCKETS];
        Self { buckets, sum: AtomicU64::default(), max: AtomicU64::default() }
    }
}

impl Recorder {
    pub(super) fn record(&self, value: u64) {
        self.buckets[bucket_of(value)].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
        self.max.fetch_max(value, Ordering::Relaxed);
    }

    pub(super) fn snapshot(&self) -> Histogram {
        let buckets: Box<[u64]> =
            self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect();
        Histogram {
            count: buckets.iter().sum(),
            sum: self.sum.load(Ordering::Relaxed),
            max: self.max.load(Ordering::Relaxed),
            buckets,
        }
    }
}

/// How values were distributed since the engine was opened. What they are, and in which unit, says the field
/// of [`Metrics`](crate::Metrics) that holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Histogram {
    /// How many values there were.
    pub count: u64,
    /// Their sum.
    pub sum: u64,
    /// The largest; 0 if there was none.
    pub max: u64,
    buckets: Box<[u64]>,
}

impl Histogram {
    /// A value that the share `q` of all, from 0 to 1, did not exceed: 0.5 for the median, 0.99 for what
    /// one in a hundred exceeded. It is an eighth too large at most, and never too small; 0 if there was
    /// no value.
    pub fn quantile(&self, q: f64) -> u64 {
        // A float that is too large, or no number, becomes the nearest whole number.
        let rank = ((q * self.count as f64).ceil() as u64).clamp(1, self.count.max(1));
        let mut seen = 0;
        let holds_it = |counted: &u64| {
            seen += counted;
            seen >= rank
        };
        self.buckets.iter().position(holds_it).map_or(self.max, |n| largest_in(n).min(self.max))
    }
}

impl Serialize for Histogram {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Histogram", 6)?;
        fields.serialize_field("Count", &self.count)?;
        fields.serialize_field("Sum", &self.sum)?;
        fields.serialize_field("Max", &self.max)?;
        fields.serialize_field("P50", &self.quantile(0.5))?;
        fields.serialize_field("P90", &self.quantile(0.9))?;
        fields.serialize_field("P99", &self.quantile(0.99))?;
        fields.end()
    }
}

fn bucket_of(value: u64) -> usize {
    let shift = (u64::BITS - value.leading_zeros()).saturating_sub(DIGITS + 1);
    shift as usize * EACH + (value >> shift) as usize
}

/// The largest value that is counted in a bucket.
fn largest_in(bucket: usize) -> u64 {
    let shift = (bucket / EACH).saturating_sub(1);
    let first_digits = (bucket - shift * EACH) as u64;
    (first_digits << shift) | ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_has_a_bucket_that_ends_close_above_it() {
        let around = |value: u64| [value.saturating_sub(1), value, value.saturating_add(1)];
        let powers = (0..u64::BITS).flat_map(|bit| around(1 << bit));
        for value in (0..5_000).chain(powers).chain([u64::MAX]) {
            let bucket = bucket_of(value);
            let largest = largest_in(bucket);
            assert!(bucket < BUCKETS && largest >= value, "{value}: {bucket}, {largest}");
            assert!(largest - value <= value / 8, "{value}: {largest}");
            assert_eq!(bucket_of(largest), bucket, "{value}");
            assert!(largest == u64::MAX || bucket_of(largest + 1) == bucket + 1, "{value}");
        }
    }

    #[test]
    fn quantiles_are_close_above_the_true_ones() {
        let check = |values: &[u64], q: f64, want: u64| {
            let recorder = Recorder::default();
            values.iter().for_each(|value| recorder.record(*value));
            let got = recorder.snapshot().quantile(q);
            assert!(
                (want..=want.saturating_add(want / 8)).contains(&got),
                "{q} of {values:?}: {got}"
            );
        };
        let thousand: Vec<u64> = (1..=1_000).collect();
        check(&[], 0.5, 0);
        check(&[0], 1.0, 0);
        check(&[7], 0.0, 7);
        check(&[u64::MAX], 0.5, u64::MAX);
        check(&[1, 2, 3, 1_000_000], 0.5, 2);
        check(&[1, 2, 3, 1_000_000], 0.75, 3);
        check(&[1, 2, 3, 1_000_000], 0.76, 1_000_000);
        check(&thousand, 0.0, 1);
        check(&thousand, 0.5, 500);
        check(&thousand, 0.99, 990);
        check(&thousand, 1.0, 1_000);
        check(&thousand, f64::NAN, 1);
        check(&thousand, -1.0, 1);
        check(&thousand, f64::INFINITY, 1_000);
    }

    #[test]
    fn what_is_told_of_values_is_exact() {
        let recorder = Recorder::default();
        [3, 1_000_003, 0].into_iter().for_each(|value| recorder.record(value));
        let told = serde_json::to_value(recorder.snapshot()).expect("JSON");
        let want = serde_json::json!({
            "Count": 3, "Sum": 1_000_006, "Max": 1_000_003, "P50": 3, "P90": 1_000_003, "P99": 1_000_003
        });
        assert_eq!(told, want);
    }
}
