"""One matrix that every classification method must pass; its mathematics has its own file."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from classifying import coloured, make_backbone, make_tower, save_backbone, small, write_tree

from perdure import precision
from perdure.checkpoint import save_checkpoint
from perdure.classification import (
    CLASSIFIERS,
    ClassificationRun,
    ContinualClassifier,
    FitSettings,
    loop,
    run_classification,
)
from perdure.classification.classifier import grown
from perdure.classification.registry import PENALTIES, build_classifier
from perdure.errors import PerdureError
from perdure.hosts import training
from perdure.hosts.frozen import attached
from perdure.methods import METHODS
from perdure.methods.c_lora import CLoRA
from perdure.methods.protocol import Kept

FAST = FitSettings(epochs=8, batch_size=8, lr=5e-3, head_lr=5e-2, crop=0.6, checkpoint_every=5)
SEPARATE = [name for name in CLASSIFIERS if not CLASSIFIERS[name].all_at_once]
SHARED = ["c-lora", "ewc", "feature-space", "joint", "lora", "stamina"]
MASKED = [name for name in SEPARATE if name not in ("ft", "replay")]
every_method = pytest.mark.parametrize("name", sorted(CLASSIFIERS))
continual_methods = pytest.mark.parametrize("name", sorted(SEPARATE))


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def classifier(
    name: str, *, kind: str = "vit", settings: FitSettings = FAST
) -> ContinualClassifier:
    return ContinualClassifier(
        backbone=make_backbone(kind),
        method=name,
        options=small(name),
        settings=fitting(name, settings),
    )


def fitting(name: str, settings: FitSettings) -> FitSettings:
    """These, without the rate where a method would refuse it."""
    return settings if CLASSIFIERS[name].trains_weights else replace(settings, lr=None)


def taught(name: str, kind: str = "vit") -> ContinualClassifier:
    model = classifier(name, kind=kind)
    lessons = [[0, 1, 2, 3]] if CLASSIFIERS[name].all_at_once else [[0, 1], [2, 3]]
    for lesson in lessons:
        model.fit_task(*coloured(lesson))
    return model


def test_the_methods_are_the_very_classes_that_draw() -> None:
    assert CLASSIFIERS["c-lora"] is CLoRA is METHODS["c-lora"]
    assert all(CLASSIFIERS[name] is METHODS[name] for name in SHARED)


def test_a_penalty_is_classifications_own_where_none_is_given() -> None:
    for name, penalty in PENALTIES.items():
        assert build_classifier(name, {}).config.penalty == penalty
        assert build_classifier(name, {"penalty": 3.0}).config.penalty == 3.0
    assert build_classifier("c-lora", {"rank": 4}).config == CLoRA.Config(rank=4, penalty=1e6)


def test_methods_that_need_pictures_are_not_offered_for_drawing() -> None:
    assert not {"probe", "inflora", "coda-prompt", "lwf", "ft", "ft++", "replay"} & set(METHODS)


@every_method
def test_two_tasks_are_learned_and_the_predicting_module_is_the_plain_backbone(name: str) -> None:
    model = classifier(name)
    first = 0 if name == "joint" else 2
    if name == "joint":
        model.fit_task(*coloured([0, 1, 2, 3]))
    else:
        model.fit_task(*coloured([0, 1]))
        assert model.score(*coloured([0, 1], 6, seed=9)) > 0.7
        model.fit_task(*coloured([2, 3]))
    changes = name not in ("probe", "coda-prompt")  # what prompts read changes, no weight does
    assert all((facts["norm"] > 0) == changes for facts in model.facts)
    new, labels = coloured([0, 1, 2, 3][first:], 6, seed=9)
    said = model.decision_function(new)[:, first:].argmax(axis=1) + first
    assert np.mean(said == labels) > 0.7
    modules = list(model.backbone.tower.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in modules)
    fresh = list(make_backbone().tower.modules())
    assert [type(m) for m in modules] == [type(m) for m in fresh]


@every_method
def test_saved_and_loaded_it_says_the_same_to_the_bit(name: str, tmp_path: Path) -> None:
    model = taught(name)
    pictures, _ = coloured([0, 1, 2, 3], 3, seed=5)
    said = model.decision_function(pictures)
    model.save(tmp_path / "saved")
    again = ContinualClassifier.load(tmp_path / "saved", backbone=make_backbone())
    assert np.array_equal(again.decision_function(pictures), said)
    assert again.classes_ == model.classes_ and again.settings == model.settings
    assert again.stored() == model.stored()


@continual_methods
def test_after_a_load_the_next_task_is_learned_as_without_one(name: str, tmp_path: Path) -> None:
    model = classifier(name).fit_task(*coloured([0, 1]))
    model.save(tmp_path)
    loaded = ContinualClassifier.load(tmp_path, backbone=make_backbone())
    pictures, _ = coloured([0, 1, 2, 3], 3, seed=5)
    for one in (model, loaded):
        one.fit_task(*coloured([2, 3]))
    same = model.decision_function(pictures) == loaded.decision_function(pictures)
    assert same.all()


@pytest.mark.parametrize(("bf16", "tolerance"), [(False, 2e-5), (True, 5e-2)])
@pytest.mark.parametrize("kind", ["vit", "clip", "fused"])
@pytest.mark.parametrize("name", ["c-lora", "stamina", "feature-space", "inflora", "lora", "ft++"])
def test_folded_it_computes_what_the_adapted_layers_did(
    name: str, kind: str, bf16: bool, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exact to rounding in fp32; in bf16 features of about 1 differ by a few of its steps."""
    monkeypatch.setattr(precision, "fast_bf16", lambda device: bf16)
    model = classifier(name, kind=kind).fit_task(*coloured([0, 1]))
    pixels = model.backbone.preprocessing.plain(list(coloured([2, 3])[0]))
    adapted = {}
    keep = model.method.keep

    def seen_at_the_end(learner):  # type: ignore[no-untyped-def]
        with attached(model.backbone.layers, learner.layer_deltas()), torch.no_grad():
            adapted["features"] = model.backbone.features(pixels)
        return keep(learner)

    monkeypatch.setattr(model.method, "keep", seen_at_the_end)
    model.fit_task(*coloured([2, 3]))
    folded = model.backbone.features(pixels)
    plain = make_backbone(kind).features(pixels)
    assert torch.allclose(folded, adapted["features"], atol=tolerance)
    assert not torch.allclose(folded, plain, atol=max(1e-3, tolerance))


