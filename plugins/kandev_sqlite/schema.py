"""The ladder's steps: what each version of the schema adds. A step, once released, never changes.

Tables and columns are named as in the Kandev plan (section 3). Times are integer microseconds since 1970 in UTC:
they compare and sort as numbers, keep what Python's datetime holds exactly and take a third of RFC 3339 text.
JSON is text. `n` is an explicit integer key, because full-text indexes refer to rows by it and a plain rowid may
change in VACUUM.

What cascades is what has no meaning without its parent. Three tables do not refer to their task: `events` (history
stays), `usage` (money spent stays spent) and `workspaces` (the folder on the disk must still be found and removed).
Principals (`created_by`, `decided_by`) are not all users, so these refer to no table either.

`events` does not repeat its four ids of 36 characters in every row: each combination is a row of `streams`, and the
one index `(stream, seq)` serves the replay of tasks, boards and agents. Measured against one index per id: 1.8 times
as many events a second, in half the space.
"""

from __future__ import annotations

from kandev_sqlite.schema_v2 import V2

APPLICATION_ID = 0x6B616E64  # "kand": tells this database from any other SQLite file

V1 = """
CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE users (
    id TEXT PRIMARY KEY,
    created_at INTEGER NOT NULL,
    email TEXT NOT NULL UNIQUE,
    username TEXT NOT NULL UNIQUE,
    password_hash TEXT,
    updated_at INTEGER NOT NULL
) STRICT;

CREATE TABLE boards (
    id TEXT PRIMARY KEY,
    created_at INTEGER NOT NULL,
    name TEXT NOT NULL CONSTRAINT name CHECK (length(name) BETWEEN 1 AND 255),
    description TEXT,
    owner_id TEXT NOT NULL REFERENCES users(id) ON DELETE CASCADE,
    version INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;
CREATE INDEX boards_owner ON boards(owner_id);
CREATE INDEX boards_created ON boards(created_at, id);

CREATE TABLE columns (
    id TEXT PRIMARY KEY,
    created_at INTEGER NOT NULL,
    board_id TEXT NOT NULL REFERENCES boards(id) ON DELETE CASCADE,
    name TEXT NOT NULL CONSTRAINT name CHECK (length(name) BETWEEN 1 AND 255),
    position INTEGER NOT NULL CONSTRAINT position CHECK (position >= 0),
    wip_limit INTEGER CONSTRAINT wip_limit CHECK (wip_limit > 0),
    state TEXT CONSTRAINT state
        CHECK (state IN ('TODO', 'IN_PROGRESS', 'BLOCKED', 'COMPLETED', 'FAILED', 'CANCELLED')),
    version INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;
CREATE INDEX columns_board ON columns(board_id, position);

CREATE TABLE tasks (
    n INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    created_at INTEGER NOT NULL,
    board_id TEXT NOT NULL REFERENCES boards(id) ON DELETE CASCADE,
    column_id TEXT REFERENCES columns(id) ON DELETE SET NULL,
    position INTEGER NOT NULL CONSTRAINT position CHECK (position >= 0),
    title TEXT NOT NULL CONSTRAINT title CHECK (length(title) BETWEEN 1 AND 500),
    description TEXT NOT NULL,
    state TEXT NOT NULL CONSTRAINT state
        CHECK (state IN ('TODO', 'IN_PROGRESS', 'BLOCKED', 'COMPLETED', 'FAILED', 'CANCELLED')),
    state_reason TEXT,
    priority INTEGER NOT NULL,
    agent_type TEXT,
    repository_url TEXT,
    branch TEXT,
    blocked_by TEXT NOT NULL,
    assigned_agent_id TEXT,
    metadata TEXT NOT NULL,
    version INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    updated_at INTEGER NOT NULL,
    started_at INTEGER,
    completed_at INTEGER
) STRICT;
CREATE INDEX tasks_board ON tasks(board_id, created_at, id);
CREATE INDEX tasks_column ON tasks(column_id, position);
CREATE INDEX tasks_state ON tasks(state, created_at, id);
CREATE INDEX tasks_assigned_agent ON tasks(assigned_agent_id);
CREATE INDEX tasks_created ON tasks(created_at, id);

CREATE TABLE task_events (
    id TEXT PRIMARY KEY,
    created_at INTEGER NOT NULL,
    task_id TEXT NOT NULL REFERENCES tasks(id) ON DELETE CASCADE,
    event_type TEXT NOT NULL,
    old_state TEXT,
    new_state TEXT,
    metadata TEXT NOT NULL,
    created_by TEXT NOT NULL
) STRICT;
CREATE INDEX task_events_task ON task_events(task_id, created_at, id);

CREATE TABLE agent_types (
    id TEXT PRIMARY KEY,
    created_at INTEGER NOT NULL,
    name TEXT NOT NULL UNIQUE,
    description TEXT,
    docker_image TEXT,
    docker_tag TEXT,
    default_resources TEXT NOT NULL,
    environment_vars TEXT NOT NULL,
    capabilities TEXT NOT NULL,
    enabled INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;

CREATE TABLE agent_instances (
    id TEXT PRIMARY KEY,
    created_at INTEGER NOT NULL,
    task_id TEXT NOT NULL REFERENCES tasks(id) ON DELETE CASCADE,
    agent_type TEXT NOT NULL,
    runtime TEXT NOT NULL,
    status TEXT NOT NULL CONSTRAINT status
        CHECK (status IN ('PENDING', 'STARTING', 'RUNNING', 'COMPLETED', 'FAILED', 'STOPPED')),
    activity TEXT,
    orchestrated INTEGER NOT NULL,
    container_id TEXT UNIQUE,
    container_name TEXT,
    image_name TEXT,
    process_ref TEXT,
    session_id TEXT,
    resource_limits TEXT NOT NULL,
    started_at INTEGER,
    stopped_at INTEGER,
    exit_code INTEGER,
    error_message TEXT,
    updated_at INTEGER NOT NULL
) STRICT;
CREATE INDEX agent_instances_task ON agent_instances(task_id, created_at, id);
CREATE INDEX agent_instances_status ON agent_instances(status, created_at, id);
CREATE INDEX agent_instances_created ON agent_instances(created_at, id);

CREATE TABLE agent_logs (
    n INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    created_at INTEGER NOT NULL,
    agent_instance_id TEXT NOT NULL REFERENCES agent_instances(id) ON DELETE CASCADE,
    log_level TEXT NOT NULL,
    message TEXT NOT NULL,
    metadata TEXT NOT NULL
) STRICT;
CREATE INDEX agent_logs_agent ON agent_logs(agent_instance_id, created_at, id);

CREATE TABLE sessions (
    id TEXT PRIMARY KEY,
    created_at INTEGER NOT NULL,
    agent_id TEXT NOT NULL REFERENCES agent_instances(id) ON DELETE CASCADE,
    task_id TEXT NOT NULL REFERENCES tasks(id) ON DELETE CASCADE,
    acp_session_id TEXT NOT NULL,
    cwd TEXT NOT NULL,
    protocol_version INTEGER NOT NULL,
    agent_info TEXT,
    agent_capabilities TEXT NOT NULL,
    modes TEXT,
    config_options TEXT,
    commands TEXT,
    closed_at INTEGER
) STRICT;
CREATE INDEX sessions_agent ON sessions(agent_id, created_at, id);
CREATE INDEX sessions_task ON sessions(task_id);

CREATE TABLE turns (
    id TEXT PRIMARY KEY,
    created_at INTEGER NOT NULL,
    agent_id TEXT NOT NULL REFERENCES agent_instances(id) ON DELETE CASCADE,
    task_id TEXT NOT NULL REFERENCES tasks(id) ON DELETE CASCADE,
    session_id TEXT,
    prompt TEXT NOT NULL,
    state TEXT NOT NULL CONSTRAINT state CHECK (state IN ('queued', 'running', 'ended', 'failed', 'cancelled')),
    stop_reason TEXT,
    error TEXT,
    created_by TEXT NOT NULL,
    started_at INTEGER,
    ended_at INTEGER
) STRICT;
CREATE INDEX turns_agent ON turns(agent_id, created_at, id);
CREATE INDEX turns_task ON turns(task_id);
CREATE INDEX turns_state ON turns(state, created_at, id);

CREATE TABLE permission_requests (
    id TEXT PRIMARY KEY,
    created_at INTEGER NOT NULL,
    agent_id TEXT NOT NULL REFERENCES agent_instances(id) ON DELETE CASCADE,
    task_id TEXT NOT NULL REFERENCES tasks(id) ON DELETE CASCADE,
    turn_id TEXT,
    session_id TEXT NOT NULL,
    tool_call TEXT NOT NULL,
    options TEXT NOT NULL,
    digest TEXT NOT NULL,
    state TEXT NOT NULL CONSTRAINT state CHECK (state IN ('pending', 'allowed', 'rejected', 'cancelled')),
    option_id TEXT,
    decided_by TEXT,
    reason TEXT,
    resolved_at INTEGER
) STRICT;
CREATE INDEX permission_requests_agent ON permission_requests(agent_id, created_at, id);
CREATE INDEX permission_requests_task ON permission_requests(task_id, created_at, id);
CREATE INDEX permission_requests_state ON permission_requests(state, created_at, id);

CREATE TABLE usage (
    id TEXT PRIMARY KEY,
    created_at INTEGER NOT NULL,
    turn_id TEXT NOT NULL,
    agent_id TEXT NOT NULL,
    task_id TEXT NOT NULL,
    source TEXT NOT NULL CONSTRAINT source CHECK (source IN ('agent', 'gateway')),
    provider TEXT,
    model TEXT,
    request_id TEXT,
    input_tokens INTEGER,
    output_tokens INTEGER,
    thought_tokens INTEGER,
    cached_read_tokens INTEGER,
    cached_write_tokens INTEGER,
    total_tokens INTEGER,
    context_used INTEGER,
    context_size INTEGER,
    cost TEXT,
    currency TEXT,
    raw TEXT NOT NULL
) STRICT;
CREATE INDEX usage_turn ON usage(turn_id);
CREATE INDEX usage_agent ON usage(agent_id, created_at, id);
CREATE INDEX usage_task ON usage(task_id, created_at, id);
CREATE INDEX usage_created ON usage(created_at, id);

CREATE TABLE workspaces (
    id TEXT PRIMARY KEY,
    created_at INTEGER NOT NULL,
    runtime TEXT NOT NULL,
    repository_url TEXT,
    branch TEXT,
    base_branch TEXT,
    base_commit TEXT
) STRICT;

CREATE TABLE streams (
    n INTEGER PRIMARY KEY,
    board_id TEXT,
    task_id TEXT,
    agent_id TEXT,
    turn_id TEXT,
    UNIQUE (task_id, agent_id, turn_id, board_id)
) STRICT;
CREATE INDEX streams_board ON streams(board_id) WHERE board_id IS NOT NULL;
CREATE INDEX streams_agent ON streams(agent_id) WHERE agent_id IS NOT NULL;

CREATE TABLE events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL,
    action TEXT NOT NULL,
    actor TEXT NOT NULL,
    stream INTEGER NOT NULL,
    payload TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX events_stream ON events(stream, seq);
"""

