"""Chat templates in the manner of those on the Hub, for the tiny tokenizers."""

from __future__ import annotations

# The templates of the llava-hf repositories, in their manner: pictures of a message first, then its texts.
VICUNA = """\
{% for message in messages %}{% if message['role'] == 'system' %}{{ message['content'][0]['text'] + ' ' }}\
{% else %}{{ message['role'].upper() + ': ' }}\
{% for part in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\\n' }}{% endfor %}\
{% if message['role'] != 'assistant' %}\
{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}{{ part['text'] + ' ' }}{% endfor %}\
{% else %}\
{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}\
{% generation %}{{ part['text'] + ' ' }}{% endgeneration %}{% endfor %}\
{% endif %}{% endif %}{% endfor %}\
{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"""

MISTRAL = """\
{% for message in messages %}{% if message['role'] == 'system' %}\
{{ '<<SYS>>\\n' + message['content'][0]['text'] + '\\n<</SYS>>\\n\\n' }}\
{% elif message['role'] == 'user' %}{{ '[INST] ' }}\
{% for part in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\\n' }}{% endfor %}\
{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}{{ part['text'] }}{% endfor %}\
{{ ' [/INST]' }}\
{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'][0]['text'] + eos_token }}\
{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"""

CHATML = """\
{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}\
{% for part in message['content'] %}\
{% if part['type'] == 'image' %}{{ '<image>\\n' }}{% else %}{{ part['text'] }}{% endif %}{% endfor %}\
{{ '<|im_end|>\\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""

PHI3 = """\
{% for message in messages %}{{ '<|' + message['role'] + '|>\\n' }}\
{% for part in message['content'] %}\
{% if part['type'] == 'image' %}{{ '<image>\\n' }}{% else %}{{ part['text'] }}{% endif %}{% endfor %}\
{{ '<|end|>\\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"""

TEMPLATES = {"vicuna": VICUNA, "mistral": MISTRAL, "chatml": CHATML, "phi3": PHI3}
