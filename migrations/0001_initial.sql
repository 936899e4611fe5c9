-- The data model. Conventions: every table has an INTEGER PRIMARY KEY, foreign keys carry the name of the noun they
-- point to, instants are milliseconds since 1970 in columns that end in _ms (retry_at_ms, wave_at_ms and since_ms are
-- steady time, which no step of the clock changes), and the CHECK constraints repeat what the state machine in the
-- library says. Constraints with more than two values are written out where rows come and go fast: for a longer IN
-- (...) SQLite builds a table in memory for each row that is written, which takes longer than writing the row.

-- Facts about the file: the engine that ran it last, the zone data with which its timers were planned.
CREATE TABLE meta (
    id    INTEGER PRIMARY KEY,
    key   TEXT NOT NULL UNIQUE,
    value TEXT NOT NULL
) STRICT;

-- The engine that runs the file, and the mark that ties the log to the file. A new mark is written right before the
-- log begins anew, and the first transaction of the log repeats the first half of the mark. Because the mark is the
-- last column and has a fixed length, it lies at the end of the table's only page, where it is found without SQLite.
CREATE TABLE ownership (
    id     INTEGER PRIMARY KEY CHECK (id = 1),
    engine INTEGER NOT NULL,
    mark   BLOB NOT NULL CHECK (length(mark) = 16)
) STRICT;

CREATE TABLE instances (
    id                INTEGER PRIMARY KEY,
    instance_id       TEXT NOT NULL UNIQUE CHECK (instance_id <> ''),
    name              TEXT NOT NULL,
    os_type           TEXT NOT NULL CHECK (os_type IN ('Linux', 'Windows')),
    state             TEXT NOT NULL CHECK (state IN ('Running', 'Stopped')),
    executor          TEXT NOT NULL,
    -- What serves it there, whether that is up, and when it last was.
    agent_status      TEXT NOT NULL CHECK (agent_status IN ('Online', 'Offline', 'NotInstalled')),
    agent_version     TEXT NOT NULL,
    seen_at_ms        INTEGER,
    -- Kinds that no invocation may mix, where the limits say so.
    kind              TEXT,
    -- What else the host says of it, as JSON; NULL for nothing.
    attributes        TEXT,
    resource_group_id TEXT,
    time_zone         TEXT,
    -- What runs shell scripts there; NULL for the executor's own.
    shell             TEXT CHECK (shell <> ''),
    -- How many executions run on it at a time; NULL for any number.
    max_concurrency   INTEGER CHECK (max_concurrency > 0),
    boot_id           TEXT,
    -- Whether targets that wait for its boot have yet to hear of the one that it is in: 1, they are told of it and
    -- fire; 2, they take it for one that they know of.
    is_booting        INTEGER CHECK (is_booting IN (1, 2)),
    registered_at_ms  INTEGER NOT NULL,
    updated_at_ms     INTEGER NOT NULL,
    -- Records outlive their instance: a removed one keeps its row and comes back under its name.
    removed_at_ms     INTEGER
) STRICT;
CREATE INDEX instances_by_group ON instances (resource_group_id) WHERE removed_at_ms IS NULL;
CREATE INDEX instances_booting ON instances (id) WHERE is_booting IS NOT NULL;

CREATE TABLE instance_tags (
    id       INTEGER PRIMARY KEY,
    instance INTEGER NOT NULL REFERENCES instances ON DELETE CASCADE,
    key      TEXT NOT NULL,
    value    TEXT NOT NULL,
    UNIQUE (instance, key)
) STRICT;
CREATE INDEX instance_tags_by_value ON instance_tags (key, value, instance);

-- Scripts, once each: commands and invocations point here, so an invocation keeps what it was made from.
CREATE TABLE contents (
    id     INTEGER PRIMARY KEY,
    sha256 BLOB NOT NULL UNIQUE CHECK (length(sha256) = 32),
    bytes  BLOB NOT NULL
) STRICT;

