"""Rules of the house that no linter knows: who knows what, and who imports whom."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "perdure"
FILES = sorted(SOURCE.rglob("*.py"))

INSIDE = re.compile(
    r"\bpipeline\.|\bunet\b|\btransformer\b|\btext_encoder|\battn\d?\b|\battn2\b|\btokenizer\b"
    r"|\bvae\b|\bencoder_hidden_states\b"
)
"""Words of a pipeline's inside."""
KNOWS = ("hosts/", "smallworld/")
"""Where they may stand: the house of what is frozen, and the recipe that makes a pipeline."""
ALSO = {"bank_format.py", "measuring/features.py", "doctor.py", "quiet.py"}
"""The old format's one encoder, a metric encoder's tokenizer, what is said of smallworld."""

LAYERS = (
    ("cli",),
    ("doctor", "suggestions"),
    ("benchmarks",),
    ("exchange",),
    ("measuring",),
    ("drawing",),
    ("learning", "classification"),
    ("totals",),
    ("bank_checking", "bank_repair"),
    (
        "bank",
        "bank_listing",
        "bank_reading",
        "bank_writing",
        "bank_forgetting",
        "bank_format",
        "bank_leftovers",
        "bank_names",
    ),
    ("methods", "hosts"),
    ("adapters",),
)
"""From top to bottom; what stands in no layer is beside them all."""
RANK = {name: depth for depth, layer in enumerate(LAYERS) for name in layer}
UPWARDS = {
    ("classification", "benchmarks"),
    ("classification", "measuring"),  # `run.py` derives numbers from the matrix
    ("hosts", "methods"),
}


def code_of(path: Path) -> str:
    """The file without its strings and comments."""
    tree = ast.parse(path.read_text())
    names = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name)]
    names += [f".{node.attr}" for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    names += [
        f"{node.value.id}.{node.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    ]
    names += [
        f"{node.value.attr}.{node.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute)
    ]
    names += [word.arg or "" for word in ast.walk(tree) if isinstance(word, ast.keyword)]
    return "\n".join(names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_pipelines_inside_is_known_in_the_house_of_the_frozen_alone(path: Path) -> None:
    name = path.relative_to(SOURCE).as_posix()
    if name.startswith(KNOWS) or name in ALSO:
        return
    found = INSIDE.search(code_of(path))
    assert found is None, f"{name} speaks of {found and found[0]!r}: that is a family's business"


def imports_of(path: Path) -> set[str]:
    """The packages and modules of perdure that the file imports when it is imported."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("perdure."):
            found.add(str(node.module).split(".")[1])
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_down(path: Path) -> None:
    own = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    if own not in RANK:
        return
    for other in imports_of(path) - {own}:
        up = other in RANK and RANK[other] <= RANK[own] and own not in LAYERS[RANK[other]]
        assert not up or (own, other) in UPWARDS, f"{own} imports {other}, which stands above it"
    if own == "hosts":
        assert "methods" not in imports_of(path), "what is frozen knows no method"


def test_no_two_modules_import_each_other() -> None:
    wanted: dict[str, set[str]] = {}
    for path in FILES:
        module = ".".join(("perdure", *path.relative_to(SOURCE).with_suffix("").parts))
        tree = ast.parse(path.read_text())
        wanted[module.removesuffix(".__init__")] = {
            str(node.module)
            for node in tree.body
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("perdure")
        }
    seen: set[str] = set()

    def visit(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, " -> ".join((*above[above.index(module) :], module))
        if module in seen or module not in wanted:
            return
        for other in wanted[module]:
            visit(other, (*above, module))
        seen.add(module)

    for module in wanted:
        visit(module, ())


SCRIPTS = sorted(
    path
    for folder in ("docs", "perf", "examples", "integrations")
    for path in Path(SOURCE.parents[1], folder).rglob("*.py")
)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_import_what_is_there(path: Path) -> None:
    """No test runs these to their end, and a module may have moved since they were written."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "perdure":
            module = importlib.import_module(str(node.module))
            for name in node.names:
                assert hasattr(module, name.name), f"{node.module} has no {name.name}"


def test_pictures_are_opened_by_the_formats_that_are_read() -> None:
    """Others than these may run programs: `untrusted.py`; smallworld reads its own."""
    for path in FILES:
        name = path.relative_to(SOURCE).as_posix()
        bare = re.search(r"Image\.open\((?!.*formats=)", path.read_text())
        assert bare is None or name.startswith("smallworld/"), name
