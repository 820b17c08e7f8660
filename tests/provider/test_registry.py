from __future__ import annotations

import sys
import types as python_types
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel

from bridge.config import check_text
from bridge.errors import Invalid
from bridge.provider import registry


class Options(BaseModel):
    root: str = "/x"
    secret: int = 0


class Adapter:
    type: ClassVar[str] = "made-up"

    def __init__(self, name: str, options: Any) -> None:
        self.name, self.options = name, options


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another folder of adapters, beside the real ones."""
    import adapters

    folder = tmp_path / "adapters"
    folder.mkdir()
    monkeypatch.setattr(adapters, "__path__", [str(folder)])
    return folder


def put(monkeypatch: pytest.MonkeyPatch, package: Path, name: str, **content: Any) -> None:
    (package / f"{name}.py").write_text("")
    module = python_types.ModuleType(f"adapters.{name}")
    module.__dict__.update(content)
    monkeypatch.setitem(sys.modules, f"adapters.{name}", module)


def test_types_are_found_and_not_imported(package: Path) -> None:
    for name in ("cloud_run", "aci", "_shared", "simulators"):
        (package / f"{name}.py").write_text("raise SystemExit")
    assert registry.types() == ["aci", "cloud-run"]


def test_an_unknown_type_names_the_nearest(package: Path) -> None:
    (package / "cloud_run.py").write_text("")
    with pytest.raises(Invalid, match=r'unknown backend type "cloudrun".*did you mean "cloud-run"'):
        registry.module("cloudrun")


@pytest.mark.parametrize("type_", ["../x", "", "_shared", "simulators", "os.path"])
def test_no_type_escapes_the_package(package: Path, type_: str) -> None:
    (package / "simulators.py").write_text("")
    with pytest.raises(Invalid):
        registry.module(type_)


def test_a_missing_sdk_says_what_to_install(package: Path) -> None:
    (package / "sdkless.py").write_text(
        "raise ModuleNotFoundError('no', name='azure.mgmt.containerinstance')"
    )
    with pytest.raises(Invalid, match="install podbridge with its extra azure"):
        registry.module("sdkless")


def test_another_missing_import_is_a_defect_and_stays_one(package: Path) -> None:
    (package / "broken.py").write_text("import nonexistent_module_of_ours")
    with pytest.raises(ModuleNotFoundError):
        registry.module("broken")


def test_an_adapter_is_made_of_its_configuration(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(monkeypatch, package, "made_up", Adapter=Adapter, Options=Options)
    put(monkeypatch, package, "plain", Adapter=Adapter)
    text = "backends: [{name: a, type: made-up, root: /y}, {name: b, type: plain}]"
    first, second = check_text(text, "f", registry.options_model).backends
    made: Any = registry.make(first)
    assert (made.name, made.options) == ("a", Options(root="/y"))
    assert registry.make(second).name == "b"
    unchecked = check_text(text, "f").backends[0]
    made = registry.make(unchecked)
    assert made.options == Options(root="/y")


def test_bad_options_do_not_show_values(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(monkeypatch, package, "made_up", Adapter=Adapter, Options=Options)
    config = check_text("backends: [{name: a, type: made-up, secret: hunter2}]", "f").backends[0]
    with pytest.raises(Invalid) as caught:
        registry.make(config)
    assert 'backend "a": secret:' in str(caught.value)
    assert "hunter2" not in str(caught.value)
