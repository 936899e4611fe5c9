//! Who runs next: the fires with waiting executions, in turn, each with its share of the free
//! places, those of the highest priority first. Pure accounting; the waiting executions themselves
//! stay in the database.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::invocation::Job;
use crate::invocation::rate_control::{PRIORITY, PRIORITY_MAX};
use crate::store::claims::Released;
use crate::store::fires::{FireLimits, Terms};

/// Fires that are known here at a time, of those that go before most others and of those that do not;
/// the rest wait in the database too.
const FIRES_MAX: usize = 1_024;
/// What waits this long has the priority above its own: nothing waits for ever.
const AGEING_MS: i64 = 10_000;
/// How often ages are looked at.
const AGED_EVERY_MS: i64 = 1_000;
/// From here on a fire goes before most others; `fires_urgent` has those.
const URGENT: u8 = PRIORITY + 1;

/// A fire that has, or may have, executions to run.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    pub fire: i64,
    /// Executions on instances after this one, up to that one.
    pub after: i64,
    pub until: i64,
    /// Loaded with the first claim.
    pub job: Option<Arc<Job>>,
    /// None: it has to be looked up first.
    pub terms: Option<Terms>,
}

/// The rows of the instances it may be on.
fn instances_of(released: Released) -> RangeInclusive<i64> {
    released.instance.map_or(1..=i64::MAX, |one| one..=one)
}

/// The priority of what waits, with its age.
fn level(terms: &Terms, now_ms: i64) -> u8 {
    let levels = now_ms.saturating_sub(terms.since_ms).max(0) / AGEING_MS;
    let aged = u8::try_from(levels).unwrap_or(u8::MAX).saturating_add(terms.priority);
    aged.min(PRIORITY_MAX)
}

impl Waiting {
    /// All of a fire that has been found.
    pub(super) fn all((fire, terms): (i64, Terms)) -> Self {
        Self { fire, after: 0, until: i64::MAX, job: None, terms: Some(terms) }
    }

    /// What a fire has on these instances, of which no more is known.
    fn on(fire: i64, instances: RangeInclusive<i64>) -> Self {
        let (first, last) = instances.into_inner();
        Self { fire, after: first - 1, until: last, job: None, terms: None }
    }

    pub(super) fn released(released: Released) -> Self {
        Self::on(released.fire, instances_of(released))
    }

    pub(super) fn limits(&self) -> Option<&Arc<FireLimits>> {
        self.terms.as_ref().and_then(|terms| terms.limits.as_ref())
    }

    fn is_urgent(&self) -> bool {
        self.terms.as_ref().is_some_and(|terms| terms.priority >= URGENT)
    }

    /// How many of its executions wait, as far as is known. What has to be looked up is taken for one: no
    /// place stays free because it turns out to be less.
    fn size(&self) -> usize {
        self.terms.as_ref().map_or(1, |terms| terms.unfinished)
    }

    pub(super) fn level(&self, now_ms: i64) -> u8 {
        // What has to be looked up is taken for what most are.
        self.terms.as_ref().map_or(PRIORITY, |terms| level(terms, now_ms))
    }
}

/// A look for new fires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    /// Those after this one; at most so many.
    pub after: i64,
    pub max: usize,
}

/// What to claim, worked out before the transaction that does it.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// Those whose turn it is, no more than use up the room; each with the most that it may have.
    pub turn: Vec<(Waiting, usize)>,
    /// Free places.
    pub room: usize,
    /// Fires of the same level in other plans, which are to have no less.
    pub beside: usize,
    number: u64,
    /// Where new fires are looked for: urgent ones, and others.
    pub looks: Option<[Look; 2]>,
}

