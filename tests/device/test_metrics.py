"""The metrics against published examples, their definitions, and what their evaluators are known to do."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hired_edge.errors import InputError
from hired_runtime.evaluation import METRICS
from hired_runtime.evaluation.metrics import metric_named, pope, vqa
from hired_runtime.evaluation.metrics.anls import anls, levenshtein
from hired_runtime.evaluation.metrics.relaxed import relaxed

SHORT = st.text(alphabet="abAB 1é", max_size=6)


def mean(metric: str, pairs: Sequence[tuple[str, Sequence[str]]]) -> float:
    return sum(METRICS[metric](answer, accepted) for answer, accepted in pairs) / len(pairs)


@pytest.mark.parametrize("name", METRICS)
@given(answer=st.text(max_size=8), accepted=st.lists(st.text(max_size=8), min_size=10, max_size=10))
def test_every_metric_gives_0_to_1(name: str, answer: str, accepted: list[str]) -> None:
    accepted = ["yes"] if name == "pope" else accepted
    assert 0 <= METRICS[name](answer, accepted) <= 1


# ANLS.


@pytest.mark.parametrize(
    ("answer", "score"),
    [("The Coca", 0), ("CocaCola", 8 / 9), ("Coca cola", 1), ("Cola", 0), ("Cat", 0)],
)
def test_anls_of_the_example_of_the_robust_reading_competition(answer: str, score: float) -> None:
    """The table that the port of its script documents and tests (github.com/shunk031/ANLS): 0.00, 0.89, 1.00, 0, 0."""
    assert anls(answer, ["Coca Cola", "Coca Cola Company"]) == pytest.approx(score)


def test_anls_of_the_fixture_of_that_port() -> None:
    """Its tests/evaluation/evaluate_json_test.py: 0.378 over five questions."""
    answers = ["The Coca", "CocaCola", "Coca cola", "Coca", "Cat"]
    assert mean("anls", [(each, ["Coca Cola", "Coca Cola Company"]) for each in answers]) == pytest.approx(0.378, 1e-3)


PIX2STRUCT = [
    ("abc", ["abc"]),
    ("abc", ["Abc"]),
    ("Abc", ["abc"]),
    ("100%", ["96%"]),
    ("100%", ["94%"]),
    ("100%", ["0.96"]),
    ("100%", ["0.94"]),
    ("Don't", ["Won't"]),
]


@pytest.mark.parametrize(("metric", "percent"), [("anls", 47.5), ("relaxed", 62.5)])
def test_the_metrics_of_pix2struct_on_its_own_examples(metric: str, percent: float) -> None:
    """google-research/pix2struct, pix2struct/metrics_test.py."""
    assert 100 * mean(metric, PIX2STRUCT) == pytest.approx(percent)


@pytest.mark.parametrize(
    ("answer", "accepted", "score"),
    [
        ("abXX", "abcd", 0.5),  # half counts, as in the evaluator; the paper's threshold would not let it
        ("aXXX", "abcd", 0),
        ("a b", "A \n b", 1),
        ("a c", "a    b", 5 / 6),  # divided by the length as written, 6
        ("12/15/89", "12/15/88", 7 / 8),
        ("", " ", 1),
        ("a", "", 0),
    ],
)
def test_anls_as_the_evaluator_has_it(answer: str, accepted: str, score: float) -> None:
    assert anls(answer, [accepted]) == pytest.approx(score)


@given(SHORT, SHORT, SHORT)
def test_edits_are_a_distance(one: str, other: str, third: str) -> None:
    distance = levenshtein(one, other)
    assert (distance == 0) == (one == other)
    assert distance == levenshtein(other, one) <= max(len(one), len(other))
    assert distance >= abs(len(one) - len(other))
    assert distance <= levenshtein(one, third) + levenshtein(third, other)
    assert levenshtein(one + third, other + third) == distance


def test_edits_of_the_textbook() -> None:
    assert levenshtein("kitten", "sitting") == 3
    assert levenshtein("saturday", "sunday") == 3


@given(SHORT, st.lists(SHORT, min_size=1, max_size=3))
def test_anls_takes_the_nearest(answer: str, accepted: list[str]) -> None:
    assert anls(answer, accepted) == max(anls(answer, [each]) for each in accepted)
    assert anls(answer, [*accepted, answer.swapcase().strip()]) == 1


# VQA accuracy.


@given(st.lists(st.sampled_from(["red", "blue", "green"]), min_size=10, max_size=10), st.sampled_from(["red", "blue"]))
def test_votes_are_averaged_over_10_choose_9_sets_of_people(people: list[str], answer: str) -> None:
    """visualqa.org/evaluation.html: min(#humans that said it / 3, 1), averaged over all 10 choose 9 sets of people."""
    sets = list(itertools.combinations(people, 9))
    assert len(sets) == 10
    assert vqa.score(answer, people) == pytest.approx(sum(min(each.count(answer) / 3, 1) for each in sets) / 10)


@pytest.mark.parametrize("agree", range(11))
def test_what_a_number_of_people_is_worth(agree: int) -> None:
    worth = [0, 0.3, 0.6, 0.9, *[1] * 7]
    assert vqa.score("red", ["red"] * agree + ["blue"] * (10 - agree)) == pytest.approx(worth[agree])


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        # The page's own list, visualqa.org/evaluation.html.
        ("Dont", "don't"),
        ("100,978", "100978"),
        ("girl's", "girl's"),
        ("2:50 pm", "2:50 pm"),
        ("The two dogs.", "2 dogs"),
        ("3.5", "3.5"),
        ("an apple, a pear", "apple pear"),
        ("t-shirt", "t shirt"),
        # The evaluator's behaviour where the page does not say.
        ("3.", "3"),
        ("none", "0"),
        ("Ten", "10"),
        ("eleven", "eleven"),
        ("red/white", "red white"),
        ("red/ white", "red white"),
        ("and/or -", "and or"),
        ("1,000 km/h", "1000 kmh"),
        ("shouldntve", "shouldntve"),  # one apostrophe is mended, not two
        ("shouldn'tve", "shouldn't've"),
        ("yall'd've", "y'all'd've"),
        ("somebody'd", "somebodyd"),
        ("im", "im"),
        ("its", "its"),
        (" yes\n\tSIR ", "yes sir"),
        ("", ""),
    ],
)
def test_normalisation(text: str, normal: str) -> None:
    assert vqa.normal(text) == normal


