"""The tokenizer (byte-level BPE, trained on the questions) and the chat template (Vicuna's).

The tokenizer was trained once and is kept in tokenizer.json, so that a change of the questions moves no token's id:
`python -m demo.training.words` trains it anew, and with it the model has to be.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from demo.scenes.compose import COLOURS, compose
from demo.scenes.questions import questions

SPECIAL = ("<unk>", "<s>", "</s>", "<pad>", "<image>")
VOCABULARY = 448
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}USER: "
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}"
    " ASSISTANT:{% else %} {{ message['content'] if message['content'] is string else message['content'][0]['text'] }}"
    "{{ eos_token }}{% endif %}{% endfor %}"
)


FILE = Path(__file__).parent / "tokenizer.json"


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A real tokenizer: any text can be encoded, the questions' words are a token each, and so is every digit."""
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_file(str(FILE)),
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        extra_special_tokens={"image_token": "<image>"},
        chat_template=TEMPLATE,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
    )


def train_tokenizer() -> Tokenizer:
    """From the questions about some training scenes."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    return tokenizer


def _corpus() -> Iterator[str]:
    yield from (f" {colour}" for colour in COLOURS for _ in range(50))
    for number in range(300):
        for question in questions(compose(1, number)):
            yield f"USER: \n{question.prompt} ASSISTANT: {question.answer}"


if __name__ == "__main__":
    train_tokenizer().save(str(FILE))
