"""A model error that an agent passes off as its answer is one; an answer about errors is an answer."""

from __future__ import annotations

import pytest

from kandev_host.sessions.told import told_error

WARNING = (
    "Warning: Model metadata for `fake-model` not found. Defaulting to fallback metadata; this can degrade performance "
    "and cause issues.\n\n"
)
JSON = '{"error": {"message": "The prompt is no good", "type": "invalid_request_error", "param": null, "code": null}}'

ERRORS = [
    (WARNING + JSON + "\n\n", "config"),
    (JSON, "config"),
    (WARNING + "exceeded retry limit, last status: 429 Too Many Requests\n\n", "rate_limit"),
    (WARNING + "We\u2019re currently experiencing high demand, which may cause temporary errors.\n\n", "unavailable"),
    (
        WARNING + "unexpected status 529 <unknown status code>: Overloaded, url: http://127.0.0.1:1/v1/responses\n\n",
        "unavailable",
    ),
    ("unexpected status 401 Unauthorized: Missing bearer, url: https://api.openai.com/v1/responses", "config"),
    ("stream disconnected before completion: error sending request for url (http://127.0.0.1:1/v1)", "unavailable"),
    ("Selected model is at capacity. Please try a different model.", "unavailable"),
    ("You've hit your usage limit. Upgrade to Pro or try again in 4 days 2 hours.", "rate_limit"),
    (
        "You've hit your usage limit. Visit https://chatgpt.com/codex/settings/usage to purchase more credits or try "
        "again at 3:28 PM.",
        "rate_limit",
    ),
    ("The model `gpt-9` does not exist or you do not have access to it.", "config"),
    ("Claude AI usage limit reached|1768050000", "rate_limit"),
    ("You've hit your limit · resets 3pm (Europe/Berlin)", "rate_limit"),
    ("5-hour limit reached ∙ resets 3pm", "rate_limit"),
    ("Invalid API key · Please run /login", "config"),
    ("Credit balance is too low", "config"),
    ('API Error: 500 {"type":"error","error":{"type":"api_error","message":"Internal server error"}}', "unavailable"),
    ('API Error: 429 {"type":"error","error":{"type":"rate_limit_error","message":"no"}}', "rate_limit"),
    ("API Error: Connection error.", "unavailable"),
    (
        "Execution failed: Error: Failed to get response from the AI model; retried 5 times (total retry wait time: "
        "6.05 seconds) Last error: Unknown error",
        "unavailable",
    ),
    ("Execution failed: CAPIError: 400 400 Bad Request\n   (Request ID: EAC9:137083)", "config"),
    ("API call failed after 3 retries: HTTP 429: The usage limit has been reached.", "rate_limit"),
    ("API call failed after 3 retries: HTTP 400: The prompt is no good", "config"),
    ("❌ Rate limit persisted after 3 retries. Please try again later.", "rate_limit"),
]

ANSWERS = [
    "",
    "Done.",
    "The build failed with HTTP 429 because the registry has a rate limit.",
    "API Error: 500 means that the server failed.",
    "I looked at the log. It says: API Error: Connection error.",
    "API Error: Connection error.\n\nThat is what your log says; the port is closed.",
    "Execution failed, so I changed the script.",
    "The model User does not exist.",
    "The model `User` does not exist in models.py.",
    "Credit balance is too low to run the test; I mocked it.",
    "You've hit your usage limit. is the text that I added to the page.\nIt is shown once.",
    "exceeded retry limit, last status: 429 Too Many Requests\n\nThis is what I found in the log.",
    "Warning: this removes the table.",
    "Warning: Rate limit exceeded",
    '{"error": "no"}',
    '{"error": {"message": "no"}}',
    '{"result": 1, "error": {"message": "no", "type": "x"}}',
    "```json\n" + JSON + "\n```",
    "Here it is:\n" + JSON,
    JSON + "\nThat is what the service answers.",
    "{" * 3000,
    '{"error":' * 900,
    "Execution failed: Error: " + "x" * 5000,
]


@pytest.mark.parametrize(("text", "failure"), ERRORS)
def test_a_text_that_is_an_error_is_of_its_kind(text: str, failure: str) -> None:
    found = told_error(text)
    assert found is not None
    assert found.failure == failure


@pytest.mark.parametrize("text", ANSWERS)
def test_an_answer_stays_an_answer(text: str) -> None:
    assert told_error(text) is None