@given(st.text(alphabet="ab tT'.,-/1 ", max_size=10))
def test_an_answer_that_ten_people_gave_is_right_however_it_is_written(text: str) -> None:
    """Against `vqaEval.py`, which would compare the letters here; TextVQA's evaluator does what this does."""
    assert vqa.score(text, [text.upper()] * 10) == 1


# Relaxed accuracy.


@pytest.mark.parametrize(
    ("answer", "accepted", "score"),
    [
        ("105", "100", 1),
        ("105.1", "100", 0),
        ("95", "100", 1),
        ("-95", "-100", 1),
        ("95", "-100", 0),
        ("1.05", "1", 0),  # in floating point just over 5 %
        ("5%", "5", 0),
        ("5%", "0.05", 1),
        ("5 %", "0.05", 1),
        ("0", "0", 1),
        ("0.0", "0", 0),
        ("0.001", "0", 0),
        ("0%", "0", 0),
        ("Yes", "yes", 1),
        ("Yes.", "yes", 0),
        ("1,200", "1200", 0),
        (" 1e3\n", "1000", 1),
        ("nan", "nan", 0),  # a number, and no number is near it
        ("%", "%", 1),
    ],
)
def test_relaxed_as_the_evaluator_has_it(answer: str, accepted: str, score: float) -> None:
    """pix2struct/metrics.py, `relaxed_correctness`."""
    assert relaxed(answer, [accepted]) == score


@given(st.floats(0.01, 1e9), st.floats(-0.2, 0.2).filter(lambda off: abs(abs(off) - 0.05) > 1e-9))
def test_a_number_may_be_5_percent_off(target: float, off: float) -> None:
    for sign in (1, -1):
        assert relaxed(repr(sign * target * (1 + off)), ["no number", repr(sign * target)]) == (abs(off) < 0.05)


