"""The language Space: by its API, and as a person meets it."""

import math
import re

import pytest

from tests.spaces.conftest import open_tab, opened, refused, serving, settled, trained
from tests.training.test_gpt import SHORT, corpus

pytestmark = pytest.mark.browser
SETTING = (1.0, 0, 1.0, 0.0)  # temperature, top-k, top-p, min-p


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """The Space with two tiny models: one of byte pairs, one of characters."""
    folder = tmp_path_factory.mktemp("language-space")
    book = corpus(folder)
    for name, kind in (("gpt-python-docs", "bpe"), ("gpt-letters", "characters")):
        trained("training.language.gpt", folder / name, "--dataset", book, *SHORT, "--tokenizer", kind)
    names = f"{folder}/gpt-letters,{folder}/gpt-python-docs"
    with serving("language-model", folder / "space", names) as address:
        yield address


def test_bars_are_the_distribution_and_follow_the_filters(client):
    bars, said = client.predict("gpt-letters", "the old", 10, *SETTING, api_name="/lm_next")
    probs = [row["prob"] for row in bars]
    assert len(probs) == 10 and probs == sorted(probs, reverse=True) and 0 < sum(probs) <= 1 + 1e-6
    assert all(row["prob"] == pytest.approx(row["raw"], abs=1e-6) for row in bars) and "7 tokens" in said
    kept, said = client.predict("gpt-letters", "the old", 10, 0.5, 3, 1.0, 0.0, api_name="/lm_next")
    assert sum(row["prob"] for row in kept) == pytest.approx(1, abs=1e-5)
    assert [row["prob"] > 0 for row in kept] == [True] * 3 + [False] * 7 and "**3** of" in said
    assert [row["raw"] for row in kept] == pytest.approx([row["raw"] for row in bars])


def test_writing_gives_the_same_text_for_the_same_seed_and_slides_past_the_context(client):
    words = ("gpt-letters", "the old", 60, *SETTING, 7, False)
    first, second = (client.predict(*words, api_name="/lm_write") for _ in range(2))
    assert (
        first == second
        and first[0].startswith("the old")
        and len(first[0]) > 60
        and "out of its sight" in first[1]
        and first[2] == 7
    )
    assert client.predict(*words[:-2], 8, False, api_name="/lm_write")[0] != first[0]


def test_a_score_is_the_sum_of_its_tokens(client):
    colours, said, table = client.predict("gpt-letters", "the old tree", api_name="/lm_score")
    total = float(re.search(r"log P = \*\*−([\d.]+) nats", said)[1])
    values = [float(v) for v in re.findall(r"<td>−([\d.]+)</td><td>−[\d.]+</td></tr>", table)]
    assert len(values) == 11 and sum(values) == pytest.approx(total, abs=0.02)
    perplexity = float(re.search(r"perplexity \*\*([\d.]+)", said)[1])
    assert perplexity == pytest.approx(math.exp(total / 11), rel=0.01)
    assert colours.count("--surprise") == 11 + 5  # and the scale


def test_the_tree_and_the_shots_answer(client):
    figure = client.predict("gpt-letters", "the ", 2, 3, api_name="/lm_tree")
    assert figure.count('class="twig"') == 3 + 9 and figure.count('class="product"') == 9
    *prompts, zero, one, few, said = client.predict(
        "gpt-letters", "line below line", "", "old => tree\nthe => bird", "a", "stone", False, api_name="/lm_shots"
    )
    assert prompts[0].startswith("a\n") and prompts[2].startswith("old\ntree\n\nthe\nbird\n\na\n")
    assert all("P(“stone” and" in text for text in (zero, one, few)) and "times" in said


def test_a_readers_text_is_shown_and_not_read_as_markup(client):
    text = "<b>[old](//tree)"
    *_, zero, one, few, _ = client.predict(
        "gpt-python-docs", "Q: and A:", text, "a => b", "a", text, False, api_name="/lm_shots"
    )
    assert all("“&#60;b&#62;&#91;old&#93;(//tree)” and" in said for said in (zero, one, few))
    colours, said, table = client.predict("gpt-python-docs", f"a{text}", api_name="/lm_score")
    assert "<b>" not in colours + said + table and "`" not in said
    assert "<b>" not in client.predict("gpt-python-docs", text, 1, 2, api_name="/lm_tree")


