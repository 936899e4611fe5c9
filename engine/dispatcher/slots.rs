//! Who runs next: the fires with waiting executions, in turn, each with its share of the free
//! places, those of the highest priority first. Pure accounting; the waiting executions themselves
//! stay in the database.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::invocation::Job;
use crate::invocation::rate_control::PRIORITY_MAX;
use crate::store::claims::{Released, Standing};
use crate::store::fires::{FireLimits, Terms};

use super::bounds::{Bound, Bounds, HandedOver};

/// Fires of each priority that are in memory at a time; the others wait in the database. Two steps under way claim up
/// to 1,024 executions, and each may be of another fire.
const FIRES_MAX: usize = 1_024;
/// The number of fires of each priority in memory from which on a fire with released executions is left to the
/// database. Two steps claim no more fires than this.
const RELEASED_MAX: usize = 2 * FIRES_MAX;
/// The number of fires in memory that wait for one bound. The other fires wait in the database. A look finds them
/// once the fires in memory have gone on, so that each look at the database lets many fires go on.
const PARKED_MAX: usize = 1_024;
/// How often ages are looked at.
const AGED_EVERY_MS: i64 = 1_000;
/// How many priorities there are.
pub(super) const LEVELS: usize = PRIORITY_MAX as usize + 1;

/// A fire or an instance that may have executions to claim.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    pub subject: Subject,
    /// Executions on instances after this one, up to that one.
    pub after: i64,
    pub until: i64,
    /// The priority, and the time since when the fire has waited without a share.
    pub standing: Standing,
    /// Loaded with the first claim.
    pub job: Option<Arc<Job>>,
    /// None: it has to be looked up first.
    pub terms: Option<Terms>,
}

/// The subject of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Subject {
    Fire(i64),
    /// The executions that wait for this instance, in their order.
    Opening(i64),
}

impl Waiting {
    /// All of a fire that has been found.
    pub(super) fn all((fire, terms): (i64, Terms)) -> Self {
        let standing = Standing { priority: terms.priority, since_ms: terms.dealt_at_ms };
        Self { terms: Some(terms), ..Self::on(Subject::Fire(fire), 1..=i64::MAX, standing) }
    }

    /// Returns the turn of a fire on these instances, before its terms have been read.
    fn on(subject: Subject, instances: RangeInclusive<i64>, standing: Standing) -> Self {
        let (first, last) = instances.into_inner();
        Self { subject, after: first - 1, until: last, standing, job: None, terms: None }
    }

    /// Returns the turn of one execution of a fire.
    pub(super) fn one(fire: i64, instance: i64, terms: Terms, standing: Standing) -> Self {
        let one = Self::on(Subject::Fire(fire), instance..=instance, standing);
        Self { terms: Some(Terms { unfinished: 1, ..terms }), ..one }
    }

    /// Returns the turn of an instance that may have room for executions that wait for it.
    pub(super) fn opening(instance: i64, standing: Standing) -> Self {
        Self::on(Subject::Opening(instance), instance..=instance, standing)
    }

    pub(super) fn limits(&self) -> Option<&Arc<FireLimits>> {
        self.terms.as_ref().and_then(|terms| terms.limits.as_ref())
    }

    /// Returns the number of executions that wait. If the number has not been read yet, returns 1, because too low a
    /// guess never leaves a place empty.
    fn size(&self) -> usize {
        self.terms.as_ref().map_or(1, |terms| terms.unfinished)
    }

    pub(super) fn level(&self, now_ms: i64) -> u8 {
        self.standing.level(now_ms)
    }

    /// Adds more executions of the same subject that may be claimed.
    fn widen(&mut self, by: Self) {
        self.after = self.after.min(by.after);
        self.until = self.until.max(by.until);
        self.standing.since_ms = self.standing.since_ms.min(by.standing.since_ms);
        self.terms = match (self.terms.take(), by.terms) {
            (Some(own), Some(other)) => {
                let unfinished = own.unfinished.saturating_add(other.unfinished);
                Some(Terms { unfinished, ..own })
            }
            _ => None,
        };
    }
}

/// A look for new fires. For each priority: the fire after which it begins, and how many fires it takes at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Looks {
    pub after: [i64; LEVELS],
    pub max: [usize; LEVELS],
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
    pub looks: Option<Looks>,
    /// Whether each fire is served in a savepoint, because one of them cannot be served.
    pub is_careful: bool,
    /// The places within bounds that only the step of this plan may use.
    pub handed_over: HandedOver,
    /// The instances on which executions have ended and others may wait.
    pub freed: Vec<i64>,
    /// Fires and instances that cannot be served, and that a look may find.
    pub set_aside: Arc<HashSet<Subject>>,
}

/// What a plan came to.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// Turns that were not served: new fires without room, or with limits that have to be counted first; instances
    /// whose turn has not come.
    pub unserved: Vec<Waiting>,
    /// Fires of the plan's turn that nothing was left for.
    pub passed_over: Vec<Waiting>,
    /// Served, and with executions left.
    pub served: Vec<Waiting>,
    /// Of each fire of the plan's turn, how many executions were claimed.
    pub claimed: Vec<usize>,
    /// Of each look, the newest fire found, and whether there may be newer ones still.
    pub found: [(Option<i64>, bool); LEVELS],
    /// Fires that cannot be served because of a record.
    pub set_aside: Vec<i64>,
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

