"""Strict configs: frozen, typed, an unknown key is an error that names the nearest known one."""

from __future__ import annotations

import re
from typing import Any, Self, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from calotype.core.errors import UserError, nearest


class Config(BaseModel):
    """Base of every config: immutable, no extra keys, values checked when assigned a default."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    @classmethod
    def parse(cls, values: dict[str, Any], where: str = "config") -> Self:
        """Validate plain values; `where` names their source in the one-line error."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise UserError(f"{where}: {_first_problem(cls, error)}") from None

    def with_overrides(self, assignments: list[str]) -> Self:
        """A copy with `a.b=value` assignments (YAML values) applied, as `--set` gives them."""
        values = self.model_dump(mode="json")
        for assignment in assignments:
            path, equals, text = assignment.partition("=")
            if not equals:
                raise UserError(f"--set {assignment}: no '=' in it", "write --set section.key=value")
            _assign(values, path.strip(), _value(assignment, text))
        return self.parse(values, where="--set")


def _value(assignment: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise UserError(f"--set {assignment}: the value is not YAML", "put it in quotes") from None


def _assign(values: dict[str, Any], path: str, value: Any) -> None:
    known, here = path.split("."), values
    for depth, key in enumerate(known):
        if not isinstance(here, dict) or key not in here:
            names = [".".join([*known[:depth], name]) for name in (here if isinstance(here, dict) else {})]
            raise UserError(f"--set {path}: unknown key '{path}'", nearest(path, _leaves(values)) if names else "")
        if depth == len(known) - 1:
            here[key] = value
        else:
            here = here[key]


def _leaves(values: dict[str, Any], prefix: str = "") -> list[str]:
    """Dotted names of all settings, so that a misspelt one can be compared with them."""
    names: list[str] = []
    for key, value in values.items():
        names += _leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else [f"{prefix}{key}"]
    return names


def _first_problem(cls: type[BaseModel], error: ValidationError) -> str:
    problem = error.errors()[0]
    tree = _field_tree(cls)
    path = ".".join(_as_written(problem["loc"], tree))
    if problem["type"] == "extra_forbidden":
        known = _leaves(tree)
        return f"unknown key '{path}': {nearest(path, known)}"
    if problem["type"] == "literal_error" and isinstance(problem["input"], str):
        known = re.findall(r"'([^']+)'", problem["ctx"]["expected"])
        return f"{path}: unknown value '{problem['input']}': {nearest(problem['input'], known)}"
    if problem["type"] == "union_tag_invalid":
        known, tag = re.findall(r"'([^']+)'", problem["ctx"]["expected_tags"]), problem["ctx"]["tag"]
        return f"{path}: unknown value '{tag}': {nearest(tag, known)}"
    if problem["type"] == "union_tag_not_found":
        return f"{path}: it has no key {problem['ctx']['discriminator']}"
    return f"{path or cls.__name__}: {problem['msg']} (got {problem.get('input')!r})"


def _as_written(loc: tuple[int | str, ...], tree: dict[str, Any]) -> list[str]:
    """The keys that lead to a problem, without the tags that pydantic puts between a union's field and its member's."""
    kept: list[str] = []
    here: Any = tree
    for part in loc[:-1]:
        if not isinstance(here, dict) or part in here:
            kept.append(str(part))
            here = here.get(part) if isinstance(here, dict) else None
    return kept + [str(part) for part in loc[-1:]]


def _field_tree(cls: type[BaseModel]) -> dict[str, Any]:
    """Names of all fields, those of configs within configs as trees; a union has the fields of all its members."""
    tree: dict[str, Any] = {}
    for name, field in cls.model_fields.items():
        kinds = get_args(field.annotation) or (field.annotation,)
        configs = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        inner = {key: value for config in configs for key, value in _field_tree(config).items()}
        tree[field.alias or name] = inner or None
    return tree
