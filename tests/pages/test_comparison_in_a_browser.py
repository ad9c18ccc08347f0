"""Pages of a comparison in headless Chromium: they sort, filter, and draw the front that the definition gives."""

from __future__ import annotations

from typing import Any

from browser import LOW_CONTRASTS, Open, click, count, emulate, enter, texts
from comparison_data import comparison, many_rows, row
from hostile_names import NAMES

from quanta_compiler.pages.page import comparison_page


def names(browser: Any) -> list[str]:
    return texts(browser, "#table tbody th span:last-child")


ROWS = [
    row("small", 100, 0.3, numerical_rank=3),
    row("middle", 2000, None),
    row("lora-8", 1000, 0.1, kind="method", operator_flops=7),
    row("large", 4096, 0.2, kind="dense"),
]
DOTS = "return document.querySelectorAll('#chart [aria-label=dot]')[arguments[0]]?.children.length ?? 0"
"""How many dots the picture has: 0 for all, 1 for the rings around those on the front."""
PROBLEM = {"severity": "error", "message": "unknown pattern", "source": "a.yaml", "line": 5, "column": 3, "hint": "x"}


def test_the_table_sorts_by_click_and_by_key(opened: Open) -> None:
    page = opened(comparison_page(comparison(ROWS)))
    assert names(page) == ["small", "middle", "lora-8", "large"]
    click(page, "[data-key=trainable]")
    assert names(page) == ["small", "lora-8", "middle", "large"]
    assert page.execute_script("return document.querySelector('[aria-sort=ascending]').innerText.includes('trainable')")
    # The heading that was clicked keeps the focus, so the keyboard goes on from there.
    page.switch_to.active_element.send_keys("\ue007")
    assert names(page) == ["large", "middle", "lora-8", "small"]
    click(page, "[data-key=step_seconds]")
    assert names(page) == ["lora-8", "large", "small", "middle"]
    click(page, "[data-key=step_seconds]")
    assert names(page) == ["small", "large", "lora-8", "middle"], "no figure comes last either way"
    click(page, "[data-key=rank_upper]")
    assert names(page)[0] == "large", "where more is better, the most comes first"


FILTERS = {
    "LORA": ["lora-8"],
    "method": ["lora-8"],
    "trainable<=1e3": ["small", "lora-8"],
    "trainable>1k trainable<4k": ["middle"],
    "steptime<0.25": ["lora-8", "large"],
    "random-rank>=1": ["small"],
    "nothing": [],
    "": ["small", "middle", "lora-8", "large"],
}


def test_the_table_and_the_picture_are_filtered(opened: Open) -> None:
    page = opened(comparison_page(comparison(ROWS)))
    for words, left in FILTERS.items():
        enter(page, "#filter", words)
        assert names(page) == left
        drawn = [name for name in left if name != "middle"]  # which has no time
        assert page.execute_script(DOTS, 0) == len(drawn)
        assert texts(page, "#count") == ["4 rows." if len(left) == 4 else f"{len(left)} of 4 rows."]


def test_a_column_has_a_least_and_a_most(opened: Open) -> None:
    page = opened(comparison_page(comparison(ROWS)))
    enter(page, "#table-controls select", "step_seconds")
    enter(page, "#least", "0.15")
    assert names(page) == ["small", "large"]
    enter(page, "#most", "0.25")
    assert names(page) == ["large"]
    enter(page, "#filter", "colour<3 trainable<x")
    assert texts(page, "#count") == ["1 of 4 rows. There is no column “colour”. “x” is no number."]


def pareto(rows: list[dict[str, Any]], cost: str, higher: bool) -> set[str]:
    """Return the names on the front, by the definition, one pair of rows after the other."""
    sign = -1 if higher else 1
    points = {one["name"]: (one["trainable"], sign * one[cost]) for one in rows if one[cost] is not None}
    return {
        name
        for name, (x, y) in points.items()
        if not any(a <= x and b <= y and (a, b) != (x, y) for a, b in points.values())
    }