/// The turns, by level. A fire or an instance has one at a time.
#[derive(Debug, Default)]
struct Turn {
    levels: BTreeMap<u8, VecDeque<Waiting>>,
    /// The subjects that have a turn. A fire keeps here its other executions that may be claimed, and has another
    /// turn for them after this turn.
    subjects: foldhash::HashMap<Subject, Option<Waiting>>,
    /// The number of turns of each priority.
    known: [usize; LEVELS],
}

impl Turn {
    fn count(&mut self, one: &Waiting) -> &mut usize {
        &mut self.known[usize::from(one.standing.priority.min(PRIORITY_MAX))]
    }

    fn push(&mut self, level: u8, one: Waiting) {
        if let Some(one) = self.admit(one) {
            self.levels.entry(level).or_default().push_back(one);
        }
    }

    fn push_first(&mut self, level: u8, one: Waiting) {
        if let Some(one) = self.admit(one) {
            self.levels.entry(level).or_default().push_front(one);
        }
    }

    /// Returns the entry that is to have a turn, unless its subject has a turn already.
    fn admit(&mut self, one: Waiting) -> Option<Waiting> {
        match self.subjects.entry(one.subject) {
            Entry::Vacant(place) => {
                place.insert(None);
                *self.count(&one) += 1;
                return Some(one);
            }
            // An instance is looked at as it is when its turn comes.
            Entry::Occupied(_) if matches!(one.subject, Subject::Opening(_)) => {}
            Entry::Occupied(mut place) => match place.get_mut() {
                Some(again) => again.widen(one),
                again => *again = Some(one),
            },
        }
        None
    }

    fn pop(&mut self, level: u8) -> Option<Waiting> {
        let queue = self.levels.get_mut(&level)?;
        let one = queue.pop_front();
        if queue.is_empty() {
            self.levels.remove(&level);
        }
        if let Some(one) = &one {
            *self.count(one) -= 1;
            if let Some(again) = self.subjects.remove(&one.subject).flatten() {
                self.push(level, again);
            }
        }
        one
    }

    fn top(&self) -> Option<u8> {
        self.levels.last_key_value().map(|(level, _)| *level)
    }
}

/// The bounds that fires have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Class {
    /// The invocation and its bound, if there is a bound.
    invocation: Option<(i64, usize)>,
    key: Option<Arc<str>>,
}

impl Class {
    fn of(limits: &FireLimits) -> Self {
        let invocation = limits.concurrency_max.map(|max| (limits.invocation, max));
        Self { invocation, key: limits.concurrency_key.clone() }
    }
}

/// The place of a fire in a line: by priority and age, then by arrival.
type Rank = (i64, u64);

/// The fires of a class.
#[derive(Debug)]
struct Line {
    limits: Arc<FireLimits>,
    /// The bound that had no room for the first fire of the line.
    under: Bound,
    fires: BTreeMap<Rank, Waiting>,
    /// The place of each fire in the line.
    ranks: foldhash::HashMap<Subject, Rank>,
}

/// Fires that wait for room within a bound. Each class waits for one bound at a time: if that bound has room and
/// another bound of the class has none, the class waits for the other. Invariant: if a bound has room and a class
/// waits for it, a fire with that bound has its turn, or is in a plan. Each outcome for that fire calls the next
/// fire, so no fire waits while all of its bounds have room.
#[derive(Debug, Default)]
struct Parked {
    lines: HashMap<Class, Line>,
    by_bound: HashMap<Bound, BTreeSet<(Rank, Class)>>,
    /// The number of fires that wait for each bound.
    counts: HashMap<Bound, usize>,
    arrivals: u64,
}

impl Parked {
    /// Returns false if this fire is to be forgotten because too many fires wait for the bound.
    fn park(&mut self, under: Bound, limits: &Arc<FireLimits>, waiting: Waiting) -> bool {
        self.arrivals += 1;
        let rank = (waiting.standing.rank(), self.arrivals);
        let class = Class::of(limits);
        let mut line = self.take(&class).unwrap_or_else(|| Line {
            limits: Arc::clone(limits),
            under: under.clone(),
            fires: BTreeMap::new(),
            ranks: foldhash::HashMap::default(),
        });
        let before = self.counts.get(&under).copied().unwrap_or_default() + line.fires.len();
        line.under = under;
        let known = line.ranks.get(&waiting.subject).and_then(|rank| line.fires.get_mut(rank));
        let is_kept = known.is_some() || before < PARKED_MAX;
        match known {
            Some(known) => known.widen(waiting),
            None if is_kept => {
                line.ranks.insert(waiting.subject, rank);
                line.fires.insert(rank, waiting);
            }
            None => {}
        }
        self.put(class, line);
        is_kept
    }

    /// Removes the line of a class and returns it.
    fn take(&mut self, class: &Class) -> Option<Line> {
        let line = self.lines.remove(class)?;
        if let Some(count) = self.counts.get_mut(&line.under) {
            *count -= line.fires.len();
            if *count == 0 {
                self.counts.remove(&line.under);
            }
        }
        if let (Some(lines), Some(first)) = (self.by_bound.get_mut(&line.under), line.first()) {
            lines.remove(&(first, class.clone()));
            if lines.is_empty() {
                self.by_bound.remove(&line.under);
            }
        }
        Some(line)
    }

    fn put(&mut self, class: Class, line: Line) {
        let Some(first) = line.first() else { return };
        *self.counts.entry(line.under.clone()).or_default() += line.fires.len();
        self.by_bound.entry(line.under.clone()).or_default().insert((first, class.clone()));
        self.lines.insert(class, line);
    }