CREATE TABLE commands (
    id               INTEGER PRIMARY KEY,
    command_id       BLOB NOT NULL UNIQUE CHECK (length(command_id) = 16),
    name             TEXT NOT NULL CHECK (name <> ''),
    description      TEXT NOT NULL,
    type             TEXT NOT NULL CHECK (type IN ('RunShellScript', 'RunPowerShellScript', 'RunBatScript')),
    content          INTEGER NOT NULL REFERENCES contents,
    working_dir      TEXT,
    timeout_s        INTEGER CHECK (timeout_s > 0),
    launcher         TEXT,
    username         TEXT,
    enable_parameter INTEGER NOT NULL DEFAULT 0 CHECK (enable_parameter IN (0, 1)),
    -- What parameters are that nothing is given for, and whose values are secret, as JSON.
    default_parameters TEXT,
    secret_parameters  TEXT,
    -- Where the whole output goes.
    output_to         TEXT,
    resource_group_id TEXT,
    created_at_ms    INTEGER NOT NULL,
    updated_at_ms    INTEGER NOT NULL
) STRICT;
CREATE INDEX commands_by_name ON commands (name);

CREATE TABLE command_tags (
    id      INTEGER PRIMARY KEY,
    command INTEGER NOT NULL REFERENCES commands ON DELETE CASCADE,
    key     TEXT NOT NULL,
    value   TEXT NOT NULL,
    UNIQUE (command, key)
) STRICT;

CREATE TABLE invocations (
    id                INTEGER PRIMARY KEY,
    invoke_id         BLOB NOT NULL UNIQUE CHECK (length(invoke_id) = 16),
    -- NULL: the command came with the invocation and has its digits for an id.
    command_id        BLOB CHECK (length(command_id) = 16),
    name              TEXT NOT NULL,
    description       TEXT NOT NULL,
    type              TEXT NOT NULL CHECK (
        type = 'RunShellScript' OR type = 'RunPowerShellScript' OR type = 'RunBatScript'),
    content           INTEGER NOT NULL REFERENCES contents,
    working_dir       TEXT,
    timeout_s         INTEGER CHECK (timeout_s > 0),
    termination_mode  TEXT NOT NULL CHECK (termination_mode IN ('Process', 'ProcessTree')),
    -- What its processes may use, as JSON; NULL for no limits.
    resource_limits   TEXT,
    -- Whether its runs go on when the host ends.
    survive_restarts  INTEGER NOT NULL CHECK (survive_restarts IN (0, 1)),
    repeat_mode       TEXT NOT NULL CHECK (
        repeat_mode = 'Once' OR repeat_mode = 'Period' OR repeat_mode = 'NextRebootOnly' OR repeat_mode = 'EveryReboot'),
    -- Of repeating ones: when, what if the one before still runs, what if it was slept through,
    -- over how long its fires are spread, when it ends, since when it pauses.
    frequency         TEXT,
    overlap_policy    TEXT CHECK (
        overlap_policy = 'Skip' OR overlap_policy = 'Queue' OR overlap_policy = 'Allow' OR overlap_policy = 'Replace'),
    missed_policy     TEXT,
    spread_s          INTEGER NOT NULL DEFAULT 0 CHECK (spread_s >= 0),
    end_at_ms         INTEGER,
    fires_max         INTEGER CHECK (fires_max > 0),
    paused_at_ms      INTEGER,
    -- How often an execution is tried, when again and after what, as JSON; NULL: once.
    retry             TEXT,
    -- How its executions are let loose, as JSON; NULL: all of them, as soon as there is room.
    rate_control      TEXT,
    launcher          TEXT,
    username          TEXT,
    -- A name in the host's store, never a password.
    windows_password_name TEXT,
    container_id      TEXT,
    container_name    TEXT,
    output_to         TEXT,
    -- The values given, as JSON; NULL if the script takes none.
    parameters        TEXT,
    default_parameters TEXT,
    secret_parameters TEXT,
    -- Whether the values of those are names in the host's store.
    secrets_are_names INTEGER NOT NULL CHECK (secrets_are_names IN (0, 1)),
    -- The most that the content may come to as Base64, its parameters filled in.
    content_bytes_max INTEGER NOT NULL,
    parameter_passing TEXT NOT NULL CHECK (parameter_passing IN ('Text', 'Environment')),
    resource_group_id TEXT,
    -- Who made it, as far as the host says.
    caller            TEXT,
    -- The one that it is another run of, where that did not succeed.
    retry_of          INTEGER REFERENCES invocations,
    -- When somebody first asked to stop all of it, who as far as the host says, and what for in their words.
    stop_at_ms        INTEGER,
    stopped_by        TEXT,
    stop_reason       TEXT,
    created_at_ms     INTEGER NOT NULL,
    -- The roll-up, once no execution and no timer is left; computed from them until then.
    status            TEXT CHECK (
        status = 'Success' OR status = 'Failed' OR status = 'PartialFailed' OR status = 'Stopped'),
    finished_at_ms    INTEGER,
    -- Until it ends: as long as those two mostly are, as in executions.
    room              BLOB,
    CHECK ((status IS NULL) = (finished_at_ms IS NULL)),
    CHECK ((repeat_mode = 'Period') = (frequency IS NOT NULL)),
    CHECK ((repeat_mode = 'Once') = (overlap_policy IS NULL))
) STRICT;
CREATE INDEX invocations_by_command ON invocations (command_id) WHERE command_id IS NOT NULL;
CREATE INDEX invocations_unfinished ON invocations (id) WHERE finished_at_ms IS NULL;
-- An invocation without a name costs the index nothing.
CREATE INDEX invocations_by_name ON invocations (name) WHERE name <> '';