def test_what_is_wrong_is_said(client):
    setting = {"temperature": 0, "top_k": 1, "top_p": 2, "min_p": 3}
    for name, value, message in (
        ("temperature", -1, "temperature is -1; it must lie between 0 and 5"),
        ("temperature", "hot", "temperature is 'hot'; it must be a number"),
        ("top_k", 1.5, "top_k is 1.5; it must be a whole number"),
        ("top_p", 0, "top_p is 0; it must lie between"),
        ("min_p", 2, "min_p is 2; it must lie between 0 and 1"),
    ):
        values = list(SETTING)
        values[setting[name]] = value
        refused(client, message, "gpt-letters", "the", 5, *values, api_name="/lm_next")
    for prompt, message in (
        ("", "Prompt is empty; this model has no token that begins a text"),
        ("the Ö", "Prompt holds 'Ö', which is not in this model's vocabulary"),
        ("a" * 20_001, "prompt has 20,001 characters; at most 20,000 are read"),
    ):
        refused(client, message, "gpt-letters", prompt, 5, *SETTING, api_name="/lm_next")
    refused(client, "at most 64 fit", "gpt-letters", "the", 6, 6, api_name="/lm_tree")
    refused(client, "no token to score", "gpt-letters", "t", api_name="/lm_score")
    refused(client, "Line 2 of the examples is 'nothing'", "gpt-letters", "Q: and A:", "", "a => b\nnothing", "a", "b",
            False, api_name="/lm_shots")  # fmt: skip
    refused(client, "model is 'gpt-5'; it must be one of", "gpt-5", "the", 5, *SETTING, api_name="/lm_next")


@pytest.mark.parametrize("width", [1280, 390])
def test_a_person_clicks_writes_measures_and_grows(browser, url, width):
    with opened(browser, url, width) as page:
        page.get_by_label("Model").click()
        page.get_by_role("option", name="gpt-python-docs").click()  # a model's own openings come with it
        text = page.locator("#prompt textarea")
        page.wait_for_function("document.querySelector('#prompt textarea').value.includes('with')")
        bar = page.locator("#bars .token-bar").first
        bar.wait_for()
        before = text.input_value()
        token = bar.locator(".token").inner_text()
        bar.click()
        page.wait_for_function("t => document.querySelector('#prompt textarea').value.length > t.length", arg=before)
        written = text.input_value()
        assert written.startswith(before) and written[len(before) :].replace(" ", "␣").replace("\n", "⏎") == token
        page.get_by_role("button", name="Write on").click()
        page.wait_for_function(
            "t => document.querySelector('#prompt textarea').value.length > t.length + 100", arg=written
        )
        open_tab(page, "How surprising")
        page.locator("#colours .tokens span").first.wait_for()
        page.get_by_label("Text").filter(visible=True).first.fill("the old tree sings")
        page.get_by_role("button", name="Measure").click()
        page.locator("#sum").get_by_text("nats").first.wait_for()
        open_tab(page, "Tree")
        page.locator("#tree-of-tokens .twig").first.wait_for()
        open_tab(page, "Zero, one, few")
        page.locator("#shots-summary strong").wait_for()


def test_stop_stops_and_a_wrong_letter_is_said_without_a_popup(browser, url):
    with opened(browser, url) as page:
        page.get_by_label("Model").click()
        page.get_by_role("option", name="gpt-letters").click()
        text = page.locator("#prompt textarea")
        page.wait_for_function("document.querySelector('#prompt textarea').value === 'The '")
        text.fill("the Ö")
        page.locator("#facts").get_by_text("holds 'Ö'").wait_for()
        assert page.locator(".toast-wrap .toast-body").count() == 0
        text.fill("the old ")
        page.locator("#bars .token-bar").first.wait_for()
        page.get_by_text("Length, bars and seed").click()
        box = page.get_by_label("number input for Tokens to write").first
        box.fill("2000")
        box.press("Enter")
        page.get_by_role("button", name="Write on").click()
        page.wait_for_function("document.querySelector('#prompt textarea').value.length > 60")
        page.locator("#write-stop").click()
        assert len(settled(page, text.input_value)) < 2_000
        assert page.locator(".toast-wrap .toast-body").count() == 0
