"""The public names: each is there, and none is loaded before it is used."""

import subprocess
import sys
from importlib import import_module
from types import ModuleType

import pytest

import calotype
import calotype.images


@pytest.mark.parametrize("name", calotype.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert callable(getattr(calotype, name))
    assert name in dir(calotype)


@pytest.mark.parametrize("package", [calotype, calotype.images])
def test_the_homes_are_those_of_the_public_names(package: ModuleType) -> None:
    homes = [(name, home) for home, names in package._HOMES.items() for name in names]
    assert sorted(name for name, _ in homes) == sorted(package.__all__)
    assert all(getattr(package, name) is getattr(import_module(home), name) for name, home in homes)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'calotype' has no attribute 'trian'"):
        calotype.trian  # noqa: B018


def test_importing_the_package_loads_no_torch() -> None:
    code = "import sys, calotype, calotype.images\n"
    code += "print([name for name in ('torch', 'numpy', 'PIL') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
