"""ComfyUI's nodes, in a stand-in of what ComfyUI asks of nodes and does with them."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import perdure

FOLDER = Path(__file__).parents[1] / "integrations" / "comfyui"
KINDS = {"INT": int, "FLOAT": (int, float), "STRING": str, "BOOLEAN": bool}


@pytest.fixture(scope="module")
def nodes() -> Iterator[dict[str, Any]]:
    """The folder as ComfyUI imports it, from whatever path it lies at."""
    spec = importlib.util.spec_from_file_location("custom_nodes_perdure", FOLDER / "__init__.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    assert module.NODE_DISPLAY_NAME_MAPPINGS.keys() == module.NODE_CLASS_MAPPINGS.keys()
    yield module.NODE_CLASS_MAPPINGS
    for name in [name for name in sys.modules if name.startswith(spec.name)]:
        del sys.modules[name]


def checked(kind: Any, option: dict[str, Any], value: Any) -> Any:
    """A widget's value, as ComfyUI validates it before anything runs."""
    if isinstance(kind, list):
        assert value in kind
        return value
    assert isinstance(value, KINDS[kind])
    assert option.get("min", value) <= value <= option.get("max", value)
    return value


def run(nodes: dict[str, Any], graph: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The outputs of a graph in ComfyUI's own format, whose links are [node, output]."""
    done: dict[str, Any] = {}
    for name, node in graph.items():
        kind = nodes[node["class_type"]]
        given = {}
        for key, (of, *more) in kind.INPUT_TYPES()["required"].items():
            option = more[0] if more else {}
            value = node["inputs"].get(key, option.get("default"))
            if isinstance(value, list):
                source, output = value
                assert nodes[graph[source]["class_type"]].RETURN_TYPES[output] == of
                given[key] = done[source][output]
            else:
                given[key] = checked(of, option, value)
        if hasattr(kind, "VALIDATE_INPUTS"):
            asked = inspect.signature(kind.VALIDATE_INPUTS).parameters
            valid = kind.VALIDATE_INPUTS(**{key: given[key] for key in asked})
            if valid is not True:
                raise ValueError(valid)
        if hasattr(kind, "IS_CHANGED"):
            kind.IS_CHANGED(**given)
        done[name] = getattr(kind(), kind.FUNCTION)(**given)
        assert len(done[name]) == len(kind.RETURN_TYPES)
    return done


def test_every_node_says_what_comfyui_asks_for(nodes: dict[str, Any]) -> None:
    for kind in nodes.values():
        asked = kind.INPUT_TYPES()
        assert set(asked) <= {"required", "optional", "hidden"}
        function = inspect.signature(getattr(kind, kind.FUNCTION)).parameters
        assert [*function][1:] == [*asked["required"]]
        assert isinstance(kind.RETURN_TYPES, tuple) and isinstance(kind.CATEGORY, str)
        assert len(getattr(kind, "RETURN_NAMES", kind.RETURN_TYPES)) == len(kind.RETURN_TYPES)
        for of, *more in asked["required"].values():
            if isinstance(of, list) or of in KINDS:
                checked(of, more[0], more[0]["default"])


def test_a_graph_draws_what_perdure_draws(
    nodes: dict[str, Any], tiny: Path, drawings: Path, tmp_path: Path
) -> None:
    base, bank = perdure.Base.open(tiny, device="cpu"), tmp_path / "bank"
    perdure.learn(base, bank, {"ada": drawings / "ada"}, steps=1, lr=0.5)
    graph = {
        "open": {"class_type": "PerdureOpenBank", "inputs": {"base": str(tiny), "bank": str(bank)}},
        "draw": {
            "class_type": "PerdureDraw",
            "inputs": {"bank": ["open", 0], "prompt": "a photo of <ada>", "seed": 3, "count": 2},
        },
    }
    done = run(nodes, graph)
    assert done["open"][1] == "<ada>"
    (pictures,) = done["draw"]
    assert pictures.dtype == torch.float32 and pictures.shape == (2, 32, 32, 3)
    own = perdure.draw(base, bank, "a photo of <ada>", seed=3, count=2)
    pixels = (pictures * 255).round().to(torch.uint8).numpy()
    assert np.array_equal(pixels, np.stack([np.asarray(picture) for picture in own]))

    changed = nodes["PerdureOpenBank"].IS_CHANGED
    before = changed(bank=str(bank), base="", dtype="", quantize="")
    perdure.learn(base, bank, {"bo": drawings / "bo"}, steps=1)
    assert changed(bank=str(bank), base="", dtype="", quantize="") != before
    graph["open"]["inputs"]["bank"] = str(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no bank"):
        run(nodes, graph)