    /// Takes the next fire that waits for a bound and for which all of its bounds have room. A class that another bound
    /// holds back waits for that bound from then on.
    fn call(
        &mut self,
        bound: &Bound,
        room: impl Fn(&FireLimits) -> Result<usize, Bound>,
    ) -> Option<Waiting> {
        let (mut called, mut held_back) = (None, Vec::new());
        for (_, class) in self.by_bound.get(bound)? {
            let Some(line) = self.lines.get(class) else { continue };
            match (room(&line.limits), bound) {
                (Ok(_), _) => {
                    called = Some(class.clone());
                    break;
                }
                // A key has one number of places: if it is full for one class, it is full for all.
                (Err(full), Bound::Key(_)) if full == *bound => break,
                // A percentage gives a different number for each fire, so another class may have a larger share.
                (Err(full), Bound::Invocation(_)) if full == *bound => {}
                (Err(full), _) => held_back.push((class.clone(), full)),
            }
        }
        for (class, full) in held_back {
            let Some(mut line) = self.take(&class) else { continue };
            line.under = full;
            self.put(class, line);
        }
        let class = called?;
        let mut line = self.take(&class)?;
        let first = line.fires.pop_first().map(|(_, waiting)| waiting);
        if let Some(first) = &first {
            line.ranks.remove(&first.subject);
        }
        self.put(class, line);
        first
    }
}

impl Line {
    fn first(&self) -> Option<Rank> {
        self.fires.first_key_value().map(|(rank, _)| *rank)
    }
}

/// Fires that wait for a bound in the database, and are not in memory.
#[derive(Debug)]
struct Forgotten {
    /// The first of these fires, for each priority.
    from: [i64; LEVELS],
    /// The greatest number of executions that one of these fires lets run within the bound.
    max: usize,
}

/// The fires in turn.
#[derive(Debug)]
pub(super) struct Backlog {
    turn: Turn,
    bounds: Arc<Bounds>,
    /// The places within bounds that the next plan may use, and no other step.
    handed_over: HandedOver,
    parked: Parked,
    /// The forgotten fires by the bound that they wait for. Because a full bound has a used place, there are no more
    /// such bounds than used places.
    forgotten: HashMap<Bound, Forgotten>,
    aged_at_ms: i64,
    /// The newest fires seen, by priority. Later fires have higher numbers.
    newest: [i64; LEVELS],
    /// For each priority, the fire at which the next look is to begin again, once the looks under way have found all
    /// new fires. Otherwise a look that is made to begin again would never come to an end.
    again_from: [i64; LEVELS],
    /// Whether the database may hold fires newer than those.
    may_have_new: bool,
    /// Whether a plan that is being carried out looks for those: one at a time does.
    is_looking: bool,
    /// Plans for places that are being carried out.
    under_way: Vec<PlanUnderWay>,
    plans_made: u64,
    /// Whether the last plan used its places: the fires have what they are taken for.
    sizes_hold: bool,
    /// Whether the next plan looks for the record that made the last plan fail.
    is_careful: bool,
    /// Fires and instances that cannot be served, and so have no turn any more.
    set_aside: Arc<HashSet<Subject>>,
}

impl Backlog {
    /// A backlog that has yet to look into the database.
    pub(super) fn new(bounds: Arc<Bounds>) -> Self {
        Self {
            turn: Turn::default(),
            bounds,
            handed_over: HandedOver::default(),
            parked: Parked::default(),
            forgotten: HashMap::new(),
            aged_at_ms: i64::MIN,
            newest: [0; LEVELS],
            again_from: [i64::MAX; LEVELS],
            may_have_new: true,
            is_looking: false,
            under_way: Vec::new(),
            plans_made: 0,
            sizes_hold: true,
            is_careful: false,
            set_aside: Arc::default(),
        }
    }

    /// New work has been stored.
    pub(super) fn expect_new(&mut self) {
        self.may_have_new = true;
    }

    /// Fires have executions to claim again. Each has one turn for all that have come together, however many
    /// those are, and is looked through from the first of their instances to the last.
    pub(super) fn release(&mut self, released: impl IntoIterator<Item = Released>) {
        let mut fires = BTreeMap::<i64, (RangeInclusive<i64>, Standing)>::new();
        for one in released {
            let (fire, on, since) = match one {
                Released::Fire { fire, instance, standing } => (fire, instance, standing),
                Released::Instance(instance) => {
                    self.open([instance]);
                    continue;
                }
            };
            let (first, last) = on.map_or((1, i64::MAX), |one| (one, one));
            let (all, standing) = fires.entry(fire).or_insert((first..=last, since));
            *all = first.min(*all.start())..=last.max(*all.end());
            standing.since_ms = standing.since_ms.min(since.since_ms);
        }
        for (fire, (instances, standing)) in fires {
            let subject = Subject::Fire(fire);
            let priority = standing.priority.min(PRIORITY_MAX);
            let is_crowded = self.turn.known[usize::from(priority)] >= RELEASED_MAX;
            if is_crowded && !self.turn.subjects.contains_key(&subject) {
                self.look_again_from(priority, fire);
            } else {
                self.join([Waiting::on(subject, instances, standing)]);
            }
        }
    }

    /// Asks for a new look through the database, from this fire on.
    fn look_again_from(&mut self, priority: u8, fire: i64) {
        let from = &mut self.again_from[usize::from(priority.min(PRIORITY_MAX))];
        *from = fire.min(*from);
        if !self.may_have_new && !self.is_looking {
            self.begin_again([false; LEVELS]);
        }
    }

