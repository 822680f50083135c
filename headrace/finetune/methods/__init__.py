"""Ways to fine-tune a base model. One file each, with defaults and `prepare`.

To add one: copy head.py; say its default learning rate and what trains; add its line to METHODS. The conformance tests
find it through the table.
"""

from headrace.registry import Registry

METHODS = Registry(
    "methods",
    {
        "full": "headrace.finetune.methods.full:Full",
        "head": "headrace.finetune.methods.head:Head",
        "lora": "headrace.finetune.methods.lora:Lora",
    },
)
