//! Why an invocation did or did not run at an instant: from its timers and their records.

use chrono::{DateTime, SecondsFormat, SubsecRound, Utc};

use super::Engine;
use crate::error::Result;
use crate::id::InvokeId;
use crate::invocation::fire::{Explanation, ExplanationEntry, Fire, FireDisposition, FiredOn};
use crate::operation::Operation;
use crate::store::timers::{self, Timer};
use crate::store::{Tx, fires, invocations, records};
use crate::wire;

impl Engine {
    /// Says why an invocation did or did not run at an instant, which counts to the second.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`](crate::Error::Invalid) if there is no such invocation.
    pub async fn explain(
        &self,
        invoke_id: &InvokeId,
        instant: DateTime<Utc>,
    ) -> Result<Explanation> {
        let invoke_id = *invoke_id;
        self.authorize_of(Operation::DescribeFires, invoke_id).await?;
        let instant = instant.trunc_subsecs(0);
        let now = self.inner.clock.realtime();
        let entries = self.read(move |tx| entries(tx, invoke_id, instant, now)).await?;
        Ok(Explanation { request_id: wire::request_id(), instant, entries })
    }
}

fn entries(
    tx: Tx<'_>,
    invoke_id: InvokeId,
    instant: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<Vec<ExplanationEntry>> {
    let invocation = invocations::find(tx, invoke_id)?;
    let standing = invocations::standing_of(tx, invocation)?;
    let mut entries = Vec::new();
    for found in timers::of_invocation(tx, invocation)? {
        let timer = found.timer?;
        entries.push(Question { tx, timer: &timer, standing: &standing, instant, now }.answer()?);
    }
    let from_ms = instant.timestamp_millis();
    let until_ms = from_ms.saturating_add(1_000);
    for (row, fire) in fires::beside_schedule(tx, invocation, from_ms, until_ms)? {
        let why = if fire.reason.is_empty() { "it was asked to run at once" } else { &fire.reason };
        let executions = records::of_fire(tx, row)?;
        entries.push(ExplanationEntry {
            zone: String::new(),
            text: format!("It {}: {why}.{}", verb(fire.disposition), told(&executions)),
            fire: Some(fire),
            executions,
            before: None,
            after: None,
        });
    }
    if entries.is_empty() {
        entries.push(ExplanationEntry {
            zone: String::new(),
            text: format!("Nothing was to run at {}.", text(instant)),
            fire: None,
            executions: Vec::new(),
            before: None,
            after: None,
        });
    }
    Ok(entries)
}

/// What is asked of one timer.
struct Question<'a> {
    tx: Tx<'a>,
    timer: &'a Timer,
    standing: &'a invocations::Standing,
    instant: DateTime<Utc>,
    now: DateTime<Utc>,
}