def test_the_front_is_that_of_the_chosen_cost(opened: Open) -> None:
    rows = many_rows(40)
    page = opened(comparison_page(comparison(rows)))
    for cost, higher in (("step_seconds", False), ("saved_bytes_per_token", False), ("rank_upper", True)):
        enter(page, "#chart-controls select", cost)
        expected = pareto(rows, cost, higher)
        assert {*texts(page, "#table .best th span:last-child")} == expected
        assert page.execute_script(DOTS, 1) == len(expected)


def test_problems_are_listed_and_what_is_missing_is_a_dash(opened: Open) -> None:
    page = opened(comparison_page(comparison(ROWS, problems=[PROBLEM])))
    assert texts(page, "#problems p") == ["a.yaml:5:3: unknown pattern", "hint: x"]
    assert "–" in texts(page, "#table tbody td")
    assert texts(page, "#chart-missing") == ["1 row without this figure is not in the picture."]


BESIDE_LORA = [
    row("lora-8", 1000, 0.1, source="lora:8", family="lora"),
    row("mine", 100, 0.4, source="/home/someone/secret/mine.yaml", rank_upper=64),
    row("both", 4096, 0.2, source="q_proj=/home/a/q.yaml,v_proj=/home/a/v.yaml", rank_upper=64),
]


def test_the_page_begins_with_what_was_found(opened: Open) -> None:
    page = opened(comparison_page(comparison(BESIDE_LORA)))
    assert texts(page, "#findings") == [
        "mine trains the fewest numbers (0.1x that of lora-8); lora-8 takes the shortest step; of the 2 layouts with "
        "the highest rank, 64, both is the quickest (2x that of lora-8)."
    ]
    assert "lora, the reference" in " ".join(texts(page, ".legend span"))
    assert texts(page, "#table tbody tr:nth-child(2) .ratio") == ["4x", "0.1x", "1x"]


def test_every_width_has_a_reference_of_its_own(opened: Open) -> None:
    wide = {"in_features": 128, "out_features": 128}
    rows = [*BESIDE_LORA[:2], row("lora-8", 4000, 0.5, source="lora:8", **wide), row("large", 2000, 1.0, **wide)]
    page = opened(comparison_page(comparison(rows)))
    ratios = [texts(page, f"#table tbody tr:nth-child({place}) .ratio")[:2] for place in (1, 2, 3, 4)]
    assert ratios == [["1x", "1x"], ["4x", "0.1x"], ["1x", "1x"], ["2x", "0.5x"]]
    assert page.execute_script("return document.getElementById('findings-card').hidden")


def test_a_page_says_nothing_of_its_writers_folders(opened: Open) -> None:
    page = opened(comparison_page(comparison(BESIDE_LORA, problems=[{**PROBLEM, "source": "/home/a/b.yaml"}])))
    assert "/home" not in page.page_source
    click(page, "[data-column=source]")
    assert texts(page, "#table td[data-title=source]") == ["lora:8", "mine.yaml", "q_proj=q.yaml,v_proj=v.yaml"]
    assert texts(page, "#problems strong") == ["b.yaml:5:3: "]


def test_columns_are_chosen_and_the_best_known_come_first(opened: Open) -> None:
    page = opened(comparison_page(comparison(ROWS)))
    shown = "return [...document.querySelectorAll('#table th button')].map((one) => one.dataset.key)"
    first = ["name", "rank_upper", "step_seconds", "trainable", "saved_bytes_per_token"]
    assert page.execute_script(shown) == first
    click(page, "[data-column=operator_flops]")
    click(page, "[data-column=rank_upper]")
    assert page.execute_script(shown) == [*(key for key in first if key != "rank_upper"), "operator_flops"]


