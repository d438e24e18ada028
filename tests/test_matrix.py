"""The task-by-time matrix, and every derived number against literals worked out by hand."""

import copy
import json
import math

import pytest

from perdure.measuring.matrix import (
    DEFINITIONS,
    DERIVED,
    TaskMatrix,
    accuracy_final,
    final,
    final_earlier,
    forgetting,
    forgetting_coda,
    forgetting_max,
    mean_right_after,
    right_after,
)

ROWS = [
    [0.8, None, None],
    [0.9, 0.7, None],
    [0.5, 0.6, 0.4],
]


def three() -> TaskMatrix:
    return TaskMatrix(
        tasks=[["rex"], ["ada"], ["mug"]],
        scores={"identity": ROWS, "loss": ROWS},
        higher_is_better={"loss": False},
    )


def test_values_by_concept_right_after_and_at_the_end():
    assert right_after(three(), "identity") == {"rex": 0.8, "ada": 0.7, "mug": 0.4}
    assert final(three(), "identity") == {"rex": 0.5, "ada": 0.6, "mug": 0.4}


@pytest.mark.parametrize(
    ("function", "better_high", "better_low"),
    [
        (mean_right_after, 1.9 / 3, 1.9 / 3),
        (accuracy_final, 0.5, 0.5),
        (final_earlier, 0.55, 0.55),
        # (0.8 - 0.5 + 0.7 - 0.6) / 2
        (forgetting, 0.2, -0.2),
        # high: (0.9 - 0.5 + 0.7 - 0.6) / 2; low: best are 0.8 and 0.7, (0.5 - 0.8 + 0.6 - 0.7) / 2
        (forgetting_max, 0.25, -0.2),
        # t = 1: 0.8 - 0.9 = -0.1; t = 2: (0.9 - 0.5 + 0.7 - 0.6) / 2 = 0.25; their mean
        (forgetting_coda, 0.075, -0.075),
    ],
)
def test_derived_numbers_by_hand(function, better_high, better_low):
    assert function(three(), "identity") == pytest.approx(better_high)
    assert function(three(), "loss") == pytest.approx(better_low)


def test_coda_equals_the_loops_of_its_public_formula():
    size = 5
    rows = [[math.sin(3 * i + j) if j <= i else None for j in range(size)] for i in range(size)]
    matrix = TaskMatrix(tasks=[[f"c{i}"] for i in range(size)], scores={"identity": rows})
    total = 0.0
    for t in range(1, size):
        for i in range(t):
            total += (rows[t - 1][i] - rows[t][i]) / t
    assert forgetting_coda(matrix, "identity") == pytest.approx(total / (size - 1))


def test_several_concepts_in_one_task():
    matrix = TaskMatrix(
        tasks=[["a", "b"], ["c"]], scores={"identity": [[0.8, 0.6, None], [0.4, 0.5, 0.9]]}
    )
    assert matrix.concepts == ("a", "b", "c")
    assert matrix.earlier("identity") == ("a", "b")
    # (0.4 + 0.1) / 2 in every form, as there is one step only
    for function in (forgetting, forgetting_max, forgetting_coda):
        assert function(matrix, "identity") == pytest.approx(0.25)


def test_matrix_grows_task_by_task():
    matrix = TaskMatrix(tasks=())
    for i, name in enumerate(["rex", "ada", "mug"]):
        row = dict(zip(["rex", "ada", "mug"][: i + 1], ROWS[i], strict=False))
        matrix = matrix.after_task([name], {"identity": row})
    assert [list(row) for row in matrix.scores["identity"]] == ROWS
    late = matrix.after_task(["cat"], {"kid": {"cat": 0.1}})
    assert late.at("identity", -1, "rex") is None
    assert late.at("kid", 3, "cat") == 0.1
    assert late.at("kid", 0, "rex") is None
    assert late.higher_is_better == {"identity": True, "kid": False}


def test_json_round_trip_and_nan_becomes_null(tmp_path):
    matrix = three()
    assert TaskMatrix.from_json(matrix.to_json()) == matrix
    matrix.save(tmp_path / "matrix.json")
    assert TaskMatrix.load(tmp_path / "matrix.json") == matrix
    assert TaskMatrix(tasks=[["a"]], scores={"kid": [[math.nan]]}).scores["kid"] == ((None,),)
    with pytest.raises(ValueError, match="not a perdure task matrix"):
        TaskMatrix.from_json("[]")


def test_json_leaves_out_what_ends_a_row_unmeasured_and_the_first_format_is_read(tmp_path):
    rows = [[0.5, None, None], [None, None, None], [0.4, None, 0.9]]
    matrix = TaskMatrix(tasks=[["a"], ["b"], ["c"]], scores={"identity": rows})
    data = json.loads(matrix.to_json())
    assert data["scores"]["identity"] == [[0.5], [], [0.4, None, 0.9]]
    assert TaskMatrix.from_json(json.dumps(data)) == matrix
    first = {**data, "format": 1, "scores": {"identity": rows}}
    assert TaskMatrix.from_json(json.dumps(first)) == matrix
    with pytest.raises(ValueError, match="3 values"):
        TaskMatrix.from_json(json.dumps({**first, "scores": {"identity": [[0.5] * 4, [], []]}}))


def test_a_missing_cell_is_named_not_guessed():
    matrix = TaskMatrix(tasks=[["a"], ["b"]], scores={"identity": [[None, None], [0.4, 0.5]]})
    assert accuracy_final(matrix, "identity") == pytest.approx(0.45)
    with pytest.raises(ValueError, match="identity of 'a' after task 1 was not measured"):
        forgetting(matrix, "identity")


@pytest.mark.parametrize("function", [forgetting, forgetting_max, forgetting_coda, final_earlier])
def test_one_task_has_nothing_to_forget(function):
    with pytest.raises(ValueError, match="at least two tasks"):
        function(TaskMatrix(tasks=[["a"]], scores={"identity": [[0.5]]}), "identity")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"tasks": [["a"], ["a"]]}, "each concept once"),
        ({"tasks": [[]]}, "each hold a concept"),
        ({"tasks": [["a"]], "scores": {"kid": [[1.0, 2.0]]}}, "1 rows"),
        ({"tasks": [["a"]], "scores": {"kid": [["x"]]}}, "number or null"),
        ({"tasks": [["a"], ["b"]], "scores": {"kid": [[1, 1], [1, 1]]}}, "before it was learned"),
        ({"tasks": [["a"]], "scores": {"odd": [[1.0]]}}, "higher_is_better"),
    ],
)
def test_bad_matrices_are_refused(fields, words):
    with pytest.raises(ValueError, match=words):
        TaskMatrix(**fields)


def test_an_unknown_score_is_named():
    with pytest.raises(ValueError, match="no score 'fid'; there are identity, loss"):
        forgetting(three(), "fid")


def test_every_derived_number_has_its_formula_as_text():
    assert set(DEFINITIONS) == set(DERIVED)
    assert DEFINITIONS["forgetting"].startswith("1/(N-1) sum_{j<N} (S[j, j] - S[N, j])")


def test_a_matrix_can_be_copied_and_so_crosses_to_another_process() -> None:
    matrix = TaskMatrix(tasks=()).after_task(["a"], {"identity": {"a": 0.5}})
    assert copy.deepcopy(matrix).to_json() == matrix.to_json()  # copies as pickling does
