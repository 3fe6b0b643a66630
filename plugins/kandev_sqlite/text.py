"""Full-text search: what people type, as FTS5 queries that never fail."""

from __future__ import annotations

import re
from collections.abc import Sequence

import apsw

from kandev_host import Hit

QUERY_LIMIT_CHARS = 2000
TERMS_LIMIT = 64
SNIPPET_TOKENS = 24

_TERM = re.compile(r'"([^"]*)(?:"(\*)?|$)|([^\s"]+)')

_SNIPPET = f"'[', ']', '…', {SNIPPET_TOKENS}"
SEARCHES = {
    "task": (
        f"SELECT 'task', t.id, t.id, snippet(tasks_fts, -1, {_SNIPPET}), bm25(tasks_fts, 4.0, 1.0) "  # noqa: S608
        "FROM tasks_fts JOIN tasks AS t ON t.n = tasks_fts.rowid "
        "WHERE tasks_fts MATCH ?1 AND (?2 IS NULL OR t.id = ?2) ORDER BY 5 LIMIT ?3"
    ),
    "message": (
        f"SELECT 'message', m.id, m.task_id, snippet(messages_fts, -1, {_SNIPPET}), bm25(messages_fts) "  # noqa: S608
        "FROM messages_fts JOIN messages AS m ON m.n = messages_fts.rowid "
        "WHERE messages_fts MATCH ?1 AND (?2 IS NULL OR m.task_id = ?2) ORDER BY 5 LIMIT ?3"
    ),
    "log": (
        f"SELECT 'log', l.id, a.task_id, snippet(agent_logs_fts, -1, {_SNIPPET}), bm25(agent_logs_fts) "  # noqa: S608
        "FROM agent_logs_fts JOIN agent_logs AS l ON l.n = agent_logs_fts.rowid "
        "JOIN agent_instances AS a ON a.id = l.agent_instance_id "
        "WHERE agent_logs_fts MATCH ?1 AND (?2 IS NULL OR a.task_id = ?2) ORDER BY 5 LIMIT ?3"
    ),
    "command": (
        f"SELECT 'command', c.id, c.task_id, snippet(commands_fts, -1, {_SNIPPET}), bm25(commands_fts) "  # noqa: S608
        "FROM commands_fts JOIN commands AS c ON c.n = commands_fts.rowid "
        "WHERE commands_fts MATCH ?1 AND (?2 IS NULL OR c.task_id = ?2) ORDER BY 5 LIMIT ?3"
    ),
}


def fts_query(text: str) -> str | None:
    """Words that must all occur; "several words" in quotes as a phrase; a trailing `*` is a prefix.

    Everything is quoted, so that no text is a syntax error. None when there is nothing to look for.
    """
    # What no stored text holds: lone surrogates cannot be encoded, and NUL would end the query.
    clean = text[:QUERY_LIMIT_CHARS].encode("utf-8", "replace").decode().replace("\0", " ")
    terms = []
    for found in _TERM.finditer(clean):
        phrase, star, word = found.groups()
        if word is not None:
            phrase, star = word.rstrip("*"), "*" if word.endswith("*") else ""
        if phrase and phrase.strip():
            terms.append(f'"{phrase}"{" *" if star else ""}')
    return " ".join(terms[:TERMS_LIMIT]) or None


def search(db: apsw.Connection, text: str, kinds: Sequence[str], task_id: str | None, limit: int) -> list[Hit]:
    """The best hits of all kinds, best first."""
    query = fts_query(text)
    if query is None:
        return []
    hits: list[Hit] = []
    for kind, sql in SEARCHES.items():
        if not kinds or kind in kinds:
            for name, id, task, snippet, rank in db.execute(sql, (query, task_id, limit)):
                hits.append(Hit(name, id, task, snippet, -rank))
    hits.sort(key=lambda hit: -hit.score)
    return hits[:limit]