CREATE TABLE invocation_tags (
    id         INTEGER PRIMARY KEY,
    invocation INTEGER NOT NULL REFERENCES invocations ON DELETE CASCADE,
    key        TEXT NOT NULL,
    value      TEXT NOT NULL,
    UNIQUE (invocation, key)
) STRICT;

-- One per invocation and time zone. NULL in next_fire_at_ms: it will not fire again.
CREATE TABLE timers (
    id              INTEGER PRIMARY KEY,
    invocation      INTEGER NOT NULL REFERENCES invocations ON DELETE CASCADE,
    zone            TEXT NOT NULL,
    next_fire_at_ms INTEGER,
    -- So long after its nominal times it fires: its place in the spread.
    delay_ms        INTEGER NOT NULL CHECK (delay_ms >= 0),
    -- When it is to fire; NULL while its invocation pauses.
    due_at_ms       INTEGER,
    -- How often it may still fire, if that is limited.
    fires_left      INTEGER CHECK (fires_left >= 0),
    -- Whether the last step with it stopped before the end of what was due.
    catching_up     INTEGER NOT NULL DEFAULT 0 CHECK (catching_up IN (0, 1)),
    -- The last nominal time that may have a record although it is after the next one, because the clock was ahead.
    fired_until_ms  INTEGER,
    UNIQUE (invocation, zone),
    CHECK (due_at_ms IS NULL OR due_at_ms = next_fire_at_ms + delay_ms),
    CHECK (due_at_ms IS NULL OR next_fire_at_ms IS NOT NULL)
) STRICT;
CREATE INDEX timers_due ON timers (due_at_ms) WHERE due_at_ms IS NOT NULL;

-- The instances that an invocation fires for, by a timer or at their boots. One that runs at once
-- has its executions instead.
CREATE TABLE targets (
    id          INTEGER PRIMARY KEY,
    invocation  INTEGER NOT NULL REFERENCES invocations ON DELETE CASCADE,
    instance    INTEGER NOT NULL REFERENCES instances,
    timer       INTEGER REFERENCES timers ON DELETE CASCADE,
    -- Without a timer: whether it fires at the next boot, and the boot it knows of.
    awaits_boot INTEGER NOT NULL DEFAULT 0 CHECK (awaits_boot IN (0, 1)),
    boot_id     TEXT,
    -- Whether it was taken out of the invocation, which goes on elsewhere.
    stopped     INTEGER NOT NULL DEFAULT 0 CHECK (stopped IN (0, 1)),
    -- Facts that a reader would otherwise have to look for in the whole history: the number of executions here, the
    -- last attempt of the latest fire, and the latest execution that says how the invocation stands here. A skipped
    -- execution, and one that waits for another, do not say that.
    executions_made    INTEGER NOT NULL DEFAULT 0,
    latest_execution   INTEGER,
    standing_execution INTEGER,
    UNIQUE (invocation, instance),
    CHECK (timer IS NULL OR awaits_boot = 0),
    CHECK (stopped = 0 OR (timer IS NULL AND awaits_boot = 0))
) STRICT;
CREATE INDEX targets_by_instance ON targets (instance);
-- Targets that wait for a boot: the index finds targets that do not know of the current boot of their instance.
CREATE INDEX targets_by_boot ON targets (instance, boot_id) WHERE awaits_boot = 1;

