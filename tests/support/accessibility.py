"""What a page must be for people with a keyboard, a screen reader, large letters or few colours."""
from __future__ import annotations

from typing import Any

TAGS = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")
THEMES = ("light", "dark")
TABS = ("live", "video", "picture", "dreams", "layers")
COLOURS = ("color-contrast",)
AXE = "(runOnly) => axe.run(document, { runOnly, resultTypes: ['violations'] })"
FOCUSED = """() => {
  let element = document.activeElement;
  if (element === document.body) return null;
  const seen = [element, element.closest("label, .wrap"), element.nextElementSibling].filter(Boolean);
  const box = element.getBoundingClientRect();
  return {
    what: element.outerHTML.replace(/<!--.*?-->/g, "").slice(0, 160),
    is_outlined: seen.some((each) => {
      const { outlineStyle, outlineWidth } = getComputedStyle(each);
      return outlineStyle !== "none" && parseFloat(outlineWidth) >= 2;
    }),
    is_on_screen: box.width > 0 && box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth,
  };
}"""


def violations(page: Any, rules: tuple[str, ...] = TAGS) -> list[str]:
    """Return what axe-core finds in what is shown of the page: rule, element, and how to mend it."""
    from axe_playwright_python.base import AXE_SCRIPT

    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE_SCRIPT)
    found = page.evaluate(AXE, list(rules))["violations"]
    return [f"{rule['id']}: {node['html'][:160]}: {node['failureSummary']}" for rule in found for node in rule["nodes"]]


def settle(page: Any) -> None:
    """Wait for the pictures and transitions of a page."""
    page.wait_for_function("document.getAnimations().every(({ effect, playState }) => "
                           "playState !== 'running' || effect.getTiming().iterations === Infinity)")


def open_tab(page: Any, name: str) -> None:
    page.click(f"#tab-{name}-button")
    page.wait_for_selector(f"#tab-{name}:visible")
    page.wait_for_function("(name) => document.querySelector(`#tab-${name} :is(button, p, input)`)", arg=name)
    page.wait_for_function("(name) => !document.querySelector(`#tab-${name} [aria-busy]`)", arg=name)
    settle(page)


def show_theme(page: Any, theme: str) -> None:
    if (theme == "dark") != page.evaluate("document.body.classList.contains('dark')"):
        page.click(".sd-theme")
    settle(page)


def walk(page: Any, most: int = 400) -> list[dict[str, Any]]:
    """Press Tab from the top of the page to its end, and return where the focus was each time."""
    page.focus(".sd-skip")
    page.keyboard.press("Shift+Tab")  # to the browser's own controls, and back
    page.keyboard.press("Tab")
    stops: list[dict[str, Any]] = []
    for _ in range(most):
        stop = page.evaluate(FOCUSED)
        if stop is None:
            return stops
        stops.append(stop)
        page.keyboard.press("Tab")
    raise AssertionError(f"a trap: {stops[-1]['what']}")


def sideways(page: Any) -> int:
    """Return by how many pixels the page is wider than its window."""
    wider: int = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    return wider
