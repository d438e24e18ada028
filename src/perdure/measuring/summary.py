"""From evaluations to the page: one method on a bank, or several methods on one stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from perdure.bank import Bank
from perdure.measuring.evaluate import Evaluation
from perdure.measuring.matrix import TaskMatrix
from perdure.measuring.prompts import PLAIN
from perdure.measuring.report import Concept, MethodResult, Report, Shot, Strip
from perdure.methods import METHODS

__all__ = ["bank_report", "method_result", "stream_report"]


def method_result(
    bank: Bank, evaluation: Evaluation, *, repeats: Sequence[TaskMatrix] = ()
) -> MethodResult:
    """A bank and its evaluation as one method of a report."""
    size = sum(bank.concept_file(name).stat().st_size for name in bank.concepts)
    parameters = bank.tasks[-1].facts.get("parameters", 0)
    title, _, says = METHODS[bank.method].title.partition(": ")
    return MethodResult(
        name=bank.method,
        title=title,
        summary=f"{says[:1].upper()}{says[1:]}.",
        matrix=evaluation.matrix,
        strips=[
            Strip(
                concept=name,
                drawn=evaluation.drawn[name],
                contexts=[
                    Shot(caption=prompt, picture=picture)
                    for prompt, picture in evaluation.contexts[name]
                ],
            )
            for name in bank.concepts
        ],
        repeats=repeats,
        seconds=[float(task.facts.get("seconds", 0.0)) for task in bank.tasks],
        kept_bytes=[
            sum(bank.concept_file(name).stat().st_size for name in task.concepts)
            for task in bank.tasks
        ],
        facts={
            "options": ", ".join(f"{key} {value}" for key, value in bank.config.items()) or "none",
            "trained parameters": f"{parameters:,}",
            "concept files together": f"{size / 1e6:.2f} MB",
        },
    )


def _concepts(evaluation: Evaluation, names: Sequence[str]) -> list[Concept]:
    return [
        Concept(
            name=name,
            title=name.capitalize(),
            references=list(evaluation.references.get(name, ())),
            ceiling=evaluation.bounds[name].ceiling if name in evaluation.bounds else None,
            floor=evaluation.bounds[name].floor if name in evaluation.bounds else None,
        )
        for name in names
    ]


def _notes(evaluation: Evaluation) -> list[str]:
    drawn = next(iter(next(iter(evaluation.drawn.values())).values()))
    plain = PLAIN.format("<name>")
    return [
        f"Likeness is measured on {len(drawn)} drawings of “{plain}” with fixed seeds, for each "
        f"concept after each task, by the metric encoder {evaluation.encoder['name']} "
        f"({evaluation.encoder['identity']}).",
        "Ceiling: a concept's photos, through the autoencoder, against its other photos. "
        "Floor: the photos of the other concepts.",
        "No photo of an earlier concept is at hand while a later one is learned.",
    ]


def bank_report(bank: Bank, evaluation: Evaluation) -> Report:
    """The page of `perdure evaluate`."""
    score = "identity" if "identity" in evaluation.matrix.scores else "likeness_kept"
    return Report(
        title=f"What the bank “{bank.path.resolve().name}” remembers",
        subtitle=f"{len(bank.concepts)} concepts, taught one after another on {bank.base.name}.",
        methods=[method_result(bank, evaluation)],
        concepts=_concepts(evaluation, bank.concepts),
        score=score,
        notes=_notes(evaluation),
        environment=evaluation.environment,
    )


def stream_report(
    results: Mapping[str, tuple[Bank, Evaluation]],
    *,
    title: str,
    subtitle: str,
    noun: str,
    nouns: str,
    notes: Sequence[str] = (),
    together: Sequence[Shot] = (),
) -> Report:
    """Several methods on the same concepts; ``together`` are the last one's pictures of several."""
    bank, evaluation = next(iter(results.values()))
    return Report(
        title=title,
        subtitle=subtitle,
        noun=noun,
        nouns=nouns,
        methods=[method_result(*result) for result in results.values()],
        concepts=_concepts(evaluation, bank.concepts),
        notes=[*_notes(evaluation), *notes],
        together=together,
        environment=evaluation.environment,
    )
