"""Answers as JSON: what is repaired, and nothing else.

In this order: thinking is taken out (``<think>...</think>``, also where only its end is there); then the whole text is read as JSON; then
what stands in a code fence; then the first object or list that begins in the text and is whole; then the same with commas before a
closing bracket taken out. An answer that is still no JSON, or not of the schema, is a failure, and its text is kept.
"""

from __future__ import annotations

import json
import re
from typing import Any

__all__ = ["conforms", "read_json_answer", "without_thinking"]

_THINKING = re.compile(r"<think(?:ing)?>.*?</think(?:ing)?>", re.DOTALL | re.IGNORECASE)
_THINKING_END = re.compile(r"\A.*?</think(?:ing)?>", re.DOTALL | re.IGNORECASE)
_THINKING_OPEN = re.compile(r"<think(?:ing)?>.*\Z", re.DOTALL | re.IGNORECASE)
_FENCE = re.compile(r"```[a-zA-Z]*\s*\n?(.*?)```", re.DOTALL)
_COMMA = re.compile(r",(\s*[}\]])")
_MOST_STARTS = 50
_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
}


def without_thinking(text: str) -> str:
    """The answer alone. Thinking that was never ended (the answer was cut off in it) goes, too."""
    text = _THINKING.sub("", text)
    text = _THINKING_END.sub("", text)
    return _THINKING_OPEN.sub("", text).strip()


def read_json_answer(text: str, schema: dict[str, Any]) -> tuple[Any, tuple[str, ...], str]:
    """The value in an answer.

    Args:
        text: the answer without thinking.
        schema: what it must conform to (see :func:`conforms`).

    Returns:
        The value, what was repaired, and the problem: the value is None where there is one.
    """
    fault = ""
    for repairs, candidate in _candidates(text):
        try:
            value = json.loads(candidate)
        except (ValueError, RecursionError):
            continue
        wrong = conforms(value, schema)
        if not wrong:
            return value, repairs, ""
        fault = fault or wrong
    return None, (), fault or "there is no whole JSON value in it"


def _candidates(text: str) -> list[tuple[tuple[str, ...], str]]:
    found: list[tuple[tuple[str, ...], str]] = [((), text)]
    found += [(("code fence",), match[1]) for match in _FENCE.finditer(text)]
    decoder = json.JSONDecoder()
    bare = [(("text around it",), text), (("text around it", "comma before a bracket"), _COMMA.sub(r"\1", text))]
    for repairs, searched in bare:
        starts = [match.start() for match in re.finditer(r"[{\[]", searched)][:_MOST_STARTS]
        end = 0
        for start in starts:
            if start < end:
                continue
            try:
                _, end = decoder.raw_decode(searched, start)
            except (ValueError, RecursionError):
                continue
            found.append((repairs, searched[start:end]))
    return found


def conforms(value: Any, schema: dict[str, Any], place: str = "the answer") -> str:
    """What is wrong with a value; empty if nothing is.

    Knows type, properties, required, items, minItems, maxItems, enum, minimum and maximum.
    """
    kind = schema.get("type")
    if kind is not None and (
        not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind in ("integer", "number"))
    ):
        return f"{place} is not of type {kind}"
    if "enum" in schema and value not in schema["enum"]:
        return f"{place} is none of {schema['enum']}"
    if isinstance(value, dict):
        missing = [name for name in schema.get("required", ()) if name not in value]
        if missing:
            return f"{place} lacks {', '.join(missing)}"
        wrong = [
            conforms(value[name], inner, name) for name, inner in schema.get("properties", {}).items() if name in value
        ]
        return next((fault for fault in wrong if fault), "")
    if isinstance(value, list):
        least, most = schema.get("minItems", 0), schema.get("maxItems", len(value))
        if not least <= len(value) <= most:
            return f"{place} has {len(value)} entries, not {least if least == most else f'{least} to {most}'}"
        wrong = [conforms(item, schema.get("items", {}), f"{place}[{number}]") for number, item in enumerate(value)]
        return next((fault for fault in wrong if fault), "")
    if isinstance(value, int | float) and not isinstance(value, bool):
        low, high = schema.get("minimum", value), schema.get("maximum", value)
        return "" if low <= value <= high else f"{place} = {value} is not from {low} to {high}"
    return ""
