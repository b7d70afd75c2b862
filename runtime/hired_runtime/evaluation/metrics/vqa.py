"""VQA accuracy, which VQA, VQAv2, TextVQA and VizWiz report: an answer is worth as much as people agree with it.

Antol et al., VQA, 2015, arXiv:1505.00468, section 3, and visualqa.org/evaluation.html; the evaluator is `vqaEval.py`
(github.com/GT-Vision-Lab/VQA, of 2021). It knows no synonyms: "couch" is wrong where ten people said "sofa".
"""

from __future__ import annotations

import re
from collections.abc import Sequence

HUMANS = 10

_MARKS = ';/[]"{}()=+\\_-><@`,?!'
_NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
_WORDS = {"none": "0", **{word: str(number) for number, word in enumerate(_NUMBERS)}}
_ARTICLES = frozenset({"a", "an", "the"})
_CONTRACTED = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
    he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've
    o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
    someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've
    there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's
    what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
    wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""
"""Those that the evaluator mends where one apostrophe is missing. Not "I'm": it looks for the capital in lower case."""


def _mended() -> dict[str, str]:
    mended = {"somebody'd": "somebodyd"}  # the evaluator has it the wrong way round
    for word in _CONTRACTED.split():
        mended |= {word[:i] + word[i + 1 :]: word for i, letter in enumerate(word) if letter == "'"}
    return mended


_MENDED = _mended()


def refusal(accepted: Sequence[str]) -> str | None:
    """Why the votes cannot be counted: the score is defined over ten people."""
    found = len(accepted)
    return None if found == HUMANS else f"{found} accepted answer{'s' * (found != 1)}, not those of {HUMANS} people"


def score(answer: str, accepted: Sequence[str]) -> float:
    """min(people who gave this answer / 3, 1), averaged over the sets of all but one of the people.

    With ten people 0, 1, 2, 3 and 4 or more of them are worth 0, 0.3, 0.6, 0.9 and 1. The paper's formula has no
    average and gives 1 to three; the evaluator averages, and is followed.

    In one thing it is not followed: where all ten people agree to the letter, `vqaEval.py` normalises neither side, so
    "Yes" would be wrong where all said "yes". Figures in print are of answers normalised before they were submitted
    (LLaVA's convert_vqav2_for_submission.py), TextVQA's evaluator always normalises both sides, and so does this.

    Args:
        answer: the model's.
        accepted: one for each person, the same text as often as people gave it.
    """
    said, people = normal(answer), len(accepted)
    agree = sum(normal(each) == said for each in accepted)
    without_one_of_them, without_another = min(max(agree - 1, 0) / 3, 1.0), min(agree / 3, 1.0)
    return (agree * without_one_of_them + (people - agree) * without_another) / people


def normal(text: str) -> str:
    """As the evaluator compares answers: small letters, digits for number words, no articles, contractions mended.

    Punctuation other than apostrophe and colon becomes a space; it goes without one if it stands beside a space
    anywhere in the text, or if the text has a comma between digits. The page says that of the comma alone: in the
    evaluator "1,000 km/h" becomes "1000 kmh". Full stops go unless a digit follows (all of them; the evaluator, by a
    slip, leaves those after the 32nd). TextVQA's evaluator differs in cutting 's off a word and in losing commas and
    question marks before all else; that is not followed.
    """
    text = text.replace("\n", " ").replace("\t", " ").strip()
    grouped = re.search(r"\d,\d", text) is not None
    bare = text
    for mark in _MARKS:
        beside_space = f"{mark} " in text or f" {mark}" in text
        bare = bare.replace(mark, "" if grouped or beside_space else " ")
    words = [_WORDS.get(word, word) for word in re.sub(r"\.(?!\d)", "", bare).lower().split()]
    return " ".join(_MENDED.get(word, word) for word in words if word not in _ARTICLES)