    /// Begins the looks that were asked for, unless the looks under way have more to find.
    fn begin_again(&mut self, have_more: [bool; LEVELS]) {
        let places = self.newest.iter_mut().zip(&mut self.again_from);
        for ((newest, from), has_more) in places.zip(have_more) {
            if !has_more && *from < i64::MAX {
                *newest = (*newest).min(*from - 1);
                *from = i64::MAX;
                self.may_have_new = true;
            }
        }
    }

    /// Gives a turn to instances that may have room for executions that wait. Because the level of these executions
    /// is not known, the turn has the highest level.
    pub(super) fn open(&mut self, instances: impl IntoIterator<Item = i64>) {
        let standing = Standing { priority: PRIORITY_MAX, since_ms: self.aged_at_ms };
        self.join(instances.into_iter().map(|one| Waiting::opening(one, standing)));
    }

    /// An execution within these limits runs, whether or not there was room for it.
    pub(super) fn occupy(&mut self, limits: &FireLimits) {
        self.bounds.occupy(limits);
    }

    /// Executions within these limits have ended. The next plan may use their places, and its step writes their ends.
    pub(super) fn hand_over<'a>(&mut self, ended: impl Iterator<Item = &'a FireLimits> + Clone) {
        self.handed_over = self.bounds.hand_over(ended.clone());
        ended.for_each(|limits| self.rouse(limits));
    }

    fn give_back(&mut self, limits: &FireLimits, count: usize) {
        if count > 0 {
            self.bounds.give_back(limits, count);
        }
        self.rouse(limits);
    }

    /// Gives a turn to the next fire that waits within each of these bounds. If that fire has no executions left, or
    /// leaves room, the fire after it gets its turn once that is known.
    pub(super) fn rouse(&mut self, limits: &FireLimits) {
        if self.parked.lines.is_empty() && self.forgotten.is_empty() {
            return;
        }
        let bounds = Arc::clone(&self.bounds);
        for (bound, _) in bounds.of(limits) {
            loop {
                let room = |limits: &FireLimits| bounds.room(limits, &self.handed_over);
                let Some(next) = self.parked.call(&bound, room) else {
                    self.find_forgotten(&bound);
                    break;
                };
                // A fire that is set aside calls no other fire.
                if !self.is_set_aside(&next) {
                    self.join([next]);
                    break;
                }
            }
        }
    }

    /// Forgets a fire that waits for a bound, and remembers that the bound has such a fire.
    fn forget(
        &mut self,
        under: Bound,
        limits: &FireLimits,
        (subject, standing): (Subject, Standing),
    ) {
        let Subject::Fire(fire) = subject else { return };
        let max = self.bounds.of(limits).find(|(bound, _)| *bound == under);
        let max = max.map_or(usize::MAX, |(_, max)| max);
        let forgotten = self.forgotten.entry(under);
        let forgotten = forgotten.or_insert_with(|| Forgotten { from: [i64::MAX; LEVELS], max: 0 });
        forgotten.max = forgotten.max.max(max);
        let from = &mut forgotten.from[usize::from(standing.priority.min(PRIORITY_MAX))];
        *from = fire.min(*from);
    }

    /// Asks for a look for forgotten fires that wait for a bound, if the bound has room for one of them.
    fn find_forgotten(&mut self, bound: &Bound) {
        let Some(forgotten) = self.forgotten.get(bound) else { return };
        if self.bounds.used(bound, &self.handed_over) >= forgotten.max {
            return;
        }
        let Some(Forgotten { from, .. }) = self.forgotten.remove(bound) else { return };
        for (priority, fire) in (0..).zip(from).filter(|(_, fire)| *fire < i64::MAX) {
            self.look_again_from(priority, fire);
        }
    }

    /// Gives turns to fires and instances. A fire that is set aside gets no turn, and the next fire is called in its
    /// place.
    fn join(&mut self, waiting: impl IntoIterator<Item = Waiting>) {
        let mut dropped = Vec::new();
        for one in waiting {
            if self.is_set_aside(&one) {
                dropped.extend(one.limits().map(Arc::clone));
            } else {
                self.turn.push(one.level(self.aged_at_ms), one);
            }
        }
        for limits in dropped {
            self.rouse(&limits);
        }
    }

    fn put_first(&mut self, waiting: Waiting) {
        if !self.is_set_aside(&waiting) {
            self.turn.push_first(waiting.level(self.aged_at_ms), waiting);
        }
    }

    fn is_set_aside(&self, one: &Waiting) -> bool {
        !self.set_aside.is_empty() && self.set_aside.contains(&one.subject)
    }

    fn has_turn(&self) -> bool {
        !self.turn.levels.is_empty()
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

    /// Returns these instances, each once and without those that are set aside.
    pub(super) fn freed(&self, instances: impl Iterator<Item = i64>) -> Vec<i64> {
        let is_served = |one: &i64| !self.set_aside.contains(&Subject::Opening(*one));
        let mut freed: Vec<_> = instances.filter(is_served).collect();
        freed.sort_unstable();
        freed.dedup();
        freed
    }

    /// Takes the turn from a fire or an instance that cannot be served because of a damaged page.
    pub(super) fn set_aside(&mut self, subject: Subject) {
        Arc::make_mut(&mut self.set_aside).insert(subject);
    }

    /// Makes the next plan look for the record that made the last plan fail.
    pub(super) fn be_careful(&mut self) {
        self.is_careful = true;
    }

    /// Whose turn it is for `room` places: those of the highest level known. Until the plan is
    /// [applied](Self::apply) or [given up](Self::give_up), others are made without those.
    pub(super) fn plan(&mut self, room: usize, now_ms: i64) -> Plan {
        self.age(now_ms);
        let (mut turn, mut level) = (Vec::new(), 0);
        while turn.is_empty() && room > 0 {
            let Some(top) = self.turn.top() else { break };
            // What a plan of a higher level leaves over comes first.
            if self.under_way.iter().any(|other| other.is_short && other.level > top) {
                break;
            }
            level = top;
            turn = self.take_turn(level, room);
        }
        let looks = (room > 0 && self.may_have_new && !self.is_looking).then(|| self.looks());
        let looks = looks.filter(|looks| looks.max.iter().any(|max| *max > 0));
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
        let is_careful = self.is_careful;
        let handed_over = std::mem::take(&mut self.handed_over);
        let (freed, set_aside) = (Vec::new(), Arc::clone(&self.set_aside));
        Plan { turn, room, beside, number, looks, is_careful, handed_over, freed, set_aside }
    }

    /// Takes fires of a level, until what they have uses up `room` places; the others are left for the next
    /// plan, which is made while this one is carried out.
    fn take_turn(&mut self, level: u8, room: usize) -> Vec<(Waiting, usize)> {
        let (mut turn, mut left) = (Vec::new(), room);
        while left > 0 {
            let Some(waiting) = self.turn.pop(level) else { break };
            let Some((waiting, most)) = self.grant(waiting, room) else { continue };
            let size = if self.sizes_hold { waiting.size().min(most).min(SHARE_MIN) } else { 1 };
            left = left.saturating_sub(size.max(1));
            turn.push((waiting, most));
        }
        turn
    }

    fn looks(&self) -> Looks {
        Looks {
            after: self.newest,
            max: self.turn.known.map(|known| FIRES_MAX.saturating_sub(known)),
        }
    }

    /// Takes up to `room` places within the bounds of a fire. Returns `None` if a bound is full: the fire is then
    /// parked. In both cases the next fire is called within each bound that has room left.
    fn grant(&mut self, waiting: Waiting, room: usize) -> Option<(Waiting, usize)> {
        let Some(limits) = waiting.limits().map(Arc::clone) else { return Some((waiting, room)) };
        // A fire takes no more places than it has executions, so that other fires within the same bounds start in the
        // same plan.
        let most = room.min(waiting.size().max(1));
        let granted = match self.bounds.take(&limits, most, &self.handed_over) {
            Ok(most) => Some((waiting, most)),
            Err(full) => {
                let (subject, standing) = (waiting.subject, waiting.standing);
                if !self.parked.park(full.clone(), &limits, waiting) {
                    self.forget(full, &limits, (subject, standing));
                }
                None
            }
        };
        self.rouse(&limits);
        granted
    }

    /// Gives those that have waited long a higher level.
    fn age(&mut self, now_ms: i64) {
        let since = now_ms.saturating_sub(self.aged_at_ms);
        if (0..AGED_EVERY_MS).contains(&since) {
            return;
        }
        self.aged_at_ms = now_ms;
        let Turn { levels, subjects, .. } = std::mem::take(&mut self.turn);
        // Those that had more before go before those that have as much now.
        self.join(levels.into_values().rev().flatten());
        self.join(subjects.into_values().flatten());
    }

    /// Takes note of what a plan came to: fires that were not served join the turn, those that were go
    /// behind them, those with nothing left are gone.
    pub(super) fn apply(&mut self, plan: &Plan, taken: Taken) {
        self.under_way.retain(|one| one.number != plan.number);
        self.is_careful &= !plan.is_careful;
        for fire in taken.set_aside {
            self.set_aside(Subject::Fire(fire));
        }
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
            self.begin_again(taken.found.map(|(_, more)| more));
        }
        self.rouse_undone();
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
        self.rouse_undone();
    }

    /// Calls fires that found a bound full because of a place that an undone transaction has given back.
    fn rouse_undone(&mut self) {
        for limits in self.bounds.take_undone() {
            self.rouse(&limits);
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

    use crate::invocation::rate_control::PRIORITY;

    const NOW: i64 = 1_000_000;

    fn terms(priority: u8) -> Terms {
        Terms { priority, dealt_at_ms: NOW, unfinished: 1, limits: None }
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

    /// Sets the number of executions of a turn.
    fn sized(waiting: Waiting, unfinished: usize) -> Waiting {
        let terms = waiting.terms.map(|terms| Terms { unfinished, ..terms });
        Waiting { terms, ..waiting }
    }

    fn empty() -> Backlog {
        Backlog::new(Arc::new(Bounds::new([("wide".to_owned(), 3)].into())))
    }

    /// One that has looked, and found these.
    fn with(found: impl IntoIterator<Item = Waiting>) -> Backlog {
        let mut backlog = empty();
        let plan = backlog.plan(1, NOW);
        backlog.apply(&plan, Taken { unserved: found.into_iter().collect(), ..Taken::default() });
        backlog
    }

    fn turn(plan: &Plan) -> Vec<i64> {
        plan.turn.iter().map(|(waiting, _)| fire_of(waiting)).collect()
    }

    fn fire_of(waiting: &Waiting) -> i64 {
        match waiting.subject {
            Subject::Fire(fire) => fire,
            Subject::Opening(instance) => panic!("an opening of instance {instance}"),
        }
    }

    /// Returns the result of a look that found these fires, all of the same priority.
    fn found(fires: std::ops::RangeInclusive<i64>, more_new: bool) -> Taken {
        let mut found = [(None, false); LEVELS];
        found[usize::from(PRIORITY)] = (Some(*fires.end()), more_new);
        Taken { found, unserved: fires.map(waiting).collect(), ..Taken::default() }
    }

    /// Returns the greatest numbers of fires of a look, by priority.
    fn looks_for(max: impl Fn(u8) -> usize) -> [usize; LEVELS] {
        let mut all = (0..).map(max);
        [(); LEVELS].map(|()| all.next().expect("without end"))
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
        let narrow = |fire, max| sized(limited(fire, fire, max, None), 100);
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
        let all = Looks { after: [0; LEVELS], max: [FIRES_MAX; LEVELS] };
        assert_eq!((plan.turn.len(), plan.looks), (0, Some(all)));
        backlog.apply(&plan, found(1..=5, false));
        let mut order = Vec::new();
        for _ in 0..4 {
            let plan = backlog.plan(2, NOW);
            assert_eq!(plan.looks, None);
            order.extend(turn(&plan));
            // Fire 1 has nothing left after its first turn.
            let served = plan.turn.iter().map(|(one, _)| one.clone()).filter(|w| fire_of(w) != 1);
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
        let after = |plan: &Plan| plan.looks.map(|looks| looks.after);
        let mut backlog = empty();
        backlog.pass_over(3);
        assert!(!backlog.is_idle());
        let plan = backlog.plan(1, NOW);
        assert_eq!(after(&plan), Some([0; LEVELS]), "others may have come before it");
        backlog.pass_over(4);
        backlog.apply(&plan, Taken::default());
        assert!(backlog.is_idle());
        backlog.pass_over(5);
        backlog.expect_new();
        backlog.pass_over(6);
        assert_eq!(after(&backlog.plan(1, NOW)), Some([5; LEVELS]));
    }

    /// Each would have its own share, be looked up for itself, and keep others from being looked for.
    #[test]
    fn what_a_fire_has_to_claim_again_has_one_turn() {
        let standing = Standing { priority: PRIORITY, since_ms: NOW };
        let on = |fire, instance| Released::Fire { fire, instance, standing };
        let mut backlog = empty();
        backlog.release([on(2, Some(7)), on(1, Some(9)), on(1, Some(3)), on(2, None)]);
        backlog.release([on(1, Some(4))]);
        let turn = backlog.plan(8, NOW).turn;
        let turn: Vec<_> =
            turn.iter().map(|(one, _)| (fire_of(one), one.after, one.until)).collect();
        assert_eq!(turn, [(1, 2, 9), (2, 0, i64::MAX), (1, 3, 4)]);
    }

    /// A thousand invocations of the lowest priority must not hide an invocation of the next priority.
    #[test]
    fn fires_of_one_priority_hide_none_of_another() {
        let full = looks_for(|priority| if priority == PRIORITY { 1 } else { FIRES_MAX });
        let mut backlog = empty();
        let plan = backlog.plan(1, NOW);
        backlog.apply(&plan, found(1..=FIRES_MAX as i64, true));
        let plan = backlog.plan(1, NOW);
        assert_eq!(plan.looks.map(|looks| looks.max), Some(full), "one is being served");
        let mut found = [(None, false); LEVELS];
        found[usize::from(PRIORITY)].1 = true;
        backlog.apply(&plan, Taken { found, ..Taken::default() });
        assert!(backlog.may_have_work());
        let plan = backlog.plan(FIRES_MAX, NOW);
        let after = plan.looks.map(|looks| looks.after[usize::from(PRIORITY)]);
        assert_eq!(after, Some(FIRES_MAX as i64));
    }

    /// They would all come into memory, and none that is urgent would be looked for.
    #[test]
    fn old_fires_are_counted_for_what_they_are() {
        let mut backlog = empty();
        let plan = backlog.plan(1, NOW);
        backlog.apply(&plan, found(1..=FIRES_MAX as i64, true));
        let plan = backlog.plan(1, NOW + 60_000);
        // One is being served.
        let full = looks_for(|priority| if priority == PRIORITY { 1 } else { FIRES_MAX });
        assert_eq!(plan.looks.map(|looks| looks.max), Some(full));
    }

    #[test]
    fn the_highest_priority_comes_first_and_age_counts() {
        let check = |fires: &[(i64, u8, i64)], now_ms, want: &[i64]| {
            let fires = fires.iter().map(|&(fire, priority, waited_s)| {
                let dealt_at_ms = now_ms - 1_000 * waited_s;
                Waiting::all((fire, Terms { dealt_at_ms, ..terms(priority) }))
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
            let mut backlog = with(waits.into_iter().map(|one| sized(one, 8)));
            let mut had = Vec::new();
            // All that is granted is taken, and goes on running.
            while backlog.has_turn() {
                let plan = backlog.plan(2, NOW);
                had.extend(plan.turn.iter().map(|(waiting, most)| (fire_of(waiting), *most)));
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
        backlog.give_back(&limits, 1);
        let second = backlog.plan(3, NOW);
        assert_eq!(turn(&second), [2]);
        // It has nothing left: the next is called.
        backlog.apply(&second, Taken { claimed: vec![0], ..Taken::default() });
        let third = backlog.plan(3, NOW);
        assert_eq!(turn(&third), [3]);
        backlog.give_up(&third);
        assert_eq!(turn(&backlog.plan(3, NOW)), [3]);
    }

    /// A thousand classes wait, and the test counts how many of them are asked for their room.
    #[test]
    fn a_call_asks_each_class_at_most_once_and_stops_at_a_full_key() {
        const CLASSES: usize = 1_000;
        let check = |bound: Bound, room_for: Option<usize>, asks: usize| {
            let mut parked = Parked::default();
            for number in 1..=CLASSES {
                let invocation = if matches!(bound, Bound::Key(_)) { number as i64 } else { 1 };
                let one = limited(number as i64, invocation, Some(number), Some("narrow"));
                let limits = one.limits().map(Arc::clone).expect("it has some");
                parked.park(bound.clone(), &limits, one);
            }
            let asked = std::cell::Cell::new(0);
            let called = parked.call(&bound, |limits| {
                asked.set(asked.get() + 1);
                match room_for == limits.concurrency_max {
                    true => Ok(1),
                    false => Err(bound.clone()),
                }
            });
            let called = called.as_ref().map(|one| fire_of(one) as usize);
            assert_eq!((called, asked.get()), (room_for, asks), "{bound:?}");
        };
        let key = || Bound::Key("narrow".into());
        check(key(), None, 1);
        check(key(), Some(1), 1);
        check(Bound::Invocation(1), None, CLASSES);
        check(Bound::Invocation(1), Some(CLASSES), CLASSES);
        check(Bound::Invocation(1), Some(10), 10);
    }

    #[test]
    fn a_fire_that_is_set_aside_keeps_its_place_from_nobody() {
        let check = |set_aside_in_turn: bool| {
            let key = |fire| limited(fire, fire, None, Some("narrow"));
            let mut backlog = with([key(1), key(2), key(3), key(4)]);
            let first = backlog.plan(4, NOW);
            assert_eq!(turn(&first), [1]);
            backlog.apply(&first, Taken { claimed: vec![1], ..Taken::default() });
            let limits = first.turn[0].0.limits().map(Arc::clone).expect("a key");
            let set_aside = |backlog: &mut Backlog| {
                for fire in [2, 3] {
                    backlog.set_aside(Subject::Fire(fire));
                }
            };
            if !set_aside_in_turn {
                set_aside(&mut backlog);
            }
            backlog.give_back(&limits, 1);
            if set_aside_in_turn {
                set_aside(&mut backlog);
            }
            // The levels of turns change only as they age.
            assert_eq!(turn(&backlog.plan(4, NOW + 2 * AGED_EVERY_MS)), [4]);
        };
        check(false);
        check(true);
    }

    #[test]
    fn a_fire_that_has_had_a_share_is_as_young_as_a_new_fire() {
        let mut backlog = with([waiting(1)]);
        let plan = backlog.plan(1, NOW + 40_000);
        let (mut served, _) = plan.turn[0].clone();
        assert_eq!(served.level(NOW + 40_000), PRIORITY + 4);
        served.standing.since_ms = NOW + 40_000;
        backlog.apply(&plan, Taken { served: vec![served], ..Taken::default() });
        let plan = backlog.plan(1, NOW + 45_000);
        assert_eq!(plan.turn[0].0.level(NOW + 45_000), PRIORITY);
    }

    #[test]
    fn a_fire_that_is_claimed_again_keeps_its_priority() {
        let on = |fire, priority| {
            let standing = Standing { priority, since_ms: NOW };
            Released::Fire { fire, instance: None, standing }
        };
        let mut backlog = with([waiting(1)]);
        backlog.release([on(2, PRIORITY + 1), on(3, PRIORITY - 1)]);
        let order = [(); 3].map(|()| {
            let plan = backlog.plan(1, NOW);
            backlog.apply(&plan, Taken { claimed: vec![1], ..Taken::default() });
            turn(&plan)
        });
        assert_eq!(order, [[2], [1], [3]]);
    }

    /// Two fires of an invocation that runs one execution at a time, and a fire of another invocation, wait for a
    /// key.
    #[test]
    fn a_bound_that_has_room_is_used_whatever_holds_back_the_first_in_line() {
        let wide = |fire, invocation, max| limited(fire, invocation, max, Some("wide"));
        let mut backlog = with([wide(1, 1, None), wide(2, 2, Some(1)), wide(3, 3, None)]);
        let first = backlog.plan(3, NOW);
        assert_eq!(turn(&first), [1, 2, 3]);
        backlog.apply(&first, Taken { claimed: vec![1; 3], ..Taken::default() });
        // All three places are taken, so the next fires wait for the key.
        let later = [wide(4, 2, Some(1)), wide(5, 2, Some(1)), wide(6, 6, None)];
        backlog.join(later);
        assert!(backlog.plan(3, NOW).turn.is_empty());
        let ends = |backlog: &mut Backlog, one: usize| {
            let limits = first.turn[one].0.limits().map(Arc::clone).expect("it has some");
            backlog.give_back(&limits, 1);
        };
        // The fires before it in the line may not run two executions at a time.
        ends(&mut backlog, 0);
        let second = backlog.plan(3, NOW);
        assert_eq!(turn(&second), [6]);
        backlog.apply(&second, Taken { claimed: vec![1], ..Taken::default() });
        ends(&mut backlog, 1);
        assert_eq!(turn(&backlog.plan(3, NOW)), [4]);
    }

    /// A share of an invocation's targets gives a different number for each fire.
    #[test]
    fn a_fire_is_held_to_its_own_share_and_not_to_that_of_another() {
        let mut backlog = with([limited(1, 7, Some(1), None)]);
        let first = backlog.plan(4, NOW);
        backlog.apply(&first, Taken { claimed: vec![1], ..Taken::default() });
        backlog.join([limited(2, 7, Some(1), None), sized(limited(3, 7, Some(3), None), 2)]);
        let second = backlog.plan(4, NOW);
        assert_eq!(
            second.turn.iter().map(|(one, most)| (fire_of(one), *most)).collect::<Vec<_>>(),
            [(3, 2)]
        );
        backlog.apply(&second, Taken { claimed: vec![2], ..Taken::default() });
        let limits = |plan: &Plan| plan.turn[0].0.limits().map(Arc::clone).expect("it has some");
        // One of three places becomes free. The fire with a smaller share may not have it.
        backlog.give_back(&limits(&first), 1);
        assert!(backlog.plan(4, NOW).turn.is_empty());
        (0..2).for_each(|_| backlog.give_back(&limits(&second), 1));
        assert_eq!(turn(&backlog.plan(4, NOW)), [2]);
    }

    #[test]
    fn an_instance_has_one_turn_however_often_it_is_freed() {
        let mut backlog = empty();
        for _ in 0..1_000 {
            backlog.open([7, 8]);
        }
        let plan = backlog.plan(64, NOW);
        let turn: Vec<_> = plan.turn.iter().map(|(one, _)| one.subject).collect();
        assert_eq!(turn, [Subject::Opening(7), Subject::Opening(8)]);
        // An instance that is freed during a look needs another look.
        backlog.open([7]);
        assert_eq!(backlog.plan(64, NOW).turn.len(), 1);
    }

    #[test]
    fn an_instance_that_is_set_aside_is_not_among_those_that_are_freed() {
        let mut backlog = empty();
        backlog.set_aside(Subject::Opening(8));
        assert_eq!(backlog.freed([9, 7, 8, 7].into_iter()), [7, 9]);
    }

    /// Fires with one execution each, as a database holds them.
    type Fires = BTreeMap<i64, Waiting>;

    /// Serves all of these fires, of which each execution ends at once. Returns the greatest number of fires in
    /// memory.
    fn serve_all(backlog: &mut Backlog, mut fires: Fires) -> usize {
        let at = usize::from(PRIORITY);
        let mut most = 0;
        while !fires.is_empty() {
            let plan = backlog.plan(8, NOW);
            assert!(!plan.is_empty(), "{} fires wait, and no fire has its turn", fires.len());
            let mut taken = Taken::default();
            if let Some(Looks { after, max }) = plan.looks {
                let new = fires.range(after[at] + 1..).take(max[at]);
                taken.unserved = new.map(|(_, one)| one.clone()).collect();
                let newest = taken.unserved.last().map(fire_of);
                taken.found[at] = (newest, taken.unserved.len() == max[at]);
            }
            let claim =
                |(one, _): &(Waiting, usize)| usize::from(fires.remove(&fire_of(one)).is_some());
            taken.claimed = plan.turn.iter().map(claim).collect();
            let claimed = taken.claimed.clone();
            backlog.apply(&plan, taken);
            for ((one, _), _) in plan.turn.iter().zip(claimed).filter(|(_, claimed)| *claimed > 0) {
                one.limits().into_iter().for_each(|limits| backlog.give_back(limits, 1));
            }
            let parked: usize = backlog.parked.lines.values().map(|line| line.fires.len()).sum();
            most = most.max(parked + backlog.turn.subjects.len());
        }
        most
    }

    #[test]
    fn so_many_fires_wait_for_a_bound_in_memory_and_the_others_in_the_database() {
        let check = |bound_of: &dyn Fn(i64) -> Waiting, bounds: usize| {
            let count = 5 * PARKED_MAX as i64;
            let most = serve_all(&mut empty(), (1..=count).map(|n| (n, bound_of(n))).collect());
            // Besides the fires that wait, memory holds the fires of one look, and one fire for each place.
            let max = bounds * PARKED_MAX + FIRES_MAX + 64;
            assert!(most <= max, "{most} fires in memory, and no more than {max} may be");
        };
        check(&|n| limited(n, n, None, Some("narrow")), 1);
        check(&|n| limited(n, 7, Some(2), None), 1);
        // Each fire has a class of its own.
        check(&|n| limited(n, n, Some(1), Some("wide")), 1);
        let mixed = |n| match n % 3 {
            0 => limited(n, n, None, Some("narrow")),
            1 => limited(n, 7, Some(2), Some("wide")),
            _ => waiting(n),
        };
        check(&mixed, 3);
    }

    #[test]
    fn so_many_released_fires_are_in_memory_and_the_others_in_the_database() {
        let standing = Standing { priority: PRIORITY, since_ms: NOW };
        let count = 5 * RELEASED_MAX as i64;
        let mut backlog = with([]);
        for fire in (1..=count).rev() {
            backlog.release([Released::Fire { fire, instance: Some(3), standing }]);
        }
        assert!(backlog.turn.subjects.len() <= RELEASED_MAX);
        let most = serve_all(&mut backlog, (1..=count).map(|n| (n, waiting(n))).collect());
        assert!(most <= RELEASED_MAX + FIRES_MAX, "{most} fires in memory");
    }
}