impl Question<'_> {
    fn answer(&self) -> Result<ExplanationEntry> {
        let until_ms = self.instant.timestamp_millis().saturating_add(1_000);
        let mut before = fires::last_before(self.tx, self.timer.id, until_ms)?;
        let fire = before.take_if(|(_, fire)| self.is_in(fire));
        let executions = match &fire {
            Some((row, _)) => records::of_fire(self.tx, *row)?,
            None => Vec::new(),
        };
        let fire = fire.map(|(_, fire)| fire);
        let timetable = self.timer.schedule.bind(self.timer.created, self.timer.zone);
        Ok(ExplanationEntry {
            zone: self.timer.zone.to_string(),
            text: match &fire {
                Some(fire) => of_record(fire, &executions, self.now),
                None => format!("{}{}", self.without_record(), self.told_of_clock()?),
            },
            executions,
            fire,
            before: before.map(|(_, fire)| fire),
            after: self
                .timer
                .next_fire_at_ms
                .and_then(|_| timetable.next_after(self.last_instant())),
        })
    }

    /// The last instant of the second that is asked about.
    fn last_instant(&self) -> DateTime<Utc> {
        let end = self.instant.checked_add_signed(chrono::TimeDelta::milliseconds(999));
        end.unwrap_or(self.instant)
    }

    /// Whether a record stands for a nominal time in that second.
    fn is_in(&self, fire: &Fire) -> bool {
        let last = fire.until.unwrap_or(fire.time);
        fire.time <= self.last_instant()
            && last >= self.instant
            && (fire.until.is_none() || self.nominal().is_some())
    }

    /// The nominal time in that second.
    fn nominal(&self) -> Option<DateTime<Utc>> {
        let timetable = self.timer.schedule.bind(self.timer.created, self.timer.zone);
        let before = self.instant.checked_sub_signed(chrono::TimeDelta::milliseconds(1))?;
        timetable.next_after(before).filter(|nominal| *nominal <= self.last_instant())
    }

    /// Returns the words on a clock that was ahead, for a nominal time that is still to come.
    fn told_of_clock(&self) -> Result<String> {
        let Self { tx, timer, now, .. } = self;
        let nominal = self.nominal().filter(|nominal| nominal > now);
        let (Some(nominal), Some(next_ms)) = (nominal, timer.next_fire_at_ms) else {
            return Ok(String::new());
        };
        let mut told = String::new();
        let nominal_ms = nominal.timestamp_millis();
        if let Some(at) = fires::withdrawn(*tx, timer.invocation, nominal_ms)? {
            told = format!(
                " A clock that was ahead had written this time off; the record was taken back at {}.",
                text(at)
            );
        }
        if let Some((_, last)) = fires::last_before(*tx, timer.id, next_ms)? {
            let until = last.until.unwrap_or(last.time);
            if until > *now {
                told.push_str(&format!(
                    " The clock was ahead before: times up to {} have records already.",
                    text(until)
                ));
            }
        }
        Ok(told)
    }

    fn without_record(&self) -> String {
        let Self { timer, standing, instant, now, .. } = self;
        let asked = text(*instant);
        if self.last_instant() <= timer.created {
            return format!(
                "{asked} is before the invocation was made, at {}.",
                text(timer.created)
            );
        }
        let Some(nominal) = self.nominal() else {
            return format!(
                "{asked} is no nominal time of `{}`, {} time.",
                timer.schedule, timer.zone
            );
        };
        let nominal_ms = nominal.timestamp_millis();
        if timer.end_at_ms.is_some_and(|end_ms| nominal_ms > end_ms) {
            return format!("{asked} is after the end of the schedule.");
        }
        match timer.next_fire_at_ms {
            None => {
                let how = standing.ended.map_or_else(String::new, |at| format!(" at {}", text(at)));
                format!(
                    "Its schedule had been stopped, or had fired often enough; the invocation ended{how}."
                )
            }
            Some(next_ms) if nominal_ms < next_ms => {
                format!("{asked} is no nominal time by the zone data of today, or was none then.")
            }
            Some(_) => match standing.paused {
                Some(since) => format!("It pauses since {}, and does not fire.", text(since)),
                None if nominal > *now && timer.fires_left.is_some() => {
                    "It is planned, unless the schedule has fired often enough by then.".to_owned()
                }
                None if timer.delay_ms > 0 && !timer.is_due_at(nominal_ms, *now) => {
                    let due_ms = nominal_ms.saturating_add(timer.delay_ms);
                    let due = DateTime::from_timestamp_millis(due_ms).unwrap_or(nominal);
                    format!(
                        "It is planned for {}, and fires at {}: its place in the spread.",
                        text(nominal),
                        text(due)
                    )
                }
                None if nominal > *now => format!("It is planned for {}.", text(nominal)),
                None => "It is due and has not been dealt with yet.".to_owned(),
            },
        }
    }
}

fn of_record(fire: &Fire, executions: &[FiredOn], now: DateTime<Utc>) -> String {
    let stretch = fire.until.filter(|_| fire.count > 1).map_or_else(String::new, |until| {
        format!(", with all {} from {} to {}", fire.count, text(fire.time), text(until))
    });
    let why = match fire.disposition {
        FireDisposition::Started => {
            let late = fire.dealt_time - fire.time;
            format!(" {} s after its time", late.num_milliseconds().max(0) as f64 / 1_000.0)
        }
        FireDisposition::Skipped | FireDisposition::Missed => format!(": {}", fire.reason),
    };
    let ahead = if fire.time > now { ", by a clock that was ahead" } else { "" };
    format!("It {}{stretch}{why}{ahead}.{}", verb(fire.disposition), told(executions))
}

fn verb(disposition: FireDisposition) -> &'static str {
    match disposition {
        FireDisposition::Started => "fired",
        FireDisposition::Skipped => "was skipped",
        FireDisposition::Missed => "was missed",
    }
}

/// The instances and how they stand, as far as a sentence goes.
fn told(executions: &[FiredOn]) -> String {
    const NAMED_MAX: usize = 5;
    if executions.is_empty() {
        return String::new();
    }
    let named: Vec<String> = executions
        .iter()
        .take(NAMED_MAX)
        .map(|one| match one.error_info.as_str() {
            "" => format!("{} {}", one.instance_id, one.status),
            why => format!("{} {} ({why})", one.instance_id, one.status),
        })
        .collect();
    let more = match executions.len().saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!(" {}{more}.", named.join(", "))
}

fn text(instant: DateTime<Utc>) -> String {
    instant.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}
