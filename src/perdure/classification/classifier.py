"""A classifier that learns task after task, with scikit-learn's habits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import skip_init

from perdure.classification import saving
from perdure.classification.labelled import Pictures, as_pictures
from perdure.classification.loop import START, Old, Progress, Task, train
from perdure.classification.moments import input_moments
from perdure.classification.recipes import recipe_of
from perdure.classification.registry import build_classifier, check_rate
from perdure.classification.settings import FitSettings
from perdure.errors import PerdureError
from perdure.hosts.vision.backbone import SMALLWORLD, Backbone
from perdure.hosts.vision.preprocessing import Preprocessing
from perdure.methods.protocol import Kept, Learner, Moments
from perdure.randomness import generator_of

__all__ = ["ContinualClassifier", "Label"]

Label = int | str
_OPEN_ALREADY = (
    "preprocessing and device have no effect on a backbone that is open already: give them to "
    "Backbone.open"
)
BATCH = 64
"""Pictures of one pass where no gradient is needed."""


class ContinualClassifier:
    """One model that tells all classes apart that it was taught, task after task.

    Args:
        backbone: `smallworld`, a folder or hub id of a ViT or CLIP, or an open `Backbone`, which
            serves one classifier at a time: its weights are what this one has learned.
        method: a name of `CLASSIFIERS`, such as `c-lora`.
        options: the method's own, such as `{"rank": 64}`.
        expected: how many tasks there will be, where that is known: `inflora` and `coda-prompt`
            plan for it.
        settings: epochs, rates, seed and the rest.
        preprocessing: `backbone`, its own configuration (the default), or `coda-prompt`.
        device: where it computes; the CPU by default.

    ValueError for an option that does not exist, does not fit or has no effect.

    Everything learned is in `tasks` (the classes of each), `kept` (the method's), and the head's
    `weight` (classes, width) and `bias`.
    """

    def __init__(
        self,
        *,
        backbone: str | Path | Backbone = SMALLWORLD,
        method: str = "c-lora",
        options: Mapping[str, Any] | None = None,
        expected: int | None = None,
        settings: FitSettings | None = None,
        preprocessing: str | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        self.method = build_classifier(method, options or {}, expected)
        self.recipe = recipe_of(self.method)
        self.settings = settings or FitSettings()
        check_rate(self.method, self.settings.lr)
        if not isinstance(backbone, Backbone):
            backbone = Backbone.open(
                backbone, preprocessing=preprocessing or "backbone", device=device or "cpu"
            )
        elif preprocessing is not None or device is not None:
            raise ValueError(_OPEN_ALREADY)
        self.backbone = backbone
        backbone.aim(self.method.targets)
        self.tasks: tuple[tuple[Label, ...], ...] = ()
        self.kept: tuple[Kept, ...] = ()
        self.facts: tuple[dict[str, float], ...] = ()
        self.weight, self.bias = torch.zeros(0, backbone.width), torch.zeros(0)
        self.moments: Moments = {}
        self.memory = np.zeros(
            (0, backbone.preprocessing.size, backbone.preprocessing.size, 3), np.uint8
        )
        self.memory_targets = torch.zeros(0, dtype=torch.int64)

    @property
    def classes_(self) -> tuple[Label, ...]:
        """Labels of all classes seen, in the order of the head's columns."""
        return tuple(label for task in self.tasks for label in task)

    def fit_task(
        self,
        images: Any,
        labels: Sequence[Label] | np.ndarray,
        *,
        checkpoint: Path | None = None,
        report: Callable[[Progress], None] = lambda progress: None,
    ) -> ContinualClassifier:
        """Learn one more task: pictures of classes that no earlier task had; returns itself.

        Args:
            images: uint8 (N, height, width, 3), or a sequence of such arrays or of PIL pictures.
            labels: N whole numbers or strings.
            checkpoint: a file to keep the state of training in; one that is there is gone on from,
                and the result is the same to the bit. The caller removes it.
            report: called after every step.

        Raises ValueError for what cannot be learned; then nothing has changed.
        """
        pictures = as_pictures(images)
        given = [_label(label) for label in labels]
        new = self._new_classes(pictures, given)
        columns = {label: len(self.classes_) + place for place, label in enumerate(new)}
        number, seed = len(self.tasks), self.settings.seed
        generator = generator_of(seed, number, START)
        before = self.method.mix(self.kept, ())
        head = grown(self.weight, self.bias, len(new), generator)
        task = Task(
            number=number,
            classes=tuple(map(str, new)),
            pictures=pictures,
            targets=torch.tensor([columns[label] for label in given]),
            sizes=(*(len(classes) for classes in self.tasks), len(new)),
            old=Old(
                tower=self.backbone.twin(before)
                if self.recipe.needs_old_model and number
                else None,
                weight=self.weight.to(self.backbone.device),
                bias=self.bias.to(self.backbone.device),
                pictures=list(self.memory),
                targets=self.memory_targets,
            ),
        )
        try:
            self.backbone.fold(self.method.past(self.kept))
            learner = self.recipe.start(
                self.backbone.shapes,
                self.kept,
                generator,
                self.moments,
                lambda: input_moments(self.backbone, self._plain(pictures)),
            )
            facts = train(
                self.backbone,
                self.recipe,
                learner,
                head,
                task,
                self.settings,
                checkpoint=checkpoint,
                report=report,
            )
            moments = self._finished(pictures, learner)
            kept = Kept(tuple(str(label) for label in new), self.method.keep(learner))
        except BaseException:
            self._fold()
            raise
        trained = [*learner.parameters(), *head.parameters()]
        facts["trained"] = sum(p.numel() for p in trained if p.requires_grad)
        past = self.kept
        if self.recipe.last_holds_all:
            past = tuple(Kept(task.concepts, {}) for task in past)
        self._remember(pictures, task.targets, generator)
        self.tasks, self.kept = (*self.tasks, new), (*past, kept)
        self.facts, self.moments = (*self.facts, facts), moments
        self.weight, self.bias = head.weight.detach().cpu(), head.bias.detach().cpu()
        self._fold()
        return self

    def decision_function(self, images: Any) -> np.ndarray:
        """Logits (N, classes), fp32, columns as in `classes_`."""
        if not self.tasks:
            raise ValueError("nothing was learned yet: call fit_task first")
        features = torch.cat([self._features(pixels) for pixels in self._plain(images)])
        return F.linear(features.cpu(), self.weight, self.bias).numpy()

    def predict(self, images: Any) -> np.ndarray:
        """The label of each picture (N,), all classes seen competing; no task is told."""
        classes = np.asarray(self.classes_)
        return classes[self.decision_function(images).argmax(axis=1)]

    def score(self, images: Any, labels: Sequence[Label] | np.ndarray) -> float:
        """The share of pictures whose label is predicted.

        ValueError where a label is of no class that was learned, or there are not as many labels as
        pictures.
        """
        given = [_label(label) for label in labels]
        if unknown := sorted(set(given) - set(self.classes_), key=str):
            raise ValueError(f"the class {unknown[0]!r} was not learned: score what was")
        said = self.predict(images)
        if len(said) != len(given):
            raise ValueError(f"{len(said)} images came with {len(given)} labels: give as many")
        return float(np.mean(said == np.asarray(given)))

    def stored(self) -> int:
        """How many numbers are kept beside the backbone: method, head, moments, pictures."""
        held = [tensor for task in self.kept for tensor in task.tensors.values()]
        held += [self.weight, self.bias]
        held += list({id(C): C for C in self.moments.values()}.values())
        return sum(tensor.numel() for tensor in held) + self.memory.size

    def save(self, folder: str | Path) -> None:
        """Write what was learned: safetensors and one JSON file that is replaced last, whole."""
        saving.write(
            Path(folder),
            saving.State(
                backbone=self.backbone.name,
                hash=self.backbone.hash,
                preprocessing=self.backbone.preprocessing.to_json(),
                method=self.method.describe(),
                settings=self.settings.to_json(),
                tasks=self.tasks,
                facts=self.facts,
                kept=self.kept,
                tensors={
                    "head/weight": self.weight,
                    "head/bias": self.bias,
                    "memory/pictures": torch.from_numpy(self.memory),
                    "memory/targets": self.memory_targets,
                },
                moments=self.moments,
            ),
        )

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        backbone: str | Path | Backbone | None = None,
        device: str | torch.device | None = None,
    ) -> ContinualClassifier:
        """What `save` wrote, on the backbone that it names, or on the one that is given.

        PerdureError where the folder is not readable or the backbone's weights are others,
        ValueError for a device beside a backbone that is open already.
        """
        if isinstance(backbone, Backbone) and device is not None:
            raise ValueError(_OPEN_ALREADY)
        state = saving.read(Path(folder))
        scheme = Preprocessing.from_json(state.preprocessing)
        if isinstance(backbone, Backbone):
            opened = backbone
        else:
            opened = Backbone.open(
                backbone or state.backbone, preprocessing=scheme, device=device or "cpu"
            )
        if opened.hash != state.hash:
            raise PerdureError(
                f"{folder} was learned on the backbone {state.backbone} with weights "
                f"{state.hash[:16]}, and {opened.name} has {opened.hash[:16]}: give that backbone."
            )
        opened.preprocessing = scheme
        made = cls(
            backbone=opened,
            method=state.method["method"],
            options=state.method["config"],
            settings=FitSettings.of(state.settings),
        )
        made.tasks, made.facts, made.kept = state.tasks, state.facts, state.kept
        made.weight, made.bias = state.tensors["head/weight"], state.tensors["head/bias"]
        made.moments = dict(state.moments)
        made.memory = state.tensors["memory/pictures"].numpy()
        made.memory_targets = state.tensors["memory/targets"]
        made._fold()
        return made

    def _new_classes(self, pictures: Pictures, labels: Sequence[Label]) -> tuple[Label, ...]:
        if len(pictures) != len(labels):
            raise ValueError(f"{len(pictures)} images came with {len(labels)} labels: give as many")
        if len({type(label) for label in (*labels, *self.classes_)}) > 1:
            raise ValueError("labels must be whole numbers or strings, all of one kind")
        for number, classes in enumerate(self.tasks, start=1):
            if twice := sorted(set(classes) & set(labels)):
                raise ValueError(
                    f"the class {twice[0]!r} was learned in task {number}: a class belongs to one "
                    "task, so leave its pictures out"
                )
        if len(set(labels)) == 1 and (self.recipe.masks_old_classes or not self.tasks):
            raise ValueError(
                f"a task of one class ({labels[0]!r}) teaches nothing: the loss of "
                f"{self.method.name} tells a task's classes apart, so give at least two at once"
            )
        return tuple(sorted(set(labels)))

    def _finished(self, pictures: Pictures, learner: Learner) -> Moments:
        """The moments after the task, for which its trained layers may be looked at."""

        def measure() -> Moments:
            with self.backbone.attached(learner.layer_deltas()):
                return input_moments(self.backbone, self._plain(pictures))

        return self.recipe.finish(learner, self.moments, len(self.tasks), measure)

    def _remember(self, pictures: Pictures, targets: Tensor, generator: torch.Generator) -> None:
        """Keep a few pictures of each new class, at the backbone's size, where the method does."""
        if not self.recipe.pictures:
            return
        size = self.memory.shape[1:3]
        for target in targets.unique():
            own = (targets == target).nonzero()[:, 0]
            chosen = own[torch.randperm(len(own), generator=generator)]
            for index in chosen[: self.recipe.pictures].tolist():
                picture = Image.fromarray(pictures[index]).resize(size, Image.Resampling.BICUBIC)
                self.memory = np.concatenate([self.memory, np.asarray(picture)[None]])
                self.memory_targets = torch.cat([self.memory_targets, target[None]])

    def _fold(self) -> None:
        self.backbone.fold(self.method.mix(self.kept, ()))

    def _plain(self, images: Any) -> Iterator[Tensor]:
        pictures = as_pictures(images)
        for start in range(0, len(pictures), BATCH):
            some = [pictures[i] for i in range(start, min(start + BATCH, len(pictures)))]
            yield self.backbone.preprocessing.plain(some)

    @torch.no_grad()
    def _features(self, pixels: Tensor) -> Tensor:
        return self.recipe.features(self.backbone, pixels, self.kept, None)


def grown(weight: Tensor, bias: Tensor, count: int, generator: torch.Generator) -> nn.Linear:
    """A head of these classes and ``count`` more, whose rows are uniform in +-1/sqrt(width)."""
    old, width = weight.shape
    new: nn.Linear = skip_init(nn.Linear, width, old + count)
    bound = width**-0.5
    with torch.no_grad():
        new.weight.uniform_(-bound, bound, generator=generator)
        new.bias.uniform_(-bound, bound, generator=generator)
        new.weight[:old], new.bias[:old] = weight, bias
    return new


def _label(label: object) -> Label:
    if isinstance(label, np.generic):
        label = label.item()
    if isinstance(label, bool) or not isinstance(label, int | str):
        raise ValueError(f"the label {label!r} is neither a whole number nor a string")
    return label