/// What a plan came to.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// Fires that were not served: new ones that there was no room for yet, or whose limits have to be
    /// counted first.
    pub unserved: Vec<Waiting>,
    /// Fires of the plan's turn that nothing was left for.
    pub passed_over: Vec<Waiting>,
    /// Served, and with executions left.
    pub served: Vec<Waiting>,
    /// Of each fire of the plan's turn, how many executions were claimed.
    pub claimed: Vec<usize>,
    /// Of each look, the newest fire found, and whether there may be newer ones still.
    pub found: [(Option<i64>, bool); 2],
}

/// A plan that is being carried out.
#[derive(Debug)]
struct PlanUnderWay {
    number: u64,
    level: u8,
    fires: usize,
    /// Whether more of its executions wait than it has places.
    is_short: bool,
}

/// What several fires may have to share.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Bound {
    Invocation(i64),
    Key(Arc<str>),
}

/// The bounds of a fire, each with how many executions run within it at most.
fn bounds<'a>(
    limits: &'a FireLimits,
    widths: &'a HashMap<String, usize>,
) -> impl Iterator<Item = (Bound, usize)> + 'a {
    let own = limits.concurrency_max.map(|max| (Bound::Invocation(limits.invocation), max));
    let shared = limits.concurrency_key.as_ref().map(|key| {
        // A key that nobody has said anything of is for one at a time.
        (Bound::Key(Arc::clone(key)), widths.get(&**key).copied().unwrap_or(1))
    });
    own.into_iter().chain(shared)
}

/// The fires in turn.
#[derive(Debug)]
pub(super) struct Backlog {
    /// By level.
    turn: BTreeMap<u8, VecDeque<Waiting>>,
    /// How many executions run, or may be claimed by plans being carried out, within each bound.
    in_use: HashMap<Bound, usize>,
    /// Fires that wait for the end of an execution within a bound, which runs.
    parked: HashMap<Bound, BTreeMap<u8, VecDeque<Waiting>>>,
    /// How many executions run at a time under each key.
    widths: HashMap<String, usize>,
    aged_at_ms: i64,
    /// The newest fires seen, urgent ones and others. Later ones have higher numbers.
    newest: [i64; 2],
    /// Whether the database may hold fires newer than those.
    may_have_new: bool,
    /// Whether a plan that is being carried out looks for those: one at a time does.
    is_looking: bool,
    /// Plans for places that are being carried out.
    under_way: Vec<PlanUnderWay>,
    plans_made: u64,
    /// Whether the last plan used its places: the fires have what they are taken for.
    sizes_hold: bool,
}

impl Backlog {
    /// A backlog that has yet to look into the database.
    pub(super) fn new(widths: HashMap<String, usize>) -> Self {
        Self {
            turn: BTreeMap::new(),
            in_use: HashMap::new(),
            parked: HashMap::new(),
            widths,
            aged_at_ms: i64::MIN,
            newest: [0; 2],
            may_have_new: true,
            is_looking: false,
            under_way: Vec::new(),
            plans_made: 0,
            sizes_hold: true,
        }
    }

    /// New work has been stored.
    pub(super) fn expect_new(&mut self) {
        self.may_have_new = true;
    }

    /// Fires have executions to claim again. Each has one turn for all that have come together, however many
    /// those are, and is looked through from the first of their instances to the last.
    pub(super) fn release(&mut self, released: impl IntoIterator<Item = Released>) {
        let mut fires = BTreeMap::<i64, RangeInclusive<i64>>::new();
        for one in released {
            let (first, last) = instances_of(one).into_inner();
            let all = fires.entry(one.fire).or_insert(first..=last);
            *all = first.min(*all.start())..=last.max(*all.end());
        }
        let waiting = fires.into_iter().map(|(fire, instances)| Waiting::on(fire, instances));
        self.turn.entry(PRIORITY).or_default().extend(waiting);
    }

    /// An execution within these limits runs, whether or not there was room for it.
    pub(super) fn occupy(&mut self, limits: &FireLimits) {
        for (bound, _) in bounds(limits, &self.widths) {
            *self.in_use.entry(bound).or_default() += 1;
        }
    }

