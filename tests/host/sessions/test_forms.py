"""What fits a form of an agent, and how long the host looks."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kandev_host.errors import ValidationFailed
from kandev_host.sessions.forms import FIELDS, check_content, check_value, fits, wrong_form

TEXT = {"type": "string"}
CHOICE = {"type": "string", "oneOf": [{"const": "a", "title": "A"}, {"const": "b", "title": "B"}]}
SEVERAL = {"type": "array", "items": {"type": "string", "enum": ["x", "y"]}, "minItems": 1, "maxItems": 2}
TITLED = {"type": "array", "items": {"anyOf": [{"const": "x", "title": "X"}]}}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (TEXT, ""),
        ({**TEXT, "minLength": 2, "maxLength": 2}, "äö"),
        ({**TEXT, "minLength": "wrong"}, ""),
        ({**TEXT, "enum": ["a"]}, "a"),
        ({**TEXT, "pattern": "^[a-z]+-[0-9]{2}$"}, "ab-12"),
        (CHOICE, "b"),
        ({"type": "integer", "minimum": 1, "maximum": 3}, 3),
        ({"type": "number", "minimum": 0.5}, 0.5),
        ({"type": "number"}, 2),
        ({"type": "boolean"}, False),
        (SEVERAL, ["x", "y"]),
        (TITLED, []),
    ],
)
def test_what_fits_its_field_is_taken(field: dict[str, Any], value: Any) -> None:
    assert check_value(field, value) is None


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        (TEXT, 1, "text"),
        (TEXT, ["a"], "text"),
        ({**TEXT, "minLength": 2}, "a", "at least 2"),
        ({**TEXT, "maxLength": 2}, "abc", "at most 2"),
        ({**TEXT, "enum": ["a"]}, "b", "none of the choices"),
        ({**TEXT, "pattern": "^[a-z]+$"}, "a\n", "pattern"),
        ({**TEXT, "pattern": "[0-9]"}, "abc", "pattern"),
        (CHOICE, "A", "none of the choices"),
        ({"type": "integer"}, True, "a whole number"),
        ({"type": "integer"}, 1.5, "a whole number"),
        ({"type": "integer", "minimum": 1, "maximum": 3}, 4, "at least 1 and at most 3"),
        ({"type": "number", "maximum": 3}, 3.1, "at most 3"),
        ({"type": "boolean"}, 1, "true or false"),
        (SEVERAL, "x", "a list"),
        (SEVERAL, ["x", "z"], "none of the choices"),
        (SEVERAL, [], "at least 1"),
        (SEVERAL, ["x", "y", "x"], "at most 2"),
        ({"type": "_picture"}, "a", "does not know"),
    ],
)
def test_what_does_not_fit_its_field_is_refused(field: dict[str, Any], value: Any, complaint: str) -> None:
    assert complaint in str(check_value(field, value))


@pytest.mark.parametrize(
    ("content", "field"),
    [({}, "content.name"), ({"name": "a", "more": "b"}, "content.more"), ({"name": 1}, "content.name")],
)
def test_what_does_not_fit_is_told_by_its_field(content: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationFailed) as refused:
        check_content({"properties": {"name": TEXT}, "required": ["name"]}, content)
    assert refused.value.details["field"] == field


def test_a_content_is_bounded() -> None:
    with pytest.raises(ValidationFailed, match="larger"):
        check_content({"properties": {"name": TEXT}}, {"name": "x" * (64 << 10)})


@pytest.mark.parametrize(
    "schema",
    [
        None,
        {"properties": []},
        {"properties": {"a": TEXT}, "required": ["b"]},
        {"properties": {"a": TEXT}, "required": [["a"]]},
        {"properties": {"a": {}}},
        {"properties": {"a": "string"}},
        {"properties": {f"f{n}": TEXT for n in range(FIELDS + 1)}},
        {"properties": {"a": {**TEXT, "description": "x" * (64 << 10)}}},
    ],
)
def test_a_form_that_cannot_be_shown_is_refused(schema: Any) -> None:
    assert wrong_form(schema)


@pytest.mark.parametrize("schema", [{}, {"properties": None}, {"type": "object", "properties": {"a": TEXT}}])
def test_a_form_may_be_small(schema: Any) -> None:
    assert wrong_form(schema) is None


@pytest.mark.parametrize(
    "pattern", ["(a+)+$", "(a|a)*b", "a*a*a*a*a*b", "^(a?){50}a{50}$", "[a--z]", "a**", "(?=a)", "[", "a{9999999}"]
)
def test_a_pattern_that_could_hold_up_the_host_is_left_to_the_agent(pattern: str) -> None:
    assert fits(pattern, "a" * 3000)


@given(st.text("ab^$.*+?{}[]()|\\,1-d", max_size=24), st.text("ab1 ", max_size=200))
def test_no_pattern_breaks_the_check(pattern: str, value: str) -> None:
    assert fits(pattern, value) in (True, False)
