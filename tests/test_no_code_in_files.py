"""No file can make calotype run code: the syntax tree of every program here, and the schema of every setting, are read.

A file that is loaded is data: safetensors, JSON, YAML's plain values, NumPy's without objects. What follows looks for
each door through which data becomes code (unpickling, eval, imports by a name from elsewhere), and for settings whose
text could name code.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from calotype.core.errors import UserError
from calotype.recipes.recipe import Recipe

ROOT = Path(__file__).parents[1]
ROOMS = ("src", "benchmarks", "examples", "docs", "runs")
PROGRAMS = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))

# Modules that turn bytes into objects or text into programs, or start workers that pickle what they exchange.
BANNED_MODULES = {
    *("pickle", "_pickle", "cPickle", "pickletools", "cloudpickle", "dill", "joblib", "marshal", "shelve", "copyreg"),
    *("multiprocessing", "multiprocess", "torch.multiprocessing", "concurrent.futures.process", "runpy", "code", "imp"),
    *("torch.package", "torch.hub", "torch.jit", "torch.distributed.checkpoint", "torch.distributed.rpc"),
}
BANNED_NAMES = {
    *("torch.save", "torch.serialization", "os.system", "os.popen", "pandas.read_pickle", "pydantic.ImportString"),
    *("concurrent.futures.ProcessPoolExecutor", "torch.utils.data.DataLoader", "pkgutil.resolve_name"),
    *("importlib.util.spec_from_file_location", "numpy.fromregex", "builtins"),
}
BUILTINS = {"eval", "exec", "compile", "__import__", "globals", "__builtins__"}
BY_NAME = {"importlib.import_module", "importlib.metadata.entry_points", "importlib.__import__"}
YAML = {"safe_load", "safe_dump", "safe_load_all", "safe_dump_all", "YAMLError"}
COLLECTIVES = {f"{verb}_object" for verb in ("all_gather", "broadcast", "gather", "scatter", "send", "recv")}
MUST_SAY = {"allow_pickle": False, "trust_remote_code": False, "weights_only": True, "shell": False}

# The only places where a rule may be broken, and why.
ALLOWED = {
    ("src/calotype/features/weights.py", "torch.load"): "a .pth of known or given sha256, weights_only=True",
    ("src/calotype/core/lazy.py", "import by name"): "modules written in our own packages' __init__",
    ("src/calotype/core/lazy.py", "getattr of a module"): "names written there too",
    ("src/calotype/training/boards.py", "import by name"): "installed trackers, named on the command line",
    ("src/calotype/latents/pretrained.py", "getattr of a module"): "one of two classes: the setting is a Literal",
    ("benchmarks/mutations.py", "compile"): "whether a planted fault is still Python; it is run as a test",
    ("benchmarks/mutants.py", "import by name"): "what the tests imported, for the children to inherit",
    ("benchmarks/faults.py", "import by name"): "what a first run imported, for the children to inherit",
}


class Finding(NamedTuple):
    """A rule broken at a line."""

    line: int
    rule: str


class Reader(ast.NodeVisitor):
    """Collects what breaks a rule. Names are followed through imports: `from torch import save as s` is torch.save."""

    def __init__(self) -> None:
        self.home: dict[str, str] = {}  # what a name in this file stands for
        self.found: list[Finding] = []

    def find(self, node: ast.AST, rule: str) -> None:
        self.found.append(Finding(getattr(node, "lineno", 0), rule))

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            first = alias.name.partition(".")[0]
            self.home[alias.asname or first] = alias.name if alias.asname else first
            self.judge(node, alias.name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            self.home[alias.asname or alias.name] = f"{node.module}.{alias.name}"
            self.judge(node, f"{node.module}.{alias.name}")

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load) and node.id in BUILTINS and node.id not in self.home:
            self.find(node, node.id)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if (name := self.full_name(node)) is not None:
            self.judge(node, name)
        elif node.attr.removesuffix("_list") in COLLECTIVES:
            self.find(node, "objects between processes")
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        name = self.full_name(node.func) or ""
        said = {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg}
        for word, value in said.items():
            if word in MUST_SAY and not (isinstance(value, ast.Constant) and value.value is MUST_SAY[word]):
                self.find(node, f"{word} is not {MUST_SAY[word]}")
        if name in ("numpy.load", "numpy.save", "numpy.lib.format.open_memmap") and "allow_pickle" not in said:
            self.find(node, "allow_pickle is not False")
        if name == "torch.load" and "weights_only" not in said:
            self.find(node, "weights_only is not True")
        if isinstance(node.func, ast.Attribute) and node.func.attr == "from_pretrained":
            self.judge_pretrained(node, node.func, said)
        if isinstance(node.func, ast.Name) and node.func.id in ("getattr", "vars") and node.args:
            self.judge_getattr(node)
        self.generic_visit(node)

    def judge(self, node: ast.AST, name: str) -> None:
        """A full name, of an import or of an attribute."""
        parts = name.split(".")
        for end in range(1, len(parts) + 1):
            start = ".".join(parts[:end])
            if start in BANNED_MODULES or start in BANNED_NAMES:
                self.find(node, start)
        if parts[0] == "yaml" and len(parts) > 1 and parts[1] not in YAML:
            self.find(node, "yaml beyond its safe functions")
        if name in BY_NAME:
            self.find(node, "import by name")
        if name == "torch.load":
            self.find(node, name)
        if parts[-1].removesuffix("_list") in COLLECTIVES:
            self.find(node, "objects between processes")

    def judge_pretrained(self, node: ast.Call, called: ast.Attribute, said: dict[str, ast.expr]) -> None:
        """Weights of others come as safetensors only; settings and vocabularies without their code."""
        plain = (self.full_name(called.value) or ast.unparse(called.value)).endswith(("AutoConfig", "AutoTokenizer"))
        word, wanted = ("trust_remote_code", False) if plain else ("use_safetensors", True)
        value = said.get(word)
        if not (isinstance(value, ast.Constant) and value.value is wanted):
            self.find(node, f"from_pretrained without {word}={wanted}")

    def judge_getattr(self, node: ast.Call) -> None:
        """getattr of what was imported, by a name that is not written here; vars of it."""
        of, *rest = node.args
        imported = (isinstance(of, ast.Name) and of.id in self.home) or self.full_name(
            getattr(of, "func", of)
        ) in BY_NAME
        imported = imported or ast.unparse(of).startswith("sys.modules[")
        if imported and not (rest and isinstance(rest[0], ast.Constant)):
            self.find(node, "getattr of a module")

    def full_name(self, node: ast.AST) -> str | None:
        """`np.lib.load` as numpy.lib.load; None for what does not begin with an imported name."""
        if isinstance(node, ast.Name):
            return self.home.get(node.id)
        if isinstance(node, ast.Attribute) and (before := self.full_name(node.value)) is not None:
            return f"{before}.{node.attr}"
        return None


def findings(source: str) -> list[Finding]:
    reader = Reader()
    tree = ast.parse(source)
    for node in ast.walk(tree):  # imports inside functions count wherever they stand
        if isinstance(node, ast.Import | ast.ImportFrom):
            reader.visit(node)
    reader.found.clear()
    reader.visit(tree)
    return sorted(set(reader.found))


def test_there_is_something_to_read() -> None:
    assert len(PROGRAMS) > 100
    assert {path.relative_to(ROOT).parts[0] for path in PROGRAMS} == set(ROOMS)


def test_nothing_here_turns_data_into_code() -> None:
    used, wrong = set(), []
    for path in PROGRAMS:
        name = path.relative_to(ROOT).as_posix()
        for line, rule in findings(path.read_text()):
            used.add((name, rule))
            if (name, rule) not in ALLOWED:
                wrong.append(f"{name}:{line}: {rule}")
    assert wrong == []
    assert used == set(ALLOWED), "an exception that is no longer needed is no longer allowed"


PLANTED = {
    "pickle": [
        "import pickle",
        "from pickle import loads",
        "import pickle as p\np.loads(b'')",
        "def f():\n    import pickle",
    ],
    "cloudpickle": ["import cloudpickle"],
    "dill": ["from dill import dump"],
    "joblib": ["import joblib"],
    "marshal": ["import marshal"],
    "shelve": ["import shelve"],
    "multiprocessing": [
        "import multiprocessing",
        "from multiprocessing import Pool",
        "from multiprocessing.pool import Pool",
    ],
    "torch.multiprocessing": ["import torch.multiprocessing as mp", "import torch\ntorch.multiprocessing.spawn(f)"],
    "concurrent.futures.ProcessPoolExecutor": ["from concurrent.futures import ProcessPoolExecutor"],
    "torch.utils.data.DataLoader": ["from torch.utils.data import DataLoader"],
    "torch.jit": ["import torch\ntorch.jit.load(path)", "from torch import jit"],
    "torch.hub": ["import torch\ntorch.hub.load(repo, name)"],
    "torch.distributed.checkpoint": [
        "import torch.distributed.checkpoint as dcp",
        "from torch.distributed import checkpoint",
    ],
    "torch.save": [
        "import torch\ntorch.save(x, path)",
        "from torch import save as keep",
        "import torch as t\nf = t.save",
    ],
    "torch.load": ["import torch\ntorch.load(path, weights_only=True)"],
    "weights_only is not True": [
        "import torch\ntorch.load(path)",
        "import torch\ntorch.load(path, weights_only=False)",
        "import torch\ntorch.load(path, weights_only=safe)",
    ],
    "eval": ["eval(text)", "f = eval", "[*map(eval, texts)]"],
    "exec": ["exec(text)"],
    "compile": ["compile(text, 'x', 'exec')"],
    "__import__": ["__import__(name)"],
    "globals": ["globals()[name]()"],
    "builtins": ["import builtins\nbuiltins.eval(text)", "from builtins import eval as e"],
    "import by name": [
        "import importlib\nimportlib.import_module(name)",
        "from importlib import import_module as load\nload(name)",
        "from importlib.metadata import entry_points",
    ],
    "pydantic.ImportString": ["from pydantic import ImportString"],
    "getattr of a module": [
        "import torch\ngetattr(torch, name)",
        "from torch import optim\ngetattr(optim, config.name)",
        "import diffusers\nvars(diffusers)[name]",
        "import sys\ngetattr(sys.modules['x'], name)",
    ],
    "allow_pickle is not False": [
        "import numpy as np\nnp.load(path)",
        "import numpy\nnumpy.load(path, allow_pickle=True)",
        "from numpy import load\nload(path, allow_pickle=flag)",
        "import numpy as np\nnp.save(path, values)",
    ],
    "trust_remote_code is not False": ["load(name, trust_remote_code=True)"],
    "shell is not False": ["import subprocess\nsubprocess.run(text, shell=True)"],
    "os.system": ["import os\nos.system(text)", "from os import system"],
    "yaml beyond its safe functions": [
        "import yaml\nyaml.load(text, yaml.Loader)",
        "import yaml\nyaml.unsafe_load(text)",
        "from yaml import full_load",
        "import yaml\nyaml.dump(value)",
    ],
    "objects between processes": [
        "from torch import distributed\ndistributed.all_gather_object(out, x)",
        "import torch.distributed as dist\ndist.broadcast_object_list(x)",
        "from torch.distributed import gather_object",
        "group.scatter_object_list(x)",
    ],
    "from_pretrained without use_safetensors=True": [
        "family.from_pretrained(folder)",
        "import diffusers\ndiffusers.UNet2DModel.from_pretrained(folder, use_safetensors=False)",
    ],
    "from_pretrained without trust_remote_code=False": [
        "import transformers\ntransformers.AutoConfig.from_pretrained(folder)"
    ],
}


@pytest.mark.parametrize(("rule", "source"), [(rule, source) for rule, all_ in PLANTED.items() for source in all_])
def test_each_rule_catches_what_is_planted(rule: str, source: str) -> None:
    assert rule in {found.rule for found in findings(source)}


def test_every_rule_has_a_planted_sample() -> None:
    own = BUILTINS - {"__builtins__"} | {"os.system", "torch.save", "torch.load", "builtins", "pydantic.ImportString"}
    assert own <= PLANTED.keys()
    assert {rule for _, rule in ALLOWED} <= PLANTED.keys()


@pytest.mark.parametrize(
    "source",
    [
        "import re\nre.compile(pattern)",
        "network.eval()\nnetwork.compile()",
        "import yaml\nyaml.safe_load(text)",
        "import numpy as np\nnp.load(path, allow_pickle=False)",
        "getattr(record, name)",
        "import torch\ngetattr(torch, 'compile')",
        "def eval_losses(code):\n    return code.pickle, 'import pickle', 'eval(x)'  # exec(x)",
        "from torch import distributed\ndistributed.all_gather(out, x)",
        "family.from_pretrained(folder, use_safetensors=True)",
        "import subprocess\nsubprocess.run(words, shell=False)",
    ],
)
def test_what_is_harmless_passes(source: str) -> None:
    assert findings(source) == []


# Settings that are any text, and what that text is compared with or names. All others are numbers or one of a list.
FREE_TEXT = {
    "name": "the recipe's own name, shown and noted",
    "sampling.sampler": "looked up among SAMPLERS",
    "text_encoder": "a packaged encoder, or a folder or hub id of weights",
    "vae.from": "a shipped autoencoder, or a folder of weights",
    "vae.loss.perceptual": "looked up among FEATURE_MAPS",
    "vae.pretrained": "a folder or hub id of weights",
    "vae.network.settings": "arguments of one of diffusers' two autoencoders, which it compares with its own lists",
    "vae.network.source": "where those weights came from, noted",
}


def free_text(schema: dict[str, Any], part: dict[str, Any], at: str) -> Iterator[str]:
    """Where a settings' schema admits any text or anything at all."""
    if "$ref" in part:
        yield from free_text(schema, schema["$defs"][part["$ref"].rpartition("/")[2]], at)
    elif any(word in part for word in ("anyOf", "oneOf", "allOf")):
        for choice in [*part.get("anyOf", []), *part.get("oneOf", []), *part.get("allOf", [])]:
            yield from free_text(schema, choice, at)
    elif part.get("type") == "object" and "properties" in part:
        for name, inner in part["properties"].items():
            yield from free_text(schema, inner, f"{at}.{name}".strip("."))
    elif part.get("type") == "array":
        for inner in [part.get("items", {}), *part.get("prefixItems", [])]:
            yield from free_text(schema, inner, at) if inner else ()
    elif part.get("type") in ("number", "integer", "boolean", "null") or "enum" in part or "const" in part:
        pass
    else:
        yield at


def test_no_setting_is_free_to_name_code() -> None:
    schema = Recipe.model_json_schema()
    assert set(free_text(schema, schema, "")) == set(FREE_TEXT)


@pytest.mark.parametrize("text", ["os.system", "os:system", "builtins.eval", "calotype.cli.main"])
def test_text_that_names_code_is_only_an_unknown_name(text: str) -> None:
    with pytest.raises(UserError, match="unknown sampler"):
        Recipe.parse({"name": "mine", "size": 32, "sampling": {"sampler": text}})
    with pytest.raises(UserError, match="no feature network"):
        Recipe.parse({"name": "mine", "size": 32, "vae": {"loss": {"perceptual": text}}})


def test_yaml_that_names_code_is_not_yaml() -> None:
    with pytest.raises(UserError, match="not YAML"):
        Recipe.parse({"name": "mine", "size": 32}).with_overrides(["name=!!python/name:os.system"])