    /// An execution within these limits has ended.
    pub(super) fn vacate(&mut self, limits: &FireLimits) {
        self.give_back(limits, 1);
    }

    fn give_back(&mut self, limits: &FireLimits, count: usize) {
        let shared: Vec<_> = bounds(limits, &self.widths).collect();
        for (bound, max) in shared {
            let left = self.in_use.get(&bound).copied().unwrap_or_default().saturating_sub(count);
            match left {
                0 => self.in_use.remove(&bound),
                left => self.in_use.insert(bound.clone(), left),
            };
            if left < max {
                self.rouse(&bound);
            }
        }
    }

    /// Has the next of those that wait within a bound try. If it has nothing left, or leaves room, the one
    /// after it has its turn when that is known.
    fn rouse(&mut self, bound: &Bound) {
        let Some(parked) = self.parked.get_mut(bound) else { return };
        let mut next = None;
        if let Some(mut level) = parked.last_entry() {
            next = level.get_mut().pop_front();
            if level.get().is_empty() {
                level.remove();
            }
        }
        if parked.is_empty() {
            self.parked.remove(bound);
        }
        self.join(next);
    }

    fn join(&mut self, waiting: impl IntoIterator<Item = Waiting>) {
        for one in waiting {
            let level = one.level(self.aged_at_ms);
            self.turn.entry(level).or_default().push_back(one);
        }
    }

    fn put_first(&mut self, waiting: Waiting) {
        let level = waiting.level(self.aged_at_ms);
        self.turn.entry(level).or_default().push_front(waiting);
    }

    fn has_turn(&self) -> bool {
        self.turn.values().any(|queue| !queue.is_empty())
    }

    /// Whether a claim could find anything.
    pub(super) fn may_have_work(&self) -> bool {
        self.has_turn() || (self.may_have_new && !self.is_looking)
    }

    /// Whether nothing waits for a place, as far as is known here.
    pub(super) fn is_idle(&self) -> bool {
        !self.has_turn() && !self.may_have_new && self.under_way.is_empty()
    }

    /// A new fire has nothing that waits. While nothing else is new, no look has to find that out.
    pub(super) fn pass_over(&mut self, fire: i64) {
        if !self.may_have_new && !self.is_looking {
            self.newest = self.newest.map(|newest| newest.max(fire));
        }
    }

    /// Whose turn it is for `room` places: those of the highest level known. Until the plan is
    /// [applied](Self::apply) or [given up](Self::give_up), others are made without those.
    pub(super) fn plan(&mut self, room: usize, now_ms: i64) -> Plan {
        self.age(now_ms);
        let (mut turn, mut level) = (Vec::new(), 0);
        while turn.is_empty() && room > 0 {
            let Some((&top, _)) = self.turn.last_key_value() else { break };
            // What a plan of a higher level leaves over comes first.
            if self.under_way.iter().any(|other| other.is_short && other.level > top) {
                break;
            }
            level = top;
            turn = self.take_turn(level, room);
        }
        let looks = (room > 0 && self.may_have_new && !self.is_looking).then(|| self.looks());
        let looks = looks.filter(|looks| looks.iter().any(|look| look.max > 0));
        if looks.is_some() {
            // What comes from now on is news again.
            (self.may_have_new, self.is_looking) = (false, true);
        }
        let peers = self.under_way.iter().filter(|other| other.level == level);
        let beside = peers.map(|other| other.fires).sum();
        self.plans_made += 1;
        let number = self.plans_made;
        if room > 0 {
            // What it is granted is less than the room only if its limits say so.
            let wants = |(waiting, most): &(Waiting, usize)| match *most < room {
                true => waiting.size().min(*most),
                false => waiting.size(),
            };
            let wanted: usize = turn.iter().map(wants).sum();
            let is_short = wanted > room;
            self.under_way.push(PlanUnderWay { number, level, fires: turn.len(), is_short });
        }
        Plan { turn, room, beside, number, looks }
    }

