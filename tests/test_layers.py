"""The layout of the package: every import points from a higher layer to a lower one."""

import ast
from pathlib import Path

import pytest

import tl_keras

ROOT = Path(tl_keras.__file__).parent

# From the lowest layer up. A package imports from lower layers only, and within its layer only from itself.
LAYERS = [
    {"errors"},
    {"utils"},
    {"config"},
    {"backbones"},
    {"strategies"},
    {"results", "weights"},
    {"training", "data"},
    {"feature_cache", "report"},
    {"runs"},
    {"exports"},
    {"planning"},
    {"interface"},
    {"cli"},
    {"__init__", "__main__"},
]
LAYER_OF = {name: index for index, names in enumerate(LAYERS) for name in names}

# Third-party package -> the only modules that may import it.
ONE_HOME = {"absl": {"cli/flags.py"}, "keras_cv": {"data/augmentation.py"}, "scipy": {"results/metrics.py", "report/statistics.py"}}
# Packages that never import TensorFlow, and those that do not import Keras either, type annotations aside.
NO_TENSORFLOW = {"errors", "utils", "config", "backbones", "strategies", "results", "report", "cli"}
NO_KERAS = {"errors", "utils", "config", "results", "report", "cli"}
IMPORTS_TENSORFLOW = {"utils/tensorflow_import.py"}  # its purpose


def modules() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def package_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(tree: ast.AST) -> set[str]:
    """Return the dotted names that a module imports, at any depth."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def annotations_only(tree: ast.Module) -> set[str]:
    """Return the names imported under `if TYPE_CHECKING`."""
    blocks = [node for node in tree.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)]
    return {name for block in blocks for name in imported(block)}


def violations(path: Path, text: str) -> list[str]:
    """Return the imports of a module of the package that point upwards."""
    source = package_of(path)
    names = {name.split(".")[1] for name in imported(ast.parse(text)) if name.startswith("tl_keras.")}
    return [name for name in sorted(names) if name != source and not LAYER_OF.get(name, -1) < LAYER_OF[source]]


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_imports_point_to_lower_layers(path):
    assert not violations(path, path.read_text()), f"{name_of(path)} imports from its own layer or a higher one"


def test_every_package_has_a_layer():
    assert {package_of(path) for path in modules()} == set(LAYER_OF)


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_a_wrong_import_in_any_module_is_found(path):
    """The test above can fail: an import of the highest layer, even a lazy one, is a violation everywhere below it."""
    lazy = "\n\ndef _late():\n    from tl_keras.cli import main\n"
    assert ("cli" in violations(path, path.read_text() + lazy)) == (LAYER_OF[package_of(path)] < LAYER_OF["cli"])


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_third_party_imports(path):
    tree = ast.parse(path.read_text())
    third_party = {name.split(".")[0] for name in imported(tree)}
    for package, homes in ONE_HOME.items():
        assert package not in third_party or name_of(path) in homes
    if name_of(path) not in IMPORTS_TENSORFLOW:
        assert "tensorflow" not in third_party or package_of(path) not in NO_TENSORFLOW
    if package_of(path) in NO_KERAS:
        assert not any(name.split(".")[0] == "keras" for name in imported(tree) - annotations_only(tree))
