"""What the language Space shows of text: bars to click, words by their colours, a tree."""

import html
import math

import gradio as gr
from kit.charts import signed
from kit.inputs import Refused, check_fields

SURPRISE = 8.0  # nats at which a token has the full colour
MOST_ROWS = 400  # of the table below a coloured text

BARS = """
const list = element.querySelector(".token-bars");
function show() {
  const had = [...list.children].indexOf(document.activeElement);
  const rows = props.value?.rows || [];
  const full = Math.max(0.3, ...rows.map((row) => Math.max(row.prob, row.raw)));
  list.replaceChildren(...rows.map((row) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = row.prob > 0 ? "token-bar" : "token-bar out";
    button.disabled = !row.writes;  // a mark, or a part of a letter: no text by itself
    button.setAttribute("aria-label", `${row.text}, ${row.said}` + (row.writes ? ": write it" : ""));
    for (const [name, text] of [["token", row.text], ["track", ""], ["share", row.said]]) {
      const part = document.createElement("span");
      part.className = name;
      part.textContent = text;
      button.append(part);
    }
    const track = button.children[1];
    for (const [name, share] of [["filled", row.prob], ["raw", row.raw]]) {
      const bar = document.createElement("i");
      bar.className = name;
      bar.style.width = `${(100 * share) / full}%`;
      track.append(bar);
    }
    button.addEventListener("click", () => {
      props.value = { ...props.value, chosen: row.id };
      trigger("input");
    });
    return button;
  }));
  if (had >= 0) list.children[Math.min(had, list.children.length - 1)]?.focus();
}
watch("value", show);
show();
"""


def visible(text: str) -> str:
    """A token as it is seen: its spaces and line ends too."""
    return text.replace(" ", "␣").replace("\n", "⏎").replace("\t", "⇥") or "(nothing)"


def percent(probability: float) -> str:
    """0.1234 -> 12 %; what is small keeps a digit, what is next to nothing is called so."""
    share = 100 * probability
    if share >= 10 or share == 0:
        return f"{share:.0f} %"
    return f"{share:.1f} %" if share >= 0.1 else f"{share:.1g} %" if share >= 0.001 else "<0.001 %"


class TokenBars(gr.HTML):
    """The likeliest next tokens, each a button; hands the id of the one that was clicked to its handler."""

    def __init__(self, **options):
        super().__init__(
            {"rows": [], "chosen": None},
            html_template='<div class="token-bars" role="group" aria-label="the likeliest next tokens"></div>',
            js_on_load=BARS,
            **options,
        )

    def taken(self, value) -> int | None:
        """The id of the token whose bar was clicked."""
        chosen = check_fields(value, {"chosen": "the id of a token"})["chosen"]
        if chosen is not None and type(chosen) is not int:
            raise Refused('one of the bars: a whole number, its token\'s id, as "chosen"')
        return chosen

    def postprocess(self, value: list[dict] | dict) -> dict:
        return value if isinstance(value, dict) else {"rows": value, "chosen": None}

    def api_info(self) -> dict:
        number, text = {"type": "number"}, {"type": "string"}
        row = {
            "id": {"type": "integer"},
            "text": text,
            "prob": number,
            "raw": number,
            "said": text,
            "writes": {"type": "boolean"},
        }
        rows = {"type": "array", "items": {"type": "object", "properties": row}}
        return {"type": "object", "properties": {"rows": rows, "chosen": {"type": "integer"}}}

    def example_payload(self):
        return {"rows": [], "chosen": 0}


def coloured(given: str, tokens: list[str], log_probs: list[float]) -> str:
    """A text, each token the more coloured the more it surprised; what it was given is grey."""
    spans = f'<span class="given">{_breaking(given)}</span>' if given else ""
    for token, value in zip(tokens, log_probs, strict=True):
        said = f"{visible(token)}: {percent(math.exp(value))}, {signed(value, 2)} nats"
        share = min(1.0, -value / SURPRISE)
        spans += f'<span style="--surprise:{share:.2f}" title="{html.escape(said)}">{_breaking(token)}</span>'
    scale = "".join(f'<span style="--surprise:{i / 4:.2f}">{SURPRISE * i / 4:g}</span>' for i in range(5))
    return f'<div class="tokens">{spans}</div><div class="tokens scale">nats: {scale}</div>'


def _breaking(text: str) -> str:
    return html.escape(text).replace("\n", '<b class="mark">⏎</b>\n')


def token_table(tokens: list[str], log_probs: list[float]) -> str:
    """Each token with its probability, and the sum so far."""
    rows, total = "", 0.0
    for number, (token, value) in enumerate(zip(tokens, log_probs, strict=True)):
        total += value
        if number < MOST_ROWS:
            cells = (visible(token), percent(math.exp(value)), signed(value, 3), signed(total, 2))
            rows += "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>"
    head = "".join(f"<th>{name}</th>" for name in ("token", "p", "log p", "sum so far"))
    return f'<div class="table tall"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def tree(prompt: str, roots: list) -> str:
    """An SVG: continuations from left to right, a line as thick as it is probable, the product at its end."""
    leaves = _count(roots)
    depth = _depth(roots)
    row, column, left = 36, 150, 96
    width, height = left + column * depth + 84, row * leaves + 20
    shown = visible(prompt[-9:])
    drawn = f'<text x="{left - 8}" y="{height / 2 + 5:.0f}" text-anchor="end">{html.escape(shown)}</text>'
    place = 10.0

    def draw(branches: list, x: float, middle: float, top: float) -> str:
        made = ""
        for branch in branches:
            rows = _count(branch.children) if branch.children else 1
            y = top + row * rows / 2
            top_of_children, top = top, top + row * rows
            p = math.exp(branch.log_prob)
            end = x + column - 62
            made += (
                f'<path class="twig" stroke-width="{max(1.0, 14 * math.exp(branch.total)):.1f}" '
                f'd="M{x:.0f} {middle:.1f}C{(x + end) / 2:.0f} {middle:.1f} {(x + end) / 2:.0f} {y:.1f} {end:.0f} {y:.1f}"/>'
                f'<text x="{end + 4:.0f}" y="{y - 4:.1f}" class="token">{html.escape(visible(branch.token))}</text>'
                f'<text x="{end + 4:.0f}" y="{y + 12:.1f}" class="small">{percent(p)}</text>'
            )
            if branch.children:
                made += draw(branch.children, x + column, y, top_of_children)
            else:
                made += f'<text x="{x + column + 8:.0f}" y="{y + 4:.1f}" class="product">= {percent(math.exp(branch.total))}</text>'
        return made

    drawn += draw(roots, left, height / 2, place)
    return (
        f'<div class="figure tree-figure"><svg viewBox="0 0 {width} {height}" width="{width}" role="img" '
        f'aria-label="the likeliest continuations" font-size="14">{drawn}</svg></div>'
    )


def _count(branches: list) -> int:
    return sum(_count(b.children) if b.children else 1 for b in branches)


def _depth(branches: list) -> int:
    return 1 + max((_depth(b.children) for b in branches if b.children), default=0)