-- Exactly one row per nominal time of a timer; no timer for a run at once. Numbers are never used
-- again, for the dispatcher takes a higher one for a later one.
CREATE TABLE fires (
    id          INTEGER PRIMARY KEY,
    invocation  INTEGER NOT NULL REFERENCES invocations ON DELETE CASCADE,
    timer       INTEGER REFERENCES timers ON DELETE CASCADE,
    fire_at_ms  INTEGER NOT NULL,
    -- Withdrawn: a clock that was ahead wrote these times off, and they are to come again. Such a row belongs to no
    -- timer any more, and to no listing.
    disposition TEXT NOT NULL CHECK (
        disposition = 'Started' OR disposition = 'Skipped' OR disposition = 'Missed'
        OR disposition = 'Withdrawn'),
    reason      TEXT,
    -- A range of missed fires is one row: how many, and the last of them.
    count       INTEGER NOT NULL DEFAULT 1 CHECK (count > 0),
    until_ms    INTEGER,
    -- When the last of the times was due, for times that did not fire. If the clock goes back to before that, the
    -- record can be withdrawn.
    due_until_ms INTEGER,
    -- Its executions that have not ended, and those that have, by how; what is tried again has not.
    unfinished  INTEGER NOT NULL CHECK (unfinished >= 0),
    succeeded   INTEGER NOT NULL DEFAULT 0,
    failed      INTEGER NOT NULL DEFAULT 0,
    stopped     INTEGER NOT NULL DEFAULT 0,
    -- An instance after which no execution has been claimed; NULL if none has been claimed at all. The commit of a claim
    -- sets it, and recovery finds by it the executions that an engine has left running.
    claimed_until INTEGER,
    -- When it was dealt with, which is later than its nominal time.
    dealt_at_ms INTEGER NOT NULL,
    -- The same instant in steady time; NULL if both are the same.
    since_ms    INTEGER,
    -- What its invocation's rate control comes to for it; NULL where it says nothing.
    priority        INTEGER NOT NULL DEFAULT 5 CHECK (priority BETWEEN 0 AND 9),
    concurrency_max INTEGER CHECK (concurrency_max > 0),
    concurrency_key TEXT,
    errors_max      INTEGER CHECK (errors_max >= 0),
    -- Of waves: how many executions have been let loose, the last of them, and when more may be.
    opened          INTEGER CHECK (opened > 0),
    open_until      INTEGER,
    wave_at_ms      INTEGER,
    -- Until when an execution may start, and all of them have to end.
    start_by_ms     INTEGER,
    end_by_ms       INTEGER,
    CHECK ((opened IS NULL) = (open_until IS NULL)),
    CHECK (wave_at_ms IS NULL OR opened IS NOT NULL),
    CHECK (due_until_ms IS NULL OR timer IS NOT NULL)
) STRICT;
CREATE INDEX fires_by_invocation ON fires (invocation);
CREATE UNIQUE INDEX fires_by_timer ON fires (timer, fire_at_ms) WHERE timer IS NOT NULL;
-- The clock alone finds the records to be withdrawn: those of times that it has not reached.
CREATE INDEX fires_by_due_until ON fires (due_until_ms) WHERE due_until_ms IS NOT NULL;
-- The fires of a repeating invocation that no timer set off.
CREATE INDEX fires_beside_schedule ON fires (invocation, fire_at_ms) WHERE timer IS NULL AND reason IS NOT NULL;
-- The queue, by priority. Finished fires cost it nothing.
CREATE INDEX fires_unfinished ON fires (priority, id) WHERE unfinished > 0;
CREATE INDEX fires_claimed ON fires (id) WHERE claimed_until IS NOT NULL AND unfinished > 0;
CREATE INDEX fires_unfinished_by_invocation ON fires (invocation) WHERE unfinished > 0;
CREATE INDEX fires_by_wave ON fires (wave_at_ms) WHERE wave_at_ms IS NOT NULL AND unfinished > 0;
CREATE INDEX fires_by_start ON fires (start_by_ms) WHERE start_by_ms IS NOT NULL AND unfinished > 0;
CREATE INDEX fires_by_end ON fires (end_by_ms) WHERE end_by_ms IS NOT NULL AND unfinished > 0;

