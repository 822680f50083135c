"""SQuAD files: questions about the paragraphs of articles, with answers or, since version 2.0, without."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from headrace.data.sources import Options
from headrace.data.sources.json_document import beginning, document
from headrace.errors import BadInput
from headrace.records import RawRow

_LOOKS = re.compile(rb'"data"\s*:\s*\[')


class Squad:
    """One row for each question: text is the question, text_pair its context. Questions about one paragraph are a
    group; `line` counts questions."""

    @staticmethod
    def looks_like(location: str) -> bool:
        head = beginning(location)
        return head.startswith(b"{") and b'"paragraphs"' in head and _LOOKS.search(head) is not None

    @staticmethod
    def read(location: str, options: Options) -> Iterator[RawRow]:
        whole = document(location)
        articles = whole.get("data") if isinstance(whole, dict) else None
        if not isinstance(articles, list):
            raise BadInput("not a SQuAD file", value=location, next_step='It is an object with a list "data"')
        for line, (paragraph, question) in enumerate(_questions(articles), start=1):
            yield _row(line, paragraph, question, options)


def _questions(articles: list[Any]) -> Iterator[tuple[Any, Any]]:
    """(paragraph, question); what has another shape comes once, as a question of None."""
    for article in articles:
        paragraphs = article.get("paragraphs") if isinstance(article, dict) else None
        for paragraph in paragraphs if isinstance(paragraphs, list) else [None]:
            questions = paragraph.get("qas") if isinstance(paragraph, dict) else None
            yield from ((paragraph, one) for one in (questions if isinstance(questions, list) else [None]))


def _row(line: int, paragraph: Any, question: Any, options: Options) -> RawRow:
    if not isinstance(question, dict) or not isinstance(paragraph.get("context"), str):
        detail = "no article with paragraphs, a context and questions"
        return RawRow(line, repr(question)[:1000], error="unreadable", detail=detail)
    key, context = question.get("id"), paragraph["context"]
    try:
        label = _label(question) if options.label else None
    except ValueError as error:
        return RawRow(line, question.get("question"), error="unreadable", detail=str(error))
    return RawRow(
        line,
        question.get("question"),
        label,
        None if key is None else str(key),
        context,
        text_pair=context,
    )


def _label(question: Mapping[str, Any]) -> dict[str, Any] | None:
    """The answers, none where there are said to be none; None for a question that nobody answered yet."""
    if question.get("is_impossible"):
        return {"answers": []}
    answers = question.get("answers")
    if answers is None:
        return None
    if not isinstance(answers, list) or not all(isinstance(answer, dict) for answer in answers):
        raise ValueError('"answers" must be a list of objects with text and answer_start')
    return {"answers": [{"text": one.get("text"), "start": one.get("answer_start")} for one in answers]}