def test_every_point_has_a_label(opened: Open) -> None:
    rows = many_rows(12)
    page = opened(comparison_page(comparison(rows)))
    drawn = [one["name"] for one in rows if one["step_seconds"] is not None]
    assert sorted(texts(page, "#chart .names text")) == sorted(drawn)


def test_no_label_lies_on_the_front(opened: Open) -> None:
    page = opened(comparison_page(comparison(ROWS)))
    crossed = """
        const front = document.querySelector("#chart [aria-label=line] path");
        const way = d3.range(0, front.getTotalLength()).map((far) => front.getPointAtLength(far));
        const frame = document.querySelector("#chart svg:last-of-type").getBoundingClientRect();
        return [...document.querySelectorAll("#chart .names text")].filter((one) => {
          const box = one.getBoundingClientRect();
          return way.some(({ x, y }) => box.left < x + frame.left && x + frame.left < box.right
            && box.top < y + frame.top && y + frame.top < box.bottom);
        }).map((one) => one.textContent);
    """
    assert page.execute_script(crossed) == []


def test_rows_are_cards_on_a_phone(opened: Open) -> None:
    page = opened(comparison_page(comparison(ROWS)))
    emulate(page, width=420)
    wide = "return document.querySelector(arguments[0]).getBoundingClientRect().width"
    assert page.execute_script(wide, "#table tbody tr") > 300
    assert page.execute_script("return document.documentElement.scrollWidth") <= 420
    assert page.execute_script("return getComputedStyle(document.querySelector('#table tr')).display") == "block"


def test_many_cards_scroll_with_the_page(opened: Open) -> None:
    page = opened(comparison_page(comparison(many_rows(40))))
    emulate(page, width=420)
    inner = "const one = document.querySelector('#table'); return one.scrollHeight - one.clientHeight"
    assert page.execute_script(inner) <= 1, "the page scrolls, not a box in it"


def test_a_comparison_of_nothing_has_a_page(opened: Open) -> None:
    page = opened(comparison_page(comparison([])))
    assert texts(page, "#chart") == ["There is nothing to draw."]
    assert texts(page, "#count") == ["0 rows."]


def test_hostile_names_are_shown_as_text_in_a_comparison(opened: Open) -> None:
    rows = [row(name, 100 + place, 0.1 / (place + 1), source=name, kind=name) for place, name in enumerate(NAMES)]
    plain = next(name for name in NAMES if not {"/", "=", ","} & {*name})
    problem = {
        "severity": "error",
        "message": NAMES[1],
        "source": plain,
        "line": None,
        "column": None,
        "hint": NAMES[2],
    }
    data = comparison(rows, title=NAMES[0], percent_of=NAMES[1], problems=[problem])
    page = opened(comparison_page(data))
    assert names(page) == [*NAMES]
    assert texts(page, "h1") == [NAMES[0]]
    assert texts(page, "#problems strong") == [f"{plain}: "]
    click(page, "[data-key=name]")
    enter(page, "#filter", "<img")
    assert names(page) == [NAMES[1]]
    assert count(page, "img, iframe, object, embed, a, form") == 0


def test_every_text_has_contrast(opened: Open) -> None:
    page = opened(comparison_page(comparison(ROWS, problems=[PROBLEM])))
    page.execute_script("for (const one of document.querySelectorAll('details')) one.open = true")
    for scheme in ("light", "dark"):
        emulate(page, scheme)
        assert page.execute_script(LOW_CONTRASTS) == [], scheme


def test_paper_has_every_row_and_no_controls(opened: Open) -> None:
    page = opened(comparison_page(comparison(many_rows(40))))
    emulate(page, "dark", media="print")
    found = "return [...document.querySelectorAll(arguments[0])]"
    assert page.execute_script(f"{found}.filter((one) => one.offsetParent).length", "select, input") == 0
    assert page.execute_script(f"{found}.filter((one) => one.offsetParent).length", "#table tbody tr") == 40
    assert page.execute_script(f"{found}.map((one) => getComputedStyle(one).overflow)", "#table") == ["visible"]
