"""YAML read with limits: plain values only, no anchors, no duplicate keys, bounded size and depth, numbers as YAML 1.2 has them."""

import re
from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError
from yaml.events import AliasEvent

from smml.errors import UserError

MAX_CHARACTERS, MAX_DEPTH = 200_000, 12


class _Loader(yaml.SafeLoader):
    """SafeLoader without aliases, whose expansion is unbounded, and without YAML 1.1's surprises (1:30, yes, 1_000)."""

    depth = 0
    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, AliasEvent) or getattr(event, "anchor", None):
            raise ComposerError(
                None,
                None,
                "anchors and aliases are not read: write the value out",
                event.start_mark,
            )
        if self.depth >= MAX_DEPTH:
            raise ComposerError(
                None, None, f"nested deeper than {MAX_DEPTH}: no field needs that", event.start_mark
            )
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise ConstructorError(None, None, f"key {key!r} is no text", key_node.start_mark)
            if key in found:
                raise ConstructorError(None, None, f"key {key!r} stands twice", key_node.start_mark)
            found[key] = self.construct_object(value_node, deep=deep)
        return found


_Loader.add_constructor(
    "tag:yaml.org,2002:map", lambda loader, node: loader.construct_mapping(node, deep=True)
)
for _tag, _pattern, _first in (
    ("bool", r"^(?:true|false)$", "tf"),
    ("null", r"^(?:~|null|)$", ["~", "n", ""]),
    ("int", r"^[-+]?\d{1,18}$", "-+0123456789"),
    ("float", r"^[-+]?(?:\d+\.\d*|\.\d+|\d+)(?:[eE][-+]?\d{1,3})?$", "-+.0123456789"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))


def read_document(text: str, file: str) -> dict[str, Any]:
    """The mapping that a YAML text holds. Raises UserError naming file and line."""
    if len(text) > MAX_CHARACTERS:
        raise UserError(
            f"{file} has {len(text):,} characters: at most {MAX_CHARACTERS:,} are read."
        )
    try:
        content = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        what = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UserError(f"{file}{line}: {what}. Correct it there.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: {error}. Correct it there.") from error
    if not isinstance(content, dict):
        raise UserError(
            f"{file} holds no mapping with `case:` and `claims:`; start from smml audit --template."
        )
    return content
