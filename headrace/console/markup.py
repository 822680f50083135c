"""HTML from nested calls, so that nothing can be written unescaped by mistake: a str is text, an `Html` is markup."""

from dataclasses import dataclass
from html import escape

_EMPTY = {"meta", "br", "hr", "link"}


@dataclass(frozen=True)
class Html:
    """Markup that is safe to put into a page as it is."""

    text: str


Part = Html | str | int | None


def element(tag: str, *parts: Part, **attributes: str | None) -> Html:
    """`<tag name="value">parts</tag>`, everything escaped that is not `Html`.

    Args:
        attributes: a trailing underscore is dropped (`class_`), others become hyphens (`aria_label`); None is left out.
    """
    pairs = [(name.removesuffix("_").replace("_", "-"), value) for name, value in attributes.items()]
    head = "".join(f' {name}="{escape(value)}"' for name, value in pairs if value is not None)
    inner = "" if tag in _EMPTY else f"{join(*parts).text}</{tag}>"
    return Html(f"<{tag}{head}>{inner}")


def join(*parts: Part) -> Html:
    """Parts side by side; None is nothing."""
    texts = (part.text if isinstance(part, Html) else "" if part is None else escape(str(part)) for part in parts)
    return Html("".join(texts))


def table(
    header: list[Part],
    rows: list[list[Part]],
    *,
    caption: str,
    numbers: tuple[int, ...] = (),
    wide: tuple[int, ...] = (),
) -> Html:
    """A table that scrolls sideways on a narrow screen; `numbers` are set flush right, `wide` columns break lines."""

    def kind(i: int) -> str | None:
        return "number" if i in numbers else "wide" if i in wide else None

    head = element("tr", *(element("th", cell, scope="col", class_=kind(i)) for i, cell in enumerate(header)))
    body = [element("tr", *(element("td", cell, class_=kind(i)) for i, cell in enumerate(row))) for row in rows]
    inner = element("table", element("caption", caption), element("thead", head), element("tbody", *body))
    return element("div", inner, class_="scroll", tabindex="0", role="region", aria_label=caption)