    /// Takes fires of a level, until what they have uses up `room` places; the others are left for the next
    /// plan, which is made while this one is carried out.
    fn take_turn(&mut self, level: u8, room: usize) -> Vec<(Waiting, usize)> {
        let (mut turn, mut left) = (Vec::new(), room);
        while left > 0 {
            let next = self.turn.get_mut(&level).and_then(VecDeque::pop_front);
            let Some(waiting) = next else {
                self.turn.remove(&level);
                break;
            };
            let Some((waiting, most)) = self.grant(waiting, room) else { continue };
            let size = if self.sizes_hold { waiting.size().min(most).min(SHARE_MIN) } else { 1 };
            left = left.saturating_sub(size.max(1));
            turn.push((waiting, most));
        }
        turn
    }

    fn looks(&self) -> [Look; 2] {
        // By what they were given, as the database has it, and not by what they have come to.
        let known = |urgent: bool| {
            let all = self.turn.values().flatten();
            all.filter(|waiting| waiting.is_urgent() == urgent).count()
        };
        [true, false].map(|urgent| Look {
            after: self.newest[usize::from(!urgent)],
            max: FIRES_MAX.saturating_sub(known(urgent)),
        })
    }

    /// Lets a fire have what its limits leave of `room`; none: it has to wait for them.
    fn grant(&mut self, waiting: Waiting, room: usize) -> Option<(Waiting, usize)> {
        let Some(limits) = waiting.limits().map(Arc::clone) else { return Some((waiting, room)) };
        let bounds: Vec<_> = bounds(&limits, &self.widths).collect();
        let mut most = room;
        for (bound, max) in &bounds {
            let left = max.saturating_sub(self.in_use.get(bound).copied().unwrap_or_default());
            if left == 0 {
                let parked = self.parked.entry(bound.clone()).or_default();
                parked.entry(waiting.level(self.aged_at_ms)).or_default().push_back(waiting);
                return None;
            }
            most = most.min(left);
        }
        for (bound, _) in bounds {
            *self.in_use.entry(bound).or_default() += most;
        }
        Some((waiting, most))
    }

    /// Gives those that have waited long a higher level.
    fn age(&mut self, now_ms: i64) {
        let since = now_ms.saturating_sub(self.aged_at_ms);
        if (0..AGED_EVERY_MS).contains(&since) {
            return;
        }
        self.aged_at_ms = now_ms;
        let all = std::mem::take(&mut self.turn);
        // Those that had more before go before those that have as much now.
        self.join(all.into_values().rev().flatten());
    }

    /// Takes note of what a plan came to: fires that were not served join the turn, those that were go
    /// behind them, those with nothing left are gone.
    pub(super) fn apply(&mut self, plan: &Plan, taken: Taken) {
        self.under_way.retain(|one| one.number != plan.number);
        if !plan.turn.is_empty() {
            self.sizes_hold = taken.claimed.iter().sum::<usize>() >= plan.room / 2;
        }
        for waiting in taken.passed_over.into_iter().rev() {
            self.put_first(waiting);
        }
        self.join(taken.unserved);
        self.join(taken.served);
        let claimed = taken.claimed.into_iter().chain(std::iter::repeat(0));
        for ((waiting, granted), claimed) in plan.turn.iter().zip(claimed) {
            if let Some(limits) = waiting.limits() {
                self.give_back(limits, granted.saturating_sub(claimed));
            }
        }
        if plan.looks.is_some() {
            for (newest, (found, more)) in self.newest.iter_mut().zip(taken.found) {
                *newest = found.unwrap_or(*newest);
                self.may_have_new |= more;
            }
            self.is_looking = false;
        }
    }