# POPE.


@pytest.mark.parametrize(
    ("answer", "yes"),
    [
        ("Yes, there is a dog.", True),
        ("No, there is no dog.", False),
        ("no", False),
        (" No.\n", False),
        ("There is not, it seems.", False),
        ("Yes. But not a dog.", True),  # the first sentence alone
        # What has none of the three words is yes, whatever it says.
        ("NO", True),
        ("no!", True),
        ("There isn't a dog", True),
        ("None", True),
        ("", True),
    ],
)
def test_yes_and_no_as_the_evaluator_takes_them(answer: str, yes: bool) -> None:
    """github.com/AoiDragon/POPE, evaluate.py."""
    assert pope.says_yes(answer) == yes
    assert [pope.score(answer, [label]) for label in ("yes", "no")] == [yes, not yes]


@pytest.mark.parametrize(
    ("accuracy", "precision", "recall", "f1", "yes"),
    [
        (
            53.30,
            51.71,
            99.53,
            68.06,
            96.23,
        ),  # random: mPLUG-Owl, LLaVA, MultiModal-GPT, MiniGPT-4, InstructBLIP
        (54.43, 52.32, 99.80, 68.65, 95.37),
        (50.03, 50.02, 100.00, 66.68, 99.97),
        (77.83, 75.38, 82.67, 78.86, 54.83),
        (88.73, 85.08, 93.93, 89.29, 55.20),
        (52.43, 51.25, 99.80, 67.72, 97.37),  # popular: LLaVA, MiniGPT-4
        (68.30, 64.27, 82.40, 72.21, 64.10),
    ],
)
def test_the_table_of_the_pope_paper(accuracy: float, precision: float, recall: float, f1: float, yes: float) -> None:
    """arXiv:2305.10355, results on MSCOCO: 3000 questions, half of them yes. Recall and ratio of yes give the rest.

    To 0.01: the paper works out some F1 from rounded precision and recall.
    """
    true_yes = round(recall / 100 * 1500)
    false_yes = round(yes / 100 * 3000) - true_yes
    asked = [("Yes", "yes")] * true_yes + [("No", "yes")] * (1500 - true_yes)
    asked += [("Yes", "no")] * false_yes + [("No", "no")] * (1500 - false_yes)
    counts = np.array([pope.counts(answer, [label]) for answer, label in asked])
    found = {name: 100 * float(value) for name, value in pope.figures(counts.sum(axis=0)).items()}
    published = {"precision": precision, "recall": recall, "f1": f1, "yes_ratio": yes}
    assert found == pytest.approx(published, abs=0.01)
    assert 100 * mean("pope", [(answer, [label]) for answer, label in asked]) == pytest.approx(accuracy, abs=0.01)


@given(st.lists(st.integers(0, 9), min_size=4, max_size=4).filter(any))
def test_figures_of_any_counts(counts: list[int]) -> None:
    true_yes, false_yes, _, false_no = counts
    sums = np.array([counts, counts], np.float64)
    found = {name: value[1] for name, value in pope.figures(sums).items()}
    assert found["yes_ratio"] == (true_yes + false_yes) / sum(counts)
    assert np.isnan(found["precision"]) == (true_yes + false_yes == 0)
    assert np.isnan(found["recall"]) == (true_yes + false_no == 0)
    assert np.isnan(found["f1"]) == (true_yes + false_yes + false_no == 0)
    if true_yes:
        precision, recall = found["precision"], found["recall"]
        assert found["f1"] == pytest.approx(2 * precision * recall / (precision + recall))
    scaled = pope.figures(sums / sum(counts))
    for name, value in found.items():
        assert scaled[name][0] == pytest.approx(value, nan_ok=True)


def test_a_metric_that_is_not_there() -> None:
    with pytest.raises(InputError, match="metric 'bleu'; expected exact, anls, vqa, relaxed, pope;"):
        metric_named("bleu")
