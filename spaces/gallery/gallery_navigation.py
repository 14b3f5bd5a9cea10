"""Finding one's way among many pages: a menu for each branch in one line, a drawer where the window is narrow, and
the previous and the next page at the foot."""

import html

import gradio as gr
from gallery_records import branch_place, branch_title

MOST_LETTERS = 90  # of all branches' titles together, that fit in the line beside each other

CLOSE = """
const menus = [...element.querySelectorAll("details")];
document.addEventListener("click", (event) => {
  for (const menu of menus) if (!menu.contains(event.target)) menu.open = false;
});
element.addEventListener("keydown", (event) => {
  const menu = event.key === "Escape" && event.target.closest("details");
  if (!menu) return;
  menu.open = false;
  menu.querySelector("summary").focus();
});
"""


def in_order(pages: dict) -> list[str]:
    """The names of the pages, branch by branch in the order of teaching."""
    return sorted(pages, key=lambda name: (branch_place(pages[name].BRANCH), name))


def by_branch(pages: dict) -> dict[str, list[str]]:
    branches: dict[str, list[str]] = {}
    for name in in_order(pages):
        branches.setdefault(pages[name].BRANCH, []).append(name)
    return branches


def link(name: str, title: str, here: str | None) -> str:
    current = ' aria-current="page"' if name == here else ""
    return f'<a href="{name}"{current}>{html.escape(title)}</a>'


def bar(pages: dict, here: str | None) -> str:
    """The line at the top of a page; `here` is the page's name, None on the front page."""
    menus = drawer = ""
    for branch, names in by_branch(pages).items():
        title = html.escape(branch_title(branch))
        links = "".join(f"<li>{link(name, pages[name].TITLE, here)}</li>" for name in names)
        drawer += f"<h4>{title}</h4><ul>{links}</ul>"
        if len(names) == 1:  # a menu of one page is that page
            menus += link(names[0], branch_title(branch), here)
        else:
            marked = ' class="here"' if here in names else ""
            menus += f'<details name="site"{marked}><summary>{title}</summary><ul>{links}</ul></details>'
    crowded = sum(len(branch_title(branch)) for branch in by_branch(pages)) > MOST_LETTERS
    said = html.escape(pages[here].TITLE) if here else "Pages"
    return (
        f'<nav class="site{" crowded" if crowded else ""}" aria-label="Pages">'
        f'<a class="site-home" href="./" aria-label="Genus, home">Genus</a><div class="site-menus">{menus}</div>'
        f'<details class="site-drawer"><summary><span>{said}</span></summary>'
        f'<div><a href="./">Home</a>{drawer}</div></details></nav>'
    )


def foot(pages: dict, here: str) -> str:
    """Links to the page before and after a page."""
    order = in_order(pages)
    place = order.index(here)
    steps = [("Previous", order[place - 1] if place else None), ("Next", [*order, None][place + 1])]
    links = "".join(
        f'<a class="{word.lower()}" href="{name or "./"}"><small>{word}</small>'
        f"{html.escape(pages[name].TITLE) if name else 'All families'}</a>"
        for word, name in steps
    )
    return f'<nav class="site-foot" aria-label="Previous and next page">{links}</nav>'


def put_bar(pages: dict, here: str | None) -> None:
    gr.HTML(bar(pages, here), js_on_load=CLOSE, apply_default_css=False, elem_id="site", padding=False)


def put_foot(pages: dict, here: str) -> None:
    gr.HTML(foot(pages, here), apply_default_css=False, elem_id="site-foot", padding=False)