    /// Forgets a plan that came to nothing: all is as it was before.
    pub(super) fn give_up(&mut self, plan: &Plan) {
        self.under_way.retain(|one| one.number != plan.number);
        for (waiting, granted) in plan.turn.iter().rev() {
            if let Some(limits) = waiting.limits() {
                self.give_back(limits, *granted);
            }
            self.put_first(waiting.clone());
        }
        if plan.looks.is_some() {
            (self.may_have_new, self.is_looking) = (true, false);
        }
    }
}

impl Plan {
    /// Whether there is nothing to claim, and nothing to look for.
    pub(super) fn is_empty(&self) -> bool {
        self.turn.is_empty() && self.looks.is_none()
    }

    /// Keeps no more than so many places if it has no use for them itself; how many it lets go of.
    pub(super) fn trim(&mut self, keep: usize) -> usize {
        let unused = if self.is_empty() { self.room.saturating_sub(keep) } else { 0 };
        self.room -= unused;
        unused
    }
}

/// How many of `room` places each of so many fires may have: an equal share, but enough for a commit
/// to be worth it. The places may be gone before all have had theirs; those then come first the next time.
pub(super) fn share(room: usize, fires: usize) -> usize {
    room.checked_div(fires).unwrap_or_default().max(SHARE_MIN)
}

