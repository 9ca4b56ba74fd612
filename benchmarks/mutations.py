"""The mutants of `mutants.py`: small faults in the sources, made by cosmic-ray's operators and two of ours.

Taken are all of cosmic-ray's operators that need no settings: binary, unary, comparison and boolean ones, numbers,
loops, decorators, exceptions. It has none for the arguments of calls, so two are made here: left out, and made None.
Nothing is excluded. Annotations are mutated too, and die when the file is imported, as long as it does not postpone
their evaluation.
"""

from __future__ import annotations

import difflib
import random
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cosmic_ray.plugins
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator
from parso.python.tree import Keyword


@dataclass(eq=False)
class Mutant:
    """One change of one file, and how its trial ended."""

    path: Path
    line: int
    kind: type[Operator]
    occurrence: int
    before: str
    after: str = ""
    outcome: str = ""

    def __str__(self) -> str:
        return f"{self.path}:{self.line} {self.kind.__name__}"

    @property
    def changes(self) -> str:
        """The lines it takes away and puts in."""
        lines = list(difflib.unified_diff(self.before.splitlines(), self.after.splitlines(), lineterm="", n=0))
        return "\n".join(f"    {line[0]} {line[1:].strip()}" for line in lines[2:] if line[0] in "+-")


def generate(root: Path, paths: Iterable[Path]) -> list[Mutant]:
    """All mutants of these files under `root`, in a fixed order."""
    mutants = []
    for path in paths:
        before = (root / path).read_text()
        tree = get_ast(before)
        for kind in operators():
            places = (start for node in ast_nodes(tree) for start, _ in kind().mutation_positions(node))
            mutants += [Mutant(path, start[0], kind, index, before) for index, start in enumerate(places)]
    return mutants


def operators() -> list[type[Operator]]:
    """cosmic-ray's, but for those that must be told names of variables, and ours."""
    kinds = [cosmic_ray.plugins.get_operator(name) for name in cosmic_ray.plugins.operator_names()]
    return [kind for kind in kinds if not kind.arguments()] + [ArgumentToNone, DropArgument]


def draw(mutants: list[Mutant], count: int, seed: int) -> tuple[list[Mutant], int]:
    """`count` mutants that compile, with their code, and how many were passed over because they do not."""
    chosen: list[Mutant] = []
    stillborn = 0
    for mutant in random.Random(seed).sample(mutants, len(mutants)):
        if len(chosen) == count:
            break
        mutant.after = mutate_code(mutant.before, mutant.kind(), mutant.occurrence)
        try:
            with warnings.catch_warnings(action="ignore"):
                compile(mutant.after, mutant.path, "exec")
            chosen.append(mutant)
        except SyntaxError:
            stillborn += 1
    return chosen, stillborn


class ArgumentOperator(Operator):
    """A mutation of one argument of a call; `candidates` are what it may change in a node."""

    def mutation_positions(self, node: Any) -> list[Any]:
        return [(candidate.start_pos, candidate.end_pos) for candidate in self.candidates(node)]

    @classmethod
    def examples(cls) -> tuple[()]:
        return ()


class ArgumentToNone(ArgumentOperator):
    """Passes None for an argument, by place or by name; one with a star stays."""

    def candidates(self, node: Any) -> list[Any]:
        plain = [part for part in passed(node) if not part.get_code().strip().startswith("*")]
        named = [part.type == "argument" and part.children[1] == "=" for part in plain]
        values = [part.children[-1] if by_name else part for part, by_name in zip(plain, named)]
        return [value for value in values if value.get_code().strip() != "None"]

    def mutate(self, node: Any, index: int) -> Any:
        value = self.candidates(node)[index]
        siblings = value.parent.children
        siblings[siblings.index(value)] = Keyword("None", value.start_pos, value.get_first_leaf().prefix)
        return node


class DropArgument(ArgumentOperator):
    """Leaves out one of several arguments of a call."""

    def candidates(self, node: Any) -> list[Any]:
        several = passed(node)
        return several if len(several) > 1 else []

    def mutate(self, node: Any, index: int) -> Any:
        siblings = node.children[1].children
        place = siblings.index(self.candidates(node)[index])
        del siblings[place : place + 2]  # and the comma behind it; one left over at the end is allowed
        return node


def passed(node: Any) -> list[Any]:
    """The arguments of a call, where `node` is its part in parentheses."""
    if node.type != "trailer" or node.children[0] != "(":
        return []
    inner = node.children[1]
    return [part for part in (inner.children if inner.type == "arglist" else [inner]) if part not in (",", ")")]
