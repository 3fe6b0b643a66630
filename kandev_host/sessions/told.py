"""Model failures that agents tell as if the model had said them: a turn that ends end_turn with the error as its text.

Strict on purpose: a text counts only if it is one of these from its first character to its last, in the very form
that the agent makes by itself. A model that writes about errors does so in other words, or in more of them.
"""

from __future__ import annotations

import re

import msgspec

from kandev_host.protocol.jsonrpc import INTERNAL_ERROR, RpcError
from kandev_host.sessions.failures import Cause, classify, classify_text

WHOLE_CHARS = 4000

# codex-acp puts its own warnings before the answer, each a paragraph.
_WARNING = re.compile(r"(?:Warning: |Model metadata for )[^\n]{1,1000}(?:\n+|\Z)")
_FORMS = tuple(
    re.compile(form, re.DOTALL)
    for form in (
        # codex and its ACP adapters
        r"unexpected status \d{3} [^\n]{0,1000}, url: https?://[^\n]{1,1000}",
        r"exceeded retry limit, last status: \d{3}[^\n]{0,300}",
        r"stream disconnected before completion: [^\n]{1,1000}",
        r"We['\u2019]re currently experiencing high demand, which may cause temporary errors\.",
        r"Selected model is at capacity\. Please try a different model\.",
        r"Quota exceeded\. Check your plan and billing details\.",
        r"You['\u2019]ve hit your usage limit\.(?: [^\n]{1,500}(?:[Tt]ry again (?:later|at|in) [^\n]{0,60}|admin\.))?",
        r"The '?model `[^`\s]{1,200}` does not exist or you do not have access to it\.",
        # Claude Code
        r"API Error: (?:\d{3} \{.{1,3000}\}|Connection error\.|Request timed out\.)",
        r"API Error: Unable to connect to API \([A-Za-z_]{1,40}\)",
        r"API Error: Repeated \d{3} [^\n]{1,500}",
        r"Claude(?: AI)? usage limit reached\|\d{10,13}",
        r"You['\u2019]ve hit your (?:\w+ )?limit [·∙] resets [^\n]{1,60}",
        r"(?:\d+-hour|Weekly|Session|Opus weekly) limit reached [·∙] resets [^\n]{1,60}",
        r"Invalid API key · (?:Please run /login|Fix external API key)",
        r"Credit balance is too low",
        # Copilot
        r"(?:[✗❌] )?(?:Error: )?(?:\(query\) )?Execution failed: (?:CAPI)?Error: .{1,3000}",
        # Hermes
        r"(?:[❌⚠️]+ )?API call failed after (?:\d+|three) retries[:.] [^\n]{1,3000}",
        r"(?:[❌⚠️]+ )?Rate limit persisted after \d+ retries\. Please try again later\.",
    )
)  # fmt: skip


def told_error(text: str) -> Cause | None:
    """Of what kind the failure is that a turn's whole text tells of; None for everything else."""
    if len(text) > WHOLE_CHARS:
        return None
    text = without_warnings(text)
    if text.startswith("{"):
        return _error_body(text)
    if any(form.fullmatch(text) for form in _FORMS):
        return classify_text(text)
    return None


def without_warnings(text: str) -> str:
    """The text behind an agent's own warnings; a text that is nothing else stays."""
    text = text.strip()
    while (warning := _WARNING.match(text)) is not None and warning.end() < len(text):
        text = text[warning.end() :].lstrip()
    return text


def _error_body(text: str) -> Cause | None:
    """A model service's own answer, as codex passes it on: {"error": {"message", "type" and more}} and no more."""
    try:
        body = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict) or not set(body) <= {"error", "type", "status", "request_id"}:
        return None
    message = error.get("message")
    if not isinstance(message, str) or not {"type", "code", "status"} & set(error):
        return None
    return classify(RpcError(INTERNAL_ERROR, message, body))
