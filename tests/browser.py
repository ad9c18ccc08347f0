"""What tests do with a page in a browser: open it, look, click, listen."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Open = Callable[[str], Any]
"""Open the text of a page; returns the browser."""


def open_file(browser: Any, path: Path, text: str) -> None:
    """Open a text as a file and wait until what it draws is there."""
    path.write_text(text, encoding="utf-8")
    emulate(browser)
    browser.get(path.as_uri())
    browser.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")


def forget(browser: Any) -> None:
    """Leave the page, with all that it has said and asked for."""
    browser.get("about:blank")
    browser.get_log("browser")
    browser.get_log("performance")


def messages(browser: Any) -> list[str]:
    """Return what the console says."""
    return [entry["message"] for entry in browser.get_log("browser")]


def requests(browser: Any) -> list[str]:
    """Return the addresses that were asked for; what an address holds itself is no request."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    return [address for address in asked if not address.startswith("data:")]


def emulate(browser: Any, scheme: str = "light", media: str = "", width: int = 1200) -> None:
    """Look at the page as someone does who likes it light or dark, on paper, or on a small screen."""
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def texts(browser: Any, selector: str) -> list[str]:
    """Return the texts of all elements of a selector."""
    script = "return [...document.querySelectorAll(arguments[0])].map((one) => one.textContent)"
    found: list[str] = browser.execute_script(script, selector)
    return found


def count(browser: Any, selector: str) -> int:
    """Return how many elements there are."""
    number: int = browser.execute_script("return document.querySelectorAll(arguments[0]).length", selector)
    return number


def click(browser: Any, selector: str) -> None:
    """Click the first element of a selector."""
    browser.execute_script("document.querySelector(arguments[0]).click()", selector)


def enter(browser: Any, selector: str, value: str) -> None:
    """Set a control as a person does: it hears of it."""
    script = """
        const control = document.querySelector(arguments[0]);
        control.value = arguments[1];
        for (const kind of ["input", "change"]) control.dispatchEvent(new Event(kind));
    """
    browser.execute_script(script, selector, value)


LOW_CONTRASTS = """
const parse = (text) => (text.match(/[\\d.]+/g) ?? []).map(Number);
const isClear = (text) => !text.startsWith("rgb") || parse(text)[3] === 0;
const linear = (one) => (one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4);
const luminance = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
// In a diagram or graph a text stands on the shape before it in its group; elsewhere on the nearest background.
function behind(text) {
  const group = text.parentElement;
  if (text.ownerSVGElement && group.localName === "g" && !group.closest("#chart, #gates, #rank")) {
    const fills = [...group.querySelectorAll(":scope > rect, :scope > path")].map((one) => getComputedStyle(one).fill);
    const solid = fills.filter((fill) => !isClear(fill));
    if (solid.length) return solid[0];
  }
  for (let one = text; one; one = one.parentElement) {
    const colour = getComputedStyle(one).backgroundColor;
    if (!isClear(colour)) return colour;
  }
}
const found = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement;
  const box = element.getBoundingClientRect();
  if (!walker.currentNode.textContent.trim() || !box.width || element.closest("script, title, desc, style")) continue;
  const style = getComputedStyle(element);
  const [ink, paper] = [element.ownerSVGElement ? style.fill : style.color, behind(element)];
  let clear = parse(ink)[3] ?? 1;
  for (let one = element; one; one = one.parentElement) clear *= getComputedStyle(one).opacity;
  const mixed = parse(ink).map((part, place) => clear * part + (1 - clear) * parse(paper)[place]);
  const [dark, light] = [mixed, parse(paper)].map(luminance).sort((a, b) => a - b);
  if (!((light + 0.05) / (dark + 0.05) >= 4.5)) found.push([element.textContent.slice(0, 40), ink, paper]);
}
return found;
"""
"""Return the texts that do not stand out from what is behind them by 4.5 to 1 (WCAG 2, level AA)."""
