"""What can be named: the models that the package carries, and the runs at hand. Reads no weights.

Nothing here loads torch: `calotype models` answers at once, and a misspelt name is told before torch is imported.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from calotype.core.errors import UserError, nearest
from calotype.core.files import MANIFEST, read_json, read_manifest

Kind = Literal["model", "run"]
_MARKS: dict[str, Kind] = {"model.json": "model", "config.yaml": "run", "model/model.json": "model"}


@dataclass(frozen=True)
class Place:
    """A model's bundle, or a run; `folder` is the one that holds model.json or config.yaml."""

    kind: Kind
    folder: Path

    @property
    def text_encoder(self) -> str | None:
        """Name of the encoder that its captions go through; None where there are none, or no bundle yet."""
        try:
            described = read_json(self.folder / ("model/model.json" if self.kind == "run" else "model.json"))
            return str(described["recipe"]["text_encoder"]) if described["facts"]["captioned"] else None
        except (UserError, OSError, KeyError, TypeError):  # told by whoever reads it in earnest
            return None

    @property
    def is_shipped(self) -> bool:
        """Whether it is part of the installed package, which nothing may write into."""
        return self.folder.resolve().is_relative_to(shipped_folder().resolve())


def shipped_folder() -> Path:
    """Where the package keeps its models, a folder each; it need not be there."""
    return Path(__file__).parent.parent / "models"


def locate(name: str | Path) -> Place | None:
    """What `name` means: a folder that holds a run or a model, else a shipped one; None for neither.

    So a model folder of the user's comes before a shipped model of the same name; any other folder does not.
    """
    folders = [Path(name).expanduser()]
    if str(name) in shipped_names():
        folders.append(shipped_folder() / str(name))
    for folder in folders:
        for mark, kind in _MARKS.items():
            if (folder / mark).is_file():
                return Place(kind, (folder / mark).parent)
    return None


def found(name: str | Path) -> Place:
    """Where the run or model called `name` is; UserError for one that is not there."""
    place = locate(name)
    if place is None:
        known = [entry["name"] for entry in list_models()]
        mend = nearest(str(name), known) if known else "train one first: calotype train YOUR_FOLDER"
        raise UserError(f"no model '{name}'", mend)
    return place


def shipped_names() -> list[str]:
    """Names of the shipped models."""
    return sorted(path.parent.name for path in shipped_folder().glob("*/model.json"))


def list_models(runs: Path = Path("runs")) -> list[dict[str, Any]]:
    """Shipped models, then the finished runs in `runs`, a record each: name, kind, path, takes, ...

    `score` is the main one in words. One that cannot be read is a record as well, with `problem` in place of the rest.
    """
    shipped = [("shipped", name, shipped_folder() / name) for name in shipped_names()]
    found = [("run", str(path.parent.parent), path.parent) for path in sorted(runs.glob("*/model/model.json"))]
    return [_entry(kind, name, folder) for kind, name, folder in [*shipped, *found]]


def _entry(kind: str, name: str, folder: Path) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": name, "kind": kind, "path": str(folder)}
    try:
        files = [path for path in folder.iterdir() if path.is_file()]
        entry["bytes"] = sum(path.stat().st_size for path in files)
        return entry | _told(read_json(folder / "model.json")) | _check_sizes(folder)
    except UserError as error:
        return entry | {"problem": str(error)}
    except OSError as error:
        return entry | {"problem": f"{error.filename} cannot be read ({error.strerror})"}
    except (TypeError, ValueError, KeyError, AttributeError):
        return entry | {"problem": f"{folder} does not describe a model"}


def _told(description: dict[str, Any]) -> dict[str, Any]:
    """What model.json says, as `list_models` tells it."""
    facts = description["facts"]
    takes = ["prompts"] * bool(facts.get("captioned")) + ["classes"] * bool(description.get("classes"))
    data = facts.get("data") or {}
    return {
        "takes": " and ".join(takes) or "nothing",
        "pixels": description.get("image_size"),
        "score": _main_score(facts),
        "data": data.get("source"),
        "licence": data.get("licence"),
        "attribution": data.get("attribution"),
    }


def _main_score(facts: dict[str, Any]) -> str | None:
    """What tells most of a model: how often it draws what was asked for, else its distance from real pictures."""
    fidelity = (facts.get("scores") or {}).get("fidelity") or {}
    distances = (facts.get("scores") or {}).get("distances") or {}
    if one := fidelity.get("classes"):
        return f"right class {_share(one['right'])}"
    if one := fidelity.get("captions"):
        return f"as asked {_share(one['top5'])}"
    if one := distances.get("samples"):
        value, low, high = (1000 * one["kernel"][key] for key in ("value", "low", "high"))
        return f"kernel distance {value:.1f} [{low:.1f}, {high:.1f}] ×10⁻³"
    return None


def _share(estimate: dict[str, float]) -> str:
    value, low, high = (100 * estimate[key] for key in ("value", "low", "high"))
    return f"{value:.0f} [{low:.0f}, {high:.0f}] %"


def _check_sizes(folder: Path) -> dict[str, Any]:
    """Nothing, or the first file that is not as long as the manifest says: what costs no reading is checked."""
    for name, listed in read_manifest(folder).items() if (folder / MANIFEST).is_file() else ():
        path = folder / name
        if not path.is_file():
            return {"problem": f"{path} is missing"}
        if path.stat().st_size != listed["size"]:
            return {"problem": f"{path} has {path.stat().st_size} bytes, its manifest says {listed['size']}"}
    return {}