@pytest.mark.parametrize("name", sorted(MASKED))
def test_rows_of_old_classes_stay_as_they_were_where_the_loss_masks_them(name: str) -> None:
    model = classifier(name).fit_task(*coloured([0, 1]))
    before = model.weight.clone()
    model.fit_task(*coloured([2, 3]))
    assert torch.equal(model.weight[:2], before) == (name != "lwf")


@continual_methods
def test_what_was_kept_of_a_task_never_changes(name: str) -> None:
    model = classifier(name).fit_task(*coloured([0, 1]))
    kept = model.kept[0]
    tensors = {key: tensor.clone() for key, tensor in kept.tensors.items()}
    model.fit_task(*coloured([2, 3]))
    assert all(torch.equal(kept.tensors[key], tensor) for key, tensor in tensors.items())


class Killed(Exception):
    pass


@every_method
def test_a_run_that_is_killed_and_resumed_ends_in_the_same_bits(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = write_tree(tmp_path / "tree")
    backbone = save_backbone(tmp_path / "vit")
    run = ClassificationRun(
        record=tmp_path / "a.json",
        work=tmp_path / "a",
        stream="folders",
        data=str(tree),
        method=name,
        options=small(name),
        tasks=2,
        settings=fitting(name, replace(FAST, epochs=2, checkpoint_every=2)),
        backbone=str(backbone),
    )
    whole = run_classification(run)
    other = replace(run, work=tmp_path / "b")
    saves = 0

    def save(*args, **kwargs):  # type: ignore[no-untyped-def]
        nonlocal saves
        save_checkpoint(*args, **kwargs)
        saves += 1
        if saves in (1, 3):
            raise Killed

    monkeypatch.setattr(training, "save_checkpoint", save)
    kills = 0
    while True:
        try:
            resumed = run_classification(other)
            break
        except Killed:
            kills += 1
    assert kills == 2
    for key in ("matrix", "losses", "norms", "A_N", "class_order", "trained", "stored"):
        assert resumed[key] == whole[key], key
    files = [{p.name: _hash(p) for p in w.glob("*.safetensors")} for w in (run.work, other.work)]
    assert files[0] == files[1] and files[0]
    assert json.loads(json.dumps(whole)) == whole


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_run_between_two_tasks_goes_on_without_learning_the_first_again(tmp_path: Path) -> None:
    run = ClassificationRun(
        record=tmp_path / "r.json",
        work=tmp_path / "w",
        stream="folders",
        data=str(write_tree(tmp_path / "tree")),
        tasks=2,
        options=small("c-lora"),
        settings=replace(FAST, epochs=1),
        backbone=str(save_backbone(tmp_path / "vit")),
    )
    told: list[int] = []

    def stop(task: int, progress: loop.Progress) -> None:
        told.append(task)
        if task == 1:
            raise Killed

    with pytest.raises(Killed):
        run_classification(run, report=stop)
    told.clear()
    run_classification(run, report=lambda task, progress: told.append(task))
    assert set(told) == {1}
    other_tree = str(write_tree(tmp_path / "other"))
    other_tower = str(save_backbone(tmp_path / "other-vit", kind="clip"))
    for changed in (
        {"method": "lora"},
        {"data": other_tree},
        {"backbone": other_tower},
        {"preprocessing": "coda-prompt"},
        {"settings": replace(run.settings, seed=1)},
    ):
        with pytest.raises(PerdureError, match="holds another run"):
            run_classification(replace(run, **changed))
    (run.work / "rows.json").write_text("[]")
    with pytest.raises(PerdureError, match="lacks the scores of earlier tasks"):
        run_classification(run)
    (run.work / "run.json").unlink()
    with pytest.raises(PerdureError, match="holds another run"):
        run_classification(run)
    with pytest.raises(PerdureError, match="4 tasks.*choose fewer"):
        run_classification(replace(run, tasks=4, work=tmp_path / "w4"))


def test_a_checkpoint_of_another_task_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checkpoint.safetensors"
    classifier("lora").fit_task(*coloured([0, 1]), checkpoint=path)
    for name, kind, lesson in (
        ("lora", "vit", coloured([1, 2])),
        ("lora", "vit", coloured([0, 1], seed=3)),
        ("c-lora", "vit", coloured([0, 1])),
        ("lora", "clip", coloured([0, 1])),
    ):
        with pytest.raises(PerdureError, match="of another task or of other settings"):
            classifier(name, kind=kind).fit_task(*lesson, checkpoint=path)
    path.write_bytes(b"junk")
    with pytest.raises(PerdureError, match="cannot be read: remove it"):
        classifier("lora").fit_task(*coloured([0, 1]), checkpoint=path)


def test_a_task_of_one_class_is_refused_where_it_would_teach_nothing() -> None:
    model = classifier("lora")
    with pytest.raises(ValueError, match="a task of one class.*give at least two"):
        model.fit_task(*coloured([0]))
    assert model.tasks == ()
    free = classifier("ft")
    free.fit_task(*coloured([0, 1]))
    free.fit_task(*coloured([2]))
    assert free.classes_ == (0, 1, 2)


def test_a_score_is_of_as_many_labels_and_of_classes_that_were_learned() -> None:
    model = classifier("probe")
    pictures, labels = coloured([0, 1])
    model.fit_task(pictures, labels)
    assert 0 <= model.score(pictures, labels) <= 1
    for wrong, sentence in (
        (labels[:1], "as many"),
        ([7] * len(labels), "class 7 was not learned"),
        ([str(label) for label in labels], "was not learned"),
        (np.asarray(labels)[:, None], "neither a whole number nor a string"),
    ):
        with pytest.raises(ValueError, match=sentence):
            model.score(pictures, wrong)


def test_an_open_backbone_and_how_to_open_one_are_not_given_together() -> None:
    with pytest.raises(ValueError, match="give them to Backbone.open"):
        ContinualClassifier(backbone=make_backbone(), preprocessing="coda-prompt")


def test_what_was_fitted_with_another_preprocessing_loads_without_the_backbones_own(
    tmp_path: Path,
) -> None:
    make_tower().save_pretrained(tmp_path / "bare")
    model = ContinualClassifier(
        backbone=tmp_path / "bare", method="probe", preprocessing="coda-prompt"
    )
    pictures, labels = coloured([0, 1])
    model.fit_task(pictures, labels)
    model.save(tmp_path / "saved")
    said = model.decision_function(pictures)
    for backbone in (None, tmp_path / "bare"):
        again = ContinualClassifier.load(tmp_path / "saved", backbone=backbone)
        assert np.array_equal(again.decision_function(pictures), said)


def test_methods_that_plan_ahead_know_how_many_tasks_there_will_be() -> None:
    assert build_classifier("inflora", {}, 20).config.tasks == 20
    assert build_classifier("coda-prompt", {}, 20).config.components == 5
    assert build_classifier("coda-prompt", {"components": 7}, 20).config.components == 7


def test_a_head_that_grows_keeps_its_old_columns() -> None:
    old = torch.nn.Linear(5, 3)
    new = grown(old.weight, old.bias, 2, torch.Generator().manual_seed(0))
    assert new.weight.shape == (5, 5)
    assert torch.equal(new.weight[:3], old.weight) and torch.equal(new.bias[:3], old.bias)
    assert new.weight[3:].abs().max() <= 5**-0.5


def test_labels_may_be_strings_and_come_back_as_they_are() -> None:
    pictures, labels = coloured([0, 1])
    names = np.array(["red", "green"])[labels]
    model = classifier("lora").fit_task(pictures, names)
    assert model.classes_ == ("green", "red")
    assert set(model.predict(pictures).tolist()) <= {"green", "red"}


def test_what_cannot_be_learned_is_one_sentence_and_changes_nothing() -> None:
    pictures, labels = coloured([0, 1])
    model = classifier("c-lora").fit_task(pictures, labels)
    said = model.decision_function(pictures)
    cases = [
        (pictures, labels, "the class 0 was learned in task 1"),
        (pictures[:3], labels, "3 images came with 16 labels"),
        (pictures, ["a"] * 15 + ["b"], "all of one kind"),
        (pictures, [2] * 15 + ["b"], "all of one kind"),
        (pictures, [1.5] * 16, "neither a whole number nor a string"),
        (pictures[0], labels, "images must be uint8"),
        (pictures.astype(np.float32), labels, r"images\[0\] must be"),
        ([], [], "images is empty"),
    ]
    for images, given, sentence in cases:
        with pytest.raises(ValueError, match=sentence):
            model.fit_task(images, given)
    assert np.array_equal(model.decision_function(pictures), said)
    with pytest.raises(ValueError, match="call fit_task first"):
        classifier("c-lora").predict(pictures)


def test_joint_learns_once() -> None:
    model = classifier("joint").fit_task(*coloured([0, 1]))
    with pytest.raises(ValueError, match="has had its task"):
        model.fit_task(*coloured([2, 3]))


def test_an_interrupted_task_leaves_the_classifier_as_it_was() -> None:
    model = classifier("c-lora").fit_task(*coloured([0, 1]))
    pictures, _ = coloured([0, 1], 3, seed=5)
    said = model.decision_function(pictures)

    def stop(progress: loop.Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.fit_task(*coloured([2, 3]), report=stop)
    assert np.array_equal(model.decision_function(pictures), said)


def test_a_folder_that_is_broken_or_of_another_backbone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PerdureError, match="not a readable classifier"):
        ContinualClassifier.load(tmp_path)
    taught("lora").save(tmp_path)
    with pytest.raises(PerdureError, match="give that backbone"):
        ContinualClassifier.load(tmp_path, backbone=make_backbone("fused"))


def test_replay_keeps_pictures_and_says_that_it_is_not_rehearsal_free() -> None:
    model = taught("replay")
    assert model.memory.shape == (16, 16, 16, 3)
    assert model.memory_targets.bincount().tolist() == [4, 4, 4, 4]
    assert "not rehearsal-free" in CLASSIFIERS["replay"].title
    assert all(not len(taught(name).memory) for name in ("ft", "c-lora"))


def test_coda_prompt_needs_a_tower_of_transformers() -> None:
    with pytest.raises(PerdureError, match="needs a tower of transformers"):
        classifier("coda-prompt", kind="fused").fit_task(*coloured([0, 1]))


def test_a_loss_that_is_no_number_is_one_sentence() -> None:
    wild = replace(FAST, lr=1e30, head_lr=1e30)
    with pytest.raises(PerdureError, match="diverged at step"):
        classifier("ft", settings=wild).fit_task(*coloured([0, 1]))


def test_settings_are_refused_by_name() -> None:
    for option, value in (("epochs", 0), ("crop", 1.5), ("lr", -1), ("schedule", "linear")):
        with pytest.raises(ValueError, match=option):
            FitSettings(**{option: value})


def test_the_cosine_is_coda_prompts() -> None:
    settings = FitSettings(epochs=20)
    assert settings.share_of_rate(0) == 1
    assert settings.share_of_rate(19) == pytest.approx(0.0157073173)  # cos(99 pi / 200)
    assert FitSettings(epochs=1).share_of_rate(0) == 1


def test_a_sequential_method_keeps_the_tensors_of_the_last_task_alone() -> None:
    model = taught("lora")
    assert isinstance(model.kept[0], Kept)
    assert not model.kept[0].tensors and model.kept[1].tensors