/// Executions of one fire lie side by side in the database, those of many do not.
const SHARE_MIN: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_000_000;

    fn terms(priority: u8) -> Terms {
        Terms { priority, since_ms: NOW, unfinished: 1, limits: None }
    }

    fn waiting(fire: i64) -> Waiting {
        Waiting::all((fire, terms(PRIORITY)))
    }

    fn limited(fire: i64, invocation: i64, max: Option<usize>, key: Option<&str>) -> Waiting {
        let limits = FireLimits {
            invocation,
            concurrency_max: max,
            concurrency_key: key.map(Arc::from),
            start_by_ms: None,
            has_waves: false,
        };
        let limits = Some(Arc::new(limits));
        Waiting::all((fire, Terms { limits, ..terms(PRIORITY) }))
    }

    fn empty() -> Backlog {
        Backlog::new([("wide".to_owned(), 3)].into())
    }

    /// One that has looked, and found these.
    fn with(found: impl IntoIterator<Item = Waiting>) -> Backlog {
        let mut backlog = empty();
        let plan = backlog.plan(1, NOW);
        backlog.apply(&plan, Taken { unserved: found.into_iter().collect(), ..Taken::default() });
        backlog
    }

    fn turn(plan: &Plan) -> Vec<i64> {
        plan.turn.iter().map(|(waiting, _)| waiting.fire).collect()
    }

    fn found(fires: std::ops::RangeInclusive<i64>, more_new: bool) -> Taken {
        Taken {
            found: [(None, false), (Some(*fires.end()), more_new)],
            unserved: fires.map(waiting).collect(),
            ..Taken::default()
        }
    }

    #[test]
    fn shares_are_even_and_worth_it() {
        let check = |room, fires, want| assert_eq!(share(room, fires), want, "{room} for {fires}");
        check(1_000, 3, 333);
        check(64, 64, 16);
        check(2, 2, 16);
        check(5, 0, 16);
    }

    /// One step would have them all, and the next would have to wait for it.
    #[test]
    fn a_plan_takes_no_more_fires_than_its_places_are_enough_for() {
        let sized =
            |fire, unfinished| Waiting::all((fire, Terms { unfinished, ..terms(PRIORITY) }));
        let check = |sizes: &[usize], want: [&[i64]; 3]| {
            let mut backlog = with((1..).zip(sizes).map(|(fire, size)| sized(fire, *size)));
            assert_eq!([40, 40, 40].map(|room| turn(&backlog.plan(room, NOW))), want, "{sizes:?}");
        };
        check(&[100; 5], [&[1, 2, 3], &[4, 5], &[]]);
        check(&[100, 1, 1, 100, 20, 100], [&[1, 2, 3, 4, 5], &[6], &[]]);
        // It may have come to nothing since.
        check(&[0, 16, 16, 16], [&[1, 2, 3, 4], &[], &[]]);
    }

    /// Sixty places would wait for the four that are used.
    #[test]
    fn a_fire_uses_up_no_more_than_its_limits_let_it_have() {
        let narrow = |fire, max| {
            let waiting = limited(fire, fire, max, None);
            let terms = waiting.terms.map(|terms| Terms { unfinished: 100, ..terms });
            Waiting { terms, ..waiting }
        };
        let mut backlog = with((1..=40).map(|fire| narrow(fire, Some(1))));
        assert_eq!(backlog.plan(64, NOW).turn.len(), 40);
        let mut backlog = with((1..=40).map(|fire| narrow(fire, None)));
        let plan = backlog.plan(64, NOW);
        assert_eq!(plan.turn.len(), 4);
        // Something else holds them back: the next plan has all that there are.
        backlog.apply(&plan, Taken { claimed: vec![1; 4], ..Taken::default() });
        assert_eq!(backlog.plan(64, NOW).turn.len(), 36);
    }

    #[test]
    fn fires_in_several_plans_have_even_shares() {
        let large = |fire| Waiting::all((fire, Terms { unfinished: 1_000, ..terms(PRIORITY) }));
        let mut backlog = with((1..=33).map(large));
        let [first, second] = [512, 488].map(|room| backlog.plan(room, NOW));
        let shares = [&first, &second].map(|plan| share(plan.room, plan.turn.len() + plan.beside));
        assert_eq!((first.turn.len(), second.turn.len(), shares), (32, 1, [16, 16]));
    }

    #[test]
    fn what_is_less_urgent_waits_for_what_a_plan_leaves_over() {
        let check = |size, want: &[i64]| {
            let urgent = Terms { unfinished: size, ..terms(PRIORITY_MAX) };
            let mut backlog = with([Waiting::all((1, urgent)), waiting(2)]);
            let first = backlog.plan(8, NOW);
            let mut second = backlog.plan(8, NOW);
            assert_eq!((turn(&first), &turn(&second)[..]), (vec![1], want), "{size}");
            if want.is_empty() {
                assert_eq!((second.trim(3), second.room), (5, 3));
            }
            backlog.apply(&first, Taken { claimed: vec![8], ..Taken::default() });
            backlog.give_up(&second);
            assert_eq!(turn(&backlog.plan(8, NOW)), [2]);
        };
        check(8, &[2]);
        check(9, &[]);
    }

    #[test]
    fn those_that_nothing_was_left_for_come_first() {
        let mut backlog = with([waiting(1), waiting(2), waiting(3)]);
        let plan = backlog.plan(3, NOW);
        let [first, rest @ ..] = &plan.turn[..] else { panic!("three fires") };
        let passed_over = rest.iter().map(|(one, _)| one.clone()).collect();
        let served = vec![first.0.clone()];
        backlog.apply(&plan, Taken { passed_over, served, ..Taken::default() });
        assert_eq!(turn(&backlog.plan(3, NOW)), [2, 3, 1]);
    }

    #[test]
    fn every_fire_has_its_turn() {
        let mut backlog = empty();
        let plan = backlog.plan(4, NOW);
        let all = Some([Look { after: 0, max: FIRES_MAX }; 2]);
        assert_eq!((plan.turn.len(), plan.looks), (0, all));
        backlog.apply(&plan, found(1..=5, false));
        let mut order = Vec::new();
        for _ in 0..4 {
            let plan = backlog.plan(2, NOW);
            assert_eq!(plan.looks, None);
            order.extend(turn(&plan));
            // Fire 1 has nothing left after its first turn.
            let served = plan.turn.iter().map(|(one, _)| one.clone()).filter(|w| w.fire != 1);
            backlog.apply(&plan, Taken { served: served.collect(), ..Taken::default() });
        }
        assert_eq!(order, [1, 2, 3, 4, 5, 2, 3, 4]);
    }

    #[test]
    fn a_new_fire_is_found_while_old_ones_take_all_the_room() {
        let mut backlog = with([waiting(1)]);
        backlog.expect_new();
        let plan = backlog.plan(1, NOW);
        assert!(plan.looks.is_some());
        let served = vec![waiting(1)];
        backlog.apply(&plan, Taken { served, ..found(2..=2, false) });
        assert_eq!(turn(&backlog.plan(1, NOW)), [2]);
    }

    #[test]
    fn plans_that_are_carried_out_at_a_time_share_nothing() {
        let mut backlog = empty();
        let first = backlog.plan(2, NOW);
        assert!(!backlog.may_have_work(), "one looks already");
        backlog.expect_new();
        backlog.apply(&first, found(1..=3, false));
        assert!(backlog.may_have_work(), "what came during the look was not seen by it");
        let [first, second, third] = [2, 2, 2].map(|room| backlog.plan(room, NOW));
        assert_eq!([&first, &second, &third].map(turn), [vec![1, 2], vec![3], vec![]]);
        let looks = [&first, &second, &third].map(|plan| plan.looks.is_some());
        assert_eq!(looks, [true, false, false]);
        assert!(!backlog.is_idle(), "plans are being carried out");
        backlog.give_up(&first);
        backlog.apply(&second, Taken::default());
        backlog.apply(&third, Taken::default());
        let again = backlog.plan(2, NOW);
        assert_eq!((turn(&again), again.looks.is_some()), (vec![1, 2], true));
    }

    #[test]
    fn what_starts_at_once_is_not_looked_for() {
        let after = |plan: &Plan| plan.looks.map(|looks| looks.map(|look| look.after));
        let mut backlog = empty();
        backlog.pass_over(3);
        assert!(!backlog.is_idle());
        let plan = backlog.plan(1, NOW);
        assert_eq!(after(&plan), Some([0; 2]), "others may have come before it");
        backlog.pass_over(4);
        backlog.apply(&plan, Taken::default());
        assert!(backlog.is_idle());
        backlog.pass_over(5);
        backlog.expect_new();
        backlog.pass_over(6);
        assert_eq!(after(&backlog.plan(1, NOW)), Some([5; 2]));
    }

    /// Each would have its own share, be looked up for itself, and keep others from being looked for.
    #[test]
    fn what_a_fire_has_to_claim_again_has_one_turn() {
        let on = |fire, instance| Released { fire, instance };
        let mut backlog = empty();
        backlog.release([on(2, Some(7)), on(1, Some(9)), on(1, Some(3)), on(2, None)]);
        backlog.release([on(1, Some(4))]);
        let turn = backlog.plan(8, NOW).turn;
        let turn: Vec<_> = turn.iter().map(|(one, _)| (one.fire, one.after, one.until)).collect();
        assert_eq!(turn, [(1, 2, 9), (2, 0, i64::MAX), (1, 3, 4)]);
    }

    #[test]
    fn a_full_house_looks_for_urgent_fires_only() {
        let mut backlog = empty();
        let plan = backlog.plan(1, NOW);
        backlog.apply(&plan, found(1..=FIRES_MAX as i64, true));
        let plan = backlog.plan(1, NOW);
        let looks = plan.looks.expect("urgent ones may have come");
        assert_eq!(looks.map(|look| look.max), [FIRES_MAX, 1]);
        backlog.apply(&plan, Taken { found: [(None, false), (None, true)], ..Taken::default() });
        assert!(backlog.may_have_work());
        let plan = backlog.plan(FIRES_MAX, NOW);
        assert_eq!(plan.looks.map(|looks| looks[1].after), Some(FIRES_MAX as i64));
    }

    /// They would all come into memory, and none that is urgent would be looked for.
    #[test]
    fn old_fires_are_counted_for_what_they_are() {
        let mut backlog = empty();
        let plan = backlog.plan(1, NOW);
        backlog.apply(&plan, found(1..=FIRES_MAX as i64, true));
        let plan = backlog.plan(1, NOW + 60_000);
        // One is being served.
        assert_eq!(plan.looks.map(|looks| looks.map(|look| look.max)), Some([FIRES_MAX, 1]));
    }

    #[test]
    fn the_highest_priority_comes_first_and_age_counts() {
        let check = |fires: &[(i64, u8, i64)], now_ms, want: &[i64]| {
            let fires = fires.iter().map(|&(fire, priority, waited_s)| {
                let since_ms = now_ms - 1_000 * waited_s;
                Waiting::all((fire, Terms { since_ms, ..terms(priority) }))
            });
            let mut backlog = with(fires);
            assert_eq!(turn(&backlog.plan(2, now_ms)), want);
        };
        check(&[(1, 5, 0), (2, 9, 0), (3, 0, 0)], NOW, &[2]);
        check(&[(1, 5, 0), (2, 5, 0), (3, 5, 0)], NOW, &[1, 2]);
        // Ten seconds are a level.
        check(&[(1, 4, 9), (2, 5, 0)], NOW + 5_000, &[2]);
        check(&[(1, 4, 10), (2, 5, 0)], NOW + 5_000, &[2, 1]);
        check(&[(1, 0, 90), (2, 9, 0)], NOW + 5_000, &[2, 1]);
        check(&[(1, 0, 1 << 40), (2, 9, 0)], NOW + 5_000, &[1, 2]);
    }

    #[test]
    fn limits_hold_and_are_used_up() {
        let check = |waits: Vec<Waiting>, want: &[(i64, usize)]| {
            let mut backlog = with(waits);
            let mut had = Vec::new();
            // All that is granted is taken, and goes on running.
            while backlog.has_turn() {
                let plan = backlog.plan(2, NOW);
                had.extend(plan.turn.iter().map(|(waiting, most)| (waiting.fire, *most)));
                let claimed = plan.turn.iter().map(|(_, most)| *most).collect();
                let served = plan.turn.iter().map(|(waiting, _)| waiting.clone()).collect();
                backlog.apply(&plan, Taken { claimed, served, ..Taken::default() });
            }
            assert_eq!(had, want);
        };
        check(vec![limited(1, 1, Some(3), None)], &[(1, 2), (1, 1)]);
        check(vec![limited(1, 1, None, Some("wide"))], &[(1, 2), (1, 1)]);
        check(vec![limited(1, 1, None, Some("narrow"))], &[(1, 1)]);
        check(vec![limited(1, 1, Some(2), Some("wide"))], &[(1, 2)]);
        let both = vec![limited(1, 1, None, Some("wide")), limited(2, 2, None, Some("wide"))];
        check(both, &[(1, 2), (2, 1)]);
        // Fires of one invocation share its bound.
        check(vec![limited(1, 7, Some(2), None), limited(2, 7, Some(2), None)], &[(1, 2)]);
    }

    #[test]
    fn whoever_waits_within_a_bound_is_called_when_there_is_room() {
        let key = |fire| limited(fire, fire, None, Some("narrow"));
        let mut backlog = with([key(1), key(2), key(3)]);
        let first = backlog.plan(3, NOW);
        assert_eq!(turn(&first), [1]);
        backlog.apply(&first, Taken { claimed: vec![1], ..Taken::default() });
        let limits = first.turn[0].0.limits().map(Arc::clone).expect("a key");
        assert!(!backlog.has_turn());
        backlog.vacate(&limits);
        let second = backlog.plan(3, NOW);
        assert_eq!(turn(&second), [2]);
        // It has nothing left: the next is called.
        backlog.apply(&second, Taken { claimed: vec![0], ..Taken::default() });
        let third = backlog.plan(3, NOW);
        assert_eq!(turn(&third), [3]);
        backlog.give_up(&third);
        assert_eq!(turn(&backlog.plan(3, NOW)), [3]);
    }
}