-- Without foreign keys: to look for each row's fire and instance would take a third of the time in which it is
-- stored. Who stores it has just stored its fire and read its instance; of the triggers below one deletes the
-- executions of a fire with it, the other keeps an instance that has any.
CREATE TABLE executions (
    id             INTEGER PRIMARY KEY,
    fire           INTEGER NOT NULL,
    instance       INTEGER NOT NULL,
    attempt        INTEGER NOT NULL CHECK (attempt > 0),
    status         TEXT NOT NULL,
    started_at_ms  INTEGER,
    stop_at_ms     INTEGER,
    finished_at_ms INTEGER,
    exit_code      INTEGER,
    signal         INTEGER,
    error_code     TEXT,
    error_info     TEXT,
    -- Why it was asked to end, who asked as far as the host says, and what for in their words.
    stop_cause     TEXT CHECK (
        stop_cause = 'Timeout' OR stop_cause = 'Stopped' OR stop_cause = 'Replaced' OR stop_cause = 'Shutdown'
        OR stop_cause = 'Deadline' OR stop_cause = 'Errors' OR stop_cause = 'Gate'),
    stopped_by     TEXT,
    stop_reason    TEXT,
    -- What its processes used; NULL where nobody counted.
    user_time_us      INTEGER,
    system_time_us    INTEGER,
    max_rss_bytes     INTEGER,
    memory_peak_bytes INTEGER,
    -- When it is to be tried, if it waits for that and not for another on its instance.
    retry_at_ms    INTEGER,
    -- The rank among executions that wait for room on the instance; NULL if the execution does not wait for that.
    -- Lower ranks come first: they have a higher priority or have waited longer.
    awaits_instance INTEGER,
    -- Of a later attempt: 1 if its invocation runs once, 0 if its invocation repeats. NULL for a first attempt. A search
    -- for later attempts of one kind reads none of the other.
    retries_once   INTEGER,
    -- While it waits for its turn or runs: as long as the times are that it is to have yet. A row that keeps its
    -- length is written over where it stands; one that grows has its full page split, and the commit then
    -- looks through the whole cache.
    room           BLOB,
    -- What each status means for these two; those first that come most often.
    CHECK (CASE status
        WHEN 'Running' THEN started_at_ms IS NOT NULL AND finished_at_ms IS NULL
        WHEN 'Success' THEN started_at_ms IS NOT NULL AND finished_at_ms IS NOT NULL
        WHEN 'Pending' THEN finished_at_ms IS NULL
        WHEN 'Failed' THEN started_at_ms IS NOT NULL AND finished_at_ms IS NOT NULL
        WHEN 'Scheduled' THEN finished_at_ms IS NULL
        WHEN 'Stopping' THEN started_at_ms IS NOT NULL AND finished_at_ms IS NULL
        WHEN 'Timeout' THEN started_at_ms IS NOT NULL AND finished_at_ms IS NOT NULL
        WHEN 'Terminated' THEN started_at_ms IS NOT NULL AND finished_at_ms IS NOT NULL
        WHEN 'Error' THEN finished_at_ms IS NOT NULL
        WHEN 'Invalid' THEN finished_at_ms IS NOT NULL
        WHEN 'Aborted' THEN finished_at_ms IS NOT NULL
        WHEN 'Cancelled' THEN finished_at_ms IS NOT NULL
        WHEN 'Skipped' THEN finished_at_ms IS NOT NULL
        ELSE FALSE
    END),
    CHECK (retry_at_ms IS NULL OR (status = 'Scheduled' AND attempt > 1))
) STRICT;
CREATE UNIQUE INDEX executions_by_fire ON executions (fire, instance, attempt);
CREATE INDEX executions_awaiting ON executions (instance, awaits_instance, id) WHERE awaits_instance IS NOT NULL;
CREATE INDEX executions_by_retry ON executions (retry_at_ms) WHERE retry_at_ms IS NOT NULL;
-- Later attempts are few: a look for new attempts of an invocation uses this index. Because each insert evaluates the
-- condition of each index, there is one index for both kinds of them.
CREATE INDEX executions_of_retries ON executions (retries_once) WHERE retries_once IS NOT NULL;
CREATE TRIGGER executions_go_with_their_fire AFTER DELETE ON fires
BEGIN DELETE FROM executions WHERE fire = old.id; END;
CREATE TRIGGER instances_stay_with_their_executions BEFORE DELETE ON instances
WHEN EXISTS (SELECT 1 FROM executions WHERE instance = old.id)
BEGIN SELECT RAISE(ABORT, 'the instance has executions'); END;