V1_SEARCH = """
CREATE TABLE messages (
    n INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    created_at INTEGER NOT NULL,
    task_id TEXT NOT NULL REFERENCES tasks(id) ON DELETE CASCADE,
    agent_id TEXT,
    turn_id TEXT,
    role TEXT NOT NULL CHECK (role IN ('user', 'agent')),
    text TEXT NOT NULL
) STRICT;
CREATE INDEX messages_task ON messages(task_id);

CREATE VIRTUAL TABLE tasks_fts USING fts5(
    title, description, content='tasks', content_rowid='n', tokenize='unicode61 remove_diacritics 2'
);
CREATE TRIGGER tasks_fts_insert AFTER INSERT ON tasks BEGIN
    INSERT INTO tasks_fts(rowid, title, description) VALUES (new.n, new.title, new.description);
END;
CREATE TRIGGER tasks_fts_delete AFTER DELETE ON tasks BEGIN
    INSERT INTO tasks_fts(tasks_fts, rowid, title, description) VALUES ('delete', old.n, old.title, old.description);
END;
CREATE TRIGGER tasks_fts_update AFTER UPDATE OF title, description ON tasks
WHEN old.title IS NOT new.title OR old.description IS NOT new.description BEGIN
    INSERT INTO tasks_fts(tasks_fts, rowid, title, description) VALUES ('delete', old.n, old.title, old.description);
    INSERT INTO tasks_fts(rowid, title, description) VALUES (new.n, new.title, new.description);
END;

CREATE VIRTUAL TABLE agent_logs_fts USING fts5(
    message, content='agent_logs', content_rowid='n', tokenize='unicode61 remove_diacritics 2'
);
CREATE TRIGGER agent_logs_fts_insert AFTER INSERT ON agent_logs BEGIN
    INSERT INTO agent_logs_fts(rowid, message) VALUES (new.n, new.message);
END;
CREATE TRIGGER agent_logs_fts_delete AFTER DELETE ON agent_logs BEGIN
    INSERT INTO agent_logs_fts(agent_logs_fts, rowid, message) VALUES ('delete', old.n, old.message);
END;
CREATE TRIGGER agent_logs_fts_update AFTER UPDATE OF message ON agent_logs
WHEN old.message IS NOT new.message BEGIN
    INSERT INTO agent_logs_fts(agent_logs_fts, rowid, message) VALUES ('delete', old.n, old.message);
    INSERT INTO agent_logs_fts(rowid, message) VALUES (new.n, new.message);
END;

CREATE VIRTUAL TABLE messages_fts USING fts5(
    text, content='messages', content_rowid='n', tokenize='unicode61 remove_diacritics 2'
);
CREATE TRIGGER messages_fts_insert AFTER INSERT ON messages BEGIN
    INSERT INTO messages_fts(rowid, text) VALUES (new.n, new.text);
END;
CREATE TRIGGER messages_fts_delete AFTER DELETE ON messages BEGIN
    INSERT INTO messages_fts(messages_fts, rowid, text) VALUES ('delete', old.n, old.text);
END;
CREATE TRIGGER turns_messages_insert AFTER INSERT ON turns BEGIN
    INSERT INTO messages(id, created_at, task_id, agent_id, turn_id, role, text)
    SELECT new.id, new.created_at, new.task_id, new.agent_id, new.id, 'user', said.text
    FROM (SELECT group_concat(json_extract(value, '$.text'), char(10)) AS text
          FROM json_each(new.prompt) WHERE json_extract(value, '$.type') = 'text') AS said
    WHERE said.text <> '';
END;
CREATE TRIGGER turns_messages_delete AFTER DELETE ON turns BEGIN
    DELETE FROM messages WHERE id = old.id;
END;
"""

EVENT_BYTES = 150  # about what an event takes beside its payload: the other columns, its place in the index
STEPS: tuple[str, ...] = (V1 + V1_SEARCH, V2)
