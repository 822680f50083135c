"""How an exported folder is used: the lines of Python in its model card. Pure.

They define `answer`, which gives what headrace answers, without headrace where other libraries load the folder. The
`embedding` form is the mean of all tokens at unit length under one linear layer; no class of transformers computes
that, so sentence-transformers loads it, as it loads the bodies of SetFit (Tunstall et al. 2022, arXiv 2209.11055).
"""

from collections.abc import Collection
from typing import Literal

from headrace.checkpoints.windows import WORD
from headrace.config import TaskTable
from headrace.tasks import TASK_TYPES, TaskType
from headrace.tasks.extractive_qa import MAX_PIECES
from headrace.tasks.inputs import TURNS
from headrace.tasks.retrieval import SCALE

Library = Literal["transformers", "peft", "sentence-transformers", "headrace"]


def library_of(backend: str, names: Collection[str]) -> Library:
    """What loads an artifact of a backend with files of these names."""
    if backend != "hf":
        return "headrace"
    if "modules.json" in names:
        return "sentence-transformers"
    return "peft" if "adapter_config.json" in names else "transformers"


def lines_for(library: Library, task: TaskTable) -> str:
    """Python that loads the folder it runs in and answers one input."""
    task_type: type[TaskType] = TASK_TYPES.get(task.type)
    fields = ['"user: a text"'] if task.input == TURNS else [f'"a {field}"' for field in task_type.fields]
    if library == "headrace":
        return _HEADRACE.replace("GIVEN", fields[0] if len(fields) == 1 else f"({', '.join(fields)})")
    needed, load, logits = _LOADS[library]
    parts = [
        f"import json\nfrom pathlib import Path\n\nimport torch\n{needed}\n\n{_FACTS}\n{load}",
        *([logits] if task_type.problem != "question_answering" else []),
        _ANSWERS[task_type.problem],
        f"print(answer({', '.join(fields)}))",
    ]
    return "\n\n\n".join(parts).replace("AUTO_CLASS", task_type.auto_class)


_FACTS = """\
folder = Path(".")  # where this card lies
facts = json.loads((folder / "headrace.json").read_text("utf-8"))"""
_LOGITS = """\
def logits(*texts):
    with torch.inference_mode():
        return model(**tokenizer(*texts, truncation=True, return_tensors="pt")).logits[0]"""
_LOADS: dict[Library, tuple[str, str, str]] = {
    "transformers": (
        "from transformers import AUTO_CLASS, AutoTokenizer",
        """\
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AUTO_CLASS.from_pretrained(folder, dtype=torch.float32).eval()""",
        _LOGITS,
    ),
    "peft": (
        "from peft import PeftModel\nfrom transformers import AUTO_CLASS, AutoTokenizer",
        """\
tokenizer = AutoTokenizer.from_pretrained(folder)
base = AUTO_CLASS.from_pretrained(folder / "base", dtype=torch.float32)
model = PeftModel.from_pretrained(base, str(folder)).eval()""",
        _LOGITS,
    ),
    "sentence-transformers": (
        "from sentence_transformers import SentenceTransformer",
        'model = SentenceTransformer(str(folder), model_kwargs={"dtype": torch.float32})',
        """\
def logits(*texts):
    given = texts[0] if len(texts) == 1 else texts
    return model.encode([given], convert_to_tensor=True)[0]""",
    ),
}
"""What is imported, how the folder is loaded, and `logits`."""
_ANSWERS = {
    "single_label_classification": """\
def answer(*texts):
    temperature = facts["calibration"].get("temperature", 1.0)
    chances = torch.softmax(logits(*texts).double() / temperature, dim=0)
    return dict(zip(facts["task"]["labels"], chances.tolist()))""",
    "multi_label_classification": """\
def answer(*texts):
    chances = torch.sigmoid(logits(*texts).double()).tolist()
    labels = facts["task"]["labels"]
    least = facts["calibration"].get("thresholds", [0.5] * len(labels))
    return {label: chances[k] for k, label in enumerate(labels) if chances[k] >= least[k]}""",
    "regression": """\
def answer(*texts):
    return logits(*texts).item()""",
    "retrieval": f"""\
def answer(*texts):
    cosines = logits(*texts).double() / {SCALE:g}
    best = cosines.argsort(descending=True, stable=True)[:5].tolist()
    return {{facts["task"]["labels"][k]: cosines[k].item() for k in best}}""",
    "token_classification": f"""\
from tokenizers import Regex, pre_tokenizers

WORDS = pre_tokenizers.Split(Regex(r"{WORD}"), "isolated")


def answer(text):
    \"\"\"The tag of each word, from its first token. With a CRF, the tags of the best path may be others.\"\"\"
    pieces = tokenizer(text, truncation=True, return_offsets_mapping=True)["offset_mapping"]
    tags = logits(text).argmax(dim=1).tolist()
    found = []
    for word, (start, end) in WORDS.pre_tokenize_str(text):
        seen = [i for i, (first, after) in enumerate(pieces) if first < end and start < after]
        if seen and not word.isspace():
            found.append((word, model.config.id2label[tags[seen[0]]]))
    return found""",
    "question_answering": f"""\
def answer(question, context):
    \"\"\"Of a context that fits in one look.\"\"\"
    pieces = tokenizer(question, context, truncation="only_second", return_offsets_mapping=True, return_tensors="pt")
    spans = pieces.pop("offset_mapping")[0].tolist()
    with torch.inference_mode():
        found = model(**pieces)
    scores = found.start_logits[0][:, None] + found.end_logits[0]
    inside = torch.tensor([part == 1 for part in pieces.sequence_ids(0)])
    can_be = (inside[:, None] & inside).triu().tril({MAX_PIECES - 1})
    best = torch.where(can_be, scores, -torch.inf).max()
    if scores[0, 0] - best > facts["calibration"].get("null_threshold", 0.0):
        return ""
    first, last = divmod(int(torch.where(can_be, scores, -torch.inf).argmax()), len(spans))
    return context[spans[first][0] : spans[last][1]].strip()""",
}
_HEADRACE = """\
from pathlib import Path

from headrace.export import load
from headrace.tasks import TASK_TYPES

predictor, facts = load(Path("."))  # where this card lies
task_type = TASK_TYPES.get(facts.task.type)(facts.task)
print(task_type.decode(predictor.logits([GIVEN]), facts.calibration))"""
