"""Version 2: queue, receipts, shells, commands, whose usage it was, size of the events, indexes of lists."""

from __future__ import annotations

# 150 is `EVENT_BYTES` of this version.
V2 = """
INSERT INTO meta SELECT 'events_bytes', coalesce(sum(octet_length(payload) + 150), 0) FROM events;

ALTER TABLE agent_instances ADD COLUMN failure TEXT;
ALTER TABLE agent_instances ADD COLUMN attempt INTEGER NOT NULL DEFAULT 1;
ALTER TABLE agent_instances ADD COLUMN stalled_at INTEGER;
ALTER TABLE agent_instances ADD COLUMN resumed_from TEXT;
ALTER TABLE agent_instances ADD COLUMN preset TEXT;
ALTER TABLE agent_instances ADD COLUMN preset_expires_at INTEGER;
ALTER TABLE agent_instances ADD COLUMN network TEXT;
ALTER TABLE sessions ADD COLUMN opened TEXT NOT NULL DEFAULT 'new';
ALTER TABLE sessions ADD COLUMN title TEXT;
ALTER TABLE sessions ADD COLUMN auth_methods TEXT;
ALTER TABLE sessions ADD COLUMN deleted_at INTEGER;
ALTER TABLE tasks ADD COLUMN mcp_servers TEXT NOT NULL DEFAULT '[]';
ALTER TABLE tasks ADD COLUMN directories TEXT NOT NULL DEFAULT '[]';
ALTER TABLE workspaces ADD COLUMN removing_at INTEGER;
ALTER TABLE workspaces ADD COLUMN setup TEXT;
ALTER TABLE tasks ADD COLUMN allow TEXT NOT NULL DEFAULT '[]';
ALTER TABLE tasks ADD COLUMN credentials TEXT NOT NULL DEFAULT '[]';
CREATE INDEX sessions_created ON sessions(created_at, id);
CREATE INDEX agent_instances_type ON agent_instances(agent_type, created_at, id);

ALTER TABLE turns ADD COLUMN position INTEGER NOT NULL DEFAULT 0;
UPDATE turns SET position = (
    SELECT count(*) FROM turns AS t
    WHERE t.agent_id = turns.agent_id AND t.state = 'queued' AND (t.created_at, t.id) < (turns.created_at, turns.id)
) WHERE state = 'queued';
CREATE INDEX turns_queue ON turns(agent_id, state, position, id);

DROP TABLE IF EXISTS sqlite_stat1;
DROP TABLE IF EXISTS sqlite_stat4;
ALTER TABLE usage ADD COLUMN board_id TEXT;
ALTER TABLE usage ADD COLUMN agent_type TEXT;
ALTER TABLE usage ADD COLUMN priced_by TEXT CONSTRAINT priced_by CHECK (priced_by IN ('agent', 'prices'));
ALTER TABLE usage ADD COLUMN labels TEXT NOT NULL DEFAULT '{}';
ALTER TABLE usage ADD COLUMN wall_ms INTEGER;
ALTER TABLE usage ADD COLUMN waited_ms INTEGER;
DELETE FROM usage WHERE rowid NOT IN (SELECT max(rowid) FROM usage GROUP BY turn_id, source);
UPDATE usage SET
    agent_type = (SELECT agent_type FROM agent_instances AS a WHERE a.id = usage.agent_id),
    board_id = (SELECT board_id FROM tasks AS t WHERE t.id = usage.task_id),
    wall_ms = (SELECT (t.ended_at - t.started_at) / 1000 FROM turns AS t WHERE t.id = usage.turn_id),
    priced_by = iif(cost IS NULL, NULL, 'agent');
DROP INDEX usage_turn;
CREATE UNIQUE INDEX usage_turn_source ON usage(turn_id, source);
CREATE INDEX usage_board ON usage(board_id, created_at, id);

DROP INDEX columns_board;
CREATE INDEX columns_board ON columns(board_id, position, id);
DROP INDEX tasks_column;
CREATE INDEX tasks_column ON tasks(column_id, position, id);
CREATE INDEX tasks_place ON tasks(board_id, column_id, position, id);
CREATE INDEX tasks_board_state ON tasks(board_id, state, created_at, id);
CREATE INDEX tasks_agent_type ON tasks(agent_type, created_at, id);
CREATE INDEX permission_requests_created ON permission_requests(created_at, id);

CREATE TABLE agent_types_v2 (
    id TEXT PRIMARY KEY,
    created_at INTEGER NOT NULL,
    name TEXT NOT NULL UNIQUE,
    description TEXT,
    docker_image TEXT,
    docker_tag TEXT,
    default_resources TEXT,
    environment_vars TEXT NOT NULL,
    capabilities TEXT NOT NULL,
    enabled INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    default_options TEXT NOT NULL
) STRICT;
INSERT INTO agent_types_v2 SELECT *, '{}' FROM agent_types;
DROP TABLE agent_types;
ALTER TABLE agent_types_v2 RENAME TO agent_types;

ALTER TABLE task_events ADD COLUMN version INTEGER NOT NULL DEFAULT 0;
DROP INDEX task_events_task;
CREATE INDEX task_events_task ON task_events(task_id, version, created_at, id);

CREATE TABLE queue_entries (
    id TEXT PRIMARY KEY REFERENCES tasks(id) ON DELETE CASCADE,
    created_at INTEGER NOT NULL,
    board_id TEXT NOT NULL,
    priority INTEGER NOT NULL,
    rank INTEGER NOT NULL,
    agent_type TEXT,
    pinned INTEGER NOT NULL,
    runtime TEXT,
    preset TEXT,
    state TEXT NOT NULL CONSTRAINT state CHECK (state IN ('waiting', 'running')),
    attempt INTEGER NOT NULL,
    host_deaths INTEGER NOT NULL,
    fence INTEGER NOT NULL,
    host_id TEXT,
    agent_id TEXT,
    not_before INTEGER,
    reason TEXT,
    failure TEXT,
    resume_from TEXT,
    created_by TEXT NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;
CREATE INDEX queue_entries_rank ON queue_entries(state, rank, id);
CREATE INDEX queue_entries_type ON queue_entries(agent_type, state);

CREATE TABLE permission_rules (
    id TEXT PRIMARY KEY,
    created_at INTEGER NOT NULL,
    effect TEXT NOT NULL CONSTRAINT effect CHECK (effect IN ('allow', 'ask', 'deny')),
    task_id TEXT REFERENCES tasks(id) ON DELETE CASCADE,
    agent_type TEXT,
    kind TEXT,
    path TEXT,
    command TEXT,
    reason TEXT,
    created_by TEXT NOT NULL
) STRICT;
CREATE INDEX permission_rules_created ON permission_rules(created_at, id);
CREATE INDEX permission_rules_task ON permission_rules(task_id, created_at, id);
CREATE INDEX permission_rules_type ON permission_rules(agent_type, created_at, id);

CREATE TABLE elicitations (
    id TEXT PRIMARY KEY,
    created_at INTEGER NOT NULL,
    agent_id TEXT NOT NULL REFERENCES agent_instances(id) ON DELETE CASCADE,
    task_id TEXT NOT NULL REFERENCES tasks(id) ON DELETE CASCADE,
    turn_id TEXT,
    session_id TEXT,
    tool_call_id TEXT,
    mode TEXT NOT NULL CONSTRAINT mode CHECK (mode IN ('form', 'url')),
    message TEXT NOT NULL,
    requested_schema TEXT,
    url TEXT,
    acp_id TEXT,
    state TEXT NOT NULL CONSTRAINT state CHECK (state IN ('pending', 'accepted', 'declined', 'cancelled')),
    answered TEXT,
    decided_by TEXT,
    reason TEXT,
    resolved_at INTEGER,
    completed_at INTEGER
) STRICT;
CREATE INDEX elicitations_created ON elicitations(created_at, id);
CREATE INDEX elicitations_agent ON elicitations(agent_id, created_at, id);
CREATE INDEX elicitations_task ON elicitations(task_id, created_at, id);
CREATE INDEX elicitations_state ON elicitations(state, created_at, id);

CREATE TABLE receipts (
    id TEXT PRIMARY KEY,
    created_at INTEGER NOT NULL,
    action TEXT NOT NULL,
    digest TEXT NOT NULL,
    reply TEXT,
    is_error INTEGER NOT NULL,
    topics TEXT NOT NULL
) STRICT;
CREATE INDEX receipts_created ON receipts(created_at);

CREATE TABLE host_state (
    id TEXT PRIMARY KEY,
    created_at INTEGER NOT NULL,
    value TEXT NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;

CREATE TABLE audit (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    created_at INTEGER NOT NULL,
    kind TEXT NOT NULL,
    action TEXT NOT NULL,
    outcome TEXT NOT NULL,
    actor TEXT NOT NULL,
    actor_kind TEXT,
    actor_name TEXT,
    address TEXT,
    board_id TEXT,
    task_id TEXT,
    agent_id TEXT,
    details TEXT NOT NULL,
    key_id TEXT NOT NULL,
    prev TEXT NOT NULL,
    mac TEXT NOT NULL
) STRICT;
CREATE INDEX audit_kind ON audit(kind, seq);
CREATE INDEX audit_actor ON audit(actor, seq);
CREATE INDEX audit_task ON audit(task_id, seq);
CREATE TRIGGER audit_next BEFORE INSERT ON audit
WHEN new.seq IS NOT coalesce((SELECT max(seq) FROM audit), 0) + 1
OR EXISTS (SELECT 1 FROM audit WHERE id = new.id) BEGIN
    SELECT raise(ABORT, 'the audit is only added to');
END;
CREATE TRIGGER audit_update BEFORE UPDATE ON audit BEGIN SELECT raise(ABORT, 'the audit is only added to'); END;
CREATE TRIGGER audit_delete BEFORE DELETE ON audit BEGIN SELECT raise(ABORT, 'the audit is only added to'); END;

ALTER TABLE streams ADD COLUMN shell_id TEXT;
CREATE INDEX streams_shell ON streams(shell_id) WHERE shell_id IS NOT NULL;

CREATE TABLE shells (
    id TEXT PRIMARY KEY,
    created_at INTEGER NOT NULL,
    task_id TEXT REFERENCES tasks(id) ON DELETE CASCADE,
    workspace_id TEXT NOT NULL,
    runtime TEXT NOT NULL,
    network TEXT NOT NULL,
    allow TEXT NOT NULL,
    pty INTEGER NOT NULL,
    state TEXT NOT NULL CONSTRAINT state CHECK (state IN ('open', 'closed')),
    cwd TEXT NOT NULL,
    opened_by TEXT NOT NULL,
    closed_at INTEGER,
    exit_code INTEGER,
    reason TEXT
) STRICT;
CREATE INDEX shells_created ON shells(created_at, id);
CREATE INDEX shells_task ON shells(task_id, created_at, id);
CREATE INDEX shells_state ON shells(state, created_at, id);
CREATE TABLE snapshots (
    id TEXT PRIMARY KEY,
    created_at INTEGER NOT NULL,
    task_id TEXT NOT NULL REFERENCES tasks(id) ON DELETE CASCADE,
    kind TEXT NOT NULL
        CONSTRAINT kind CHECK (kind IN ('start', 'turn', 'manual', 'before_restore', 'restored')),
    label TEXT,
    agent_id TEXT,
    turn_id TEXT,
    tree TEXT,
    files INTEGER,
    bytes INTEGER,
    changed_files INTEGER,
    branch TEXT,
    head TEXT,
    cut TEXT CONSTRAINT cut CHECK (cut IN ('time', 'files')),
    skipped TEXT NOT NULL,
    skipped_files INTEGER NOT NULL,
    error TEXT,
    duration_ms INTEGER,
    created_by TEXT NOT NULL
) STRICT;
CREATE INDEX snapshots_task ON snapshots(task_id, created_at, id);

CREATE TABLE commands (
    n INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    created_at INTEGER NOT NULL,
    task_id TEXT REFERENCES tasks(id) ON DELETE CASCADE,
    shell_id TEXT REFERENCES shells(id) ON DELETE CASCADE,
    agent_id TEXT,
    turn_id TEXT,
    command TEXT NOT NULL,
    cwd TEXT,
    state TEXT CONSTRAINT state CHECK (state IN ('running', 'finished', 'killed', 'lost')),
    exit_code INTEGER,
    duration_ms INTEGER,
    stdout_bytes INTEGER,
    stderr_bytes INTEGER,
    truncated INTEGER NOT NULL,
    timed_out INTEGER NOT NULL,
    reason TEXT,
    output_head TEXT,
    output_tail TEXT,
    changed_files TEXT,
    created_by TEXT
) STRICT;
CREATE INDEX commands_created ON commands(created_at, id);
CREATE INDEX commands_state ON commands(state, created_at, id);
CREATE INDEX commands_task ON commands(task_id, created_at, id);
CREATE INDEX commands_shell ON commands(shell_id, created_at, id);
CREATE VIRTUAL TABLE commands_fts USING fts5(
    command, content='commands', content_rowid='n', tokenize='unicode61 remove_diacritics 2'
);
CREATE TRIGGER commands_fts_insert AFTER INSERT ON commands BEGIN
    INSERT INTO commands_fts(rowid, command) VALUES (new.n, new.command);
END;
CREATE TRIGGER commands_fts_delete AFTER DELETE ON commands BEGIN
    INSERT INTO commands_fts(commands_fts, rowid, command) VALUES ('delete', old.n, old.command);
END;
CREATE TRIGGER commands_fts_update AFTER UPDATE OF command ON commands
WHEN old.command IS NOT new.command BEGIN
    INSERT INTO commands_fts(commands_fts, rowid, command) VALUES ('delete', old.n, old.command);
    INSERT INTO commands_fts(rowid, command) VALUES (new.n, new.command);
END;
"""