-- Orders to end executions of an invocation, of all of its fires or of one, that are not carried out yet. After the
-- commit that stores an order, none of its executions starts. Each commit that follows ends a slice of them. An order
-- that has been carried out has no row.
CREATE TABLE stops (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    invocation  INTEGER NOT NULL REFERENCES invocations ON DELETE CASCADE,
    fire        INTEGER REFERENCES fires ON DELETE CASCADE,
    -- The last execution to which the order applies.
    until       INTEGER NOT NULL,
    -- Whether the order applies only to the instances in stopped_instances.
    is_partial  INTEGER NOT NULL CHECK (is_partial IN (0, 1)),
    cause       TEXT NOT NULL CHECK (
        cause IN ('Stopped', 'Replaced', 'Deadline', 'Errors', 'Gate', 'Expired', 'Unreadable')),
    stopped_by  TEXT,
    stop_reason TEXT,
    -- Of executions that cannot start because of a record: the code of the error, whose text is the reason.
    error_code  TEXT,
    stop_at_ms  INTEGER NOT NULL,
    -- The progress of the order: the executions of earlier fires are done, and those of this fire up to the instance.
    at_fire     INTEGER NOT NULL,
    at_instance INTEGER NOT NULL,
    -- How many executions could not be ended, and why not the first of them.
    unstopped     INTEGER NOT NULL DEFAULT 0,
    unstopped_why TEXT
) STRICT;
CREATE INDEX stops_by_invocation ON stops (invocation, fire);
CREATE INDEX stops_by_fire ON stops (fire) WHERE fire IS NOT NULL;

CREATE TABLE stopped_instances (
    id       INTEGER PRIMARY KEY,
    stop     INTEGER NOT NULL REFERENCES stops ON DELETE CASCADE,
    instance INTEGER NOT NULL,
    UNIQUE (stop, instance)
) STRICT;

-- The next number is that after the newest one, so that one stays.
CREATE TRIGGER fires_keep_the_newest BEFORE DELETE ON fires
WHEN old.id = (SELECT max(id) FROM fires)
BEGIN SELECT RAISE(ABORT, 'the newest fire stays, or its number would be used again'); END;
CREATE TRIGGER executions_keep_the_newest BEFORE DELETE ON executions
WHEN old.id = (SELECT max(id) FROM executions)
BEGIN SELECT RAISE(ABORT, 'the newest execution stays, or its number would be used again'); END;

-- Only of executions that printed something.
CREATE TABLE outputs (
    execution INTEGER PRIMARY KEY REFERENCES executions ON DELETE CASCADE,
    bytes     BLOB NOT NULL,
    -- Which stretches came from which stream: LEB128 lengths in turn, standard output first.
    runs      BLOB NOT NULL,
    -- Where in bytes something was left out, and how much of it.
    gap_at    INTEGER,
    dropped   INTEGER NOT NULL DEFAULT 0 CHECK ((dropped > 0) = (gap_at IS NOT NULL))
) STRICT;

-- Only of executions that left a result, or would have: then why it cannot be kept.
CREATE TABLE results (
    execution INTEGER PRIMARY KEY REFERENCES executions ON DELETE CASCADE,
    json      TEXT,
    error     TEXT,
    CHECK ((json IS NULL) <> (error IS NULL))
) STRICT;
-- What came of sending the whole output of an execution to where it was to go: only of those that had
-- a place to send it to and may have printed something. Delivered in the order of their numbers.
CREATE TABLE deliveries (
    id         INTEGER PRIMARY KEY,
    execution  INTEGER NOT NULL UNIQUE REFERENCES executions ON DELETE CASCADE,
    status     TEXT NOT NULL CHECK (status IN ('InProgress', 'Finished', 'Failed')),
    -- How long the output is, where its engine saw the end of it.
    bytes      INTEGER CHECK (bytes >= 0),
    uri        TEXT,
    error_code TEXT,
    error_info TEXT,
    CHECK ((uri IS NOT NULL) = (status = 'Finished')),
    CHECK ((error_code IS NOT NULL) = (status = 'Failed'))
) STRICT;
CREATE INDEX deliveries_unfinished ON deliveries (id) WHERE status = 'InProgress';

-- How many invocations each day has had; the id is its number, counted from 1970 in UTC.
CREATE TABLE days (
    id          INTEGER PRIMARY KEY,
    invocations INTEGER NOT NULL CHECK (invocations > 0)
) STRICT;

CREATE TABLE client_tokens (
    id             INTEGER PRIMARY KEY,
    -- Whose token it is, as far as the host says: nobody gets an answer to another's request.
    caller         TEXT NOT NULL,
    token          TEXT NOT NULL,
    request_sha256 BLOB NOT NULL,
    response       TEXT NOT NULL,
    created_at_ms  INTEGER NOT NULL,
    UNIQUE (caller, token)
) STRICT;
CREATE INDEX client_tokens_by_age ON client_tokens (created_at_ms);
