"""Version 2 of the schema: the queue, receipts, commands, how many bytes the events take, an index for each list."""

from __future__ import annotations

# 150 is `EVENT_BYTES` of this version.
V2 = """
INSERT INTO meta SELECT 'events_bytes', coalesce(sum(octet_length(payload) + 150), 0) FROM events;

ALTER TABLE agent_instances ADD COLUMN failure TEXT;
ALTER TABLE agent_instances ADD COLUMN attempt INTEGER NOT NULL DEFAULT 1;
ALTER TABLE agent_instances ADD COLUMN stalled_at INTEGER;

DROP TABLE IF EXISTS sqlite_stat1;
DROP TABLE IF EXISTS sqlite_stat4;
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
    updated_at INTEGER NOT NULL
) STRICT;
INSERT INTO agent_types_v2 SELECT * FROM agent_types;
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
    created_by TEXT NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;
CREATE INDEX queue_entries_rank ON queue_entries(state, rank, id);
CREATE INDEX queue_entries_type ON queue_entries(agent_type, state);

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

CREATE TABLE commands (
    n INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    created_at INTEGER NOT NULL,
    task_id TEXT NOT NULL REFERENCES tasks(id) ON DELETE CASCADE,
    agent_id TEXT,
    turn_id TEXT,
    command TEXT NOT NULL
) STRICT;
CREATE INDEX commands_task ON commands(task_id, created_at, id);
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
