"""Keyboard check of a page: Tab reaches all controls in order, and the focus is visible."""

from __future__ import annotations

from playwright.sync_api import Page

# Collects the visible controls in the order in which Tab must reach them, and records those it reaches. Controls are
# compared by their HTML, since a live page may replace an element by an equal one. Frames count as separate pages.
_PREPARE = """() => {
  const usable = "a[href], button, input, select, textarea, summary, [contenteditable], [tabindex]";
  const seen = (one) => one.checkVisibility({ visibilityProperty: true }) && !one.closest("[inert], #api-docs");
  const name = (one) => one.outerHTML.replace(/\\s+/g, " ").slice(0, 160);
  const look = (one) => {
    const style = getComputedStyle(one);
    const outline = style.outlineStyle === "none" ? "" : style.outlineWidth;
    return [outline, style.boxShadow, style.borderColor, style.backgroundColor, style.textDecoration].join("; ");
  };
  document.body.tabIndex = -1; // start at the top, wherever the focus is
  document.body.focus();
  document.body.removeAttribute("tabindex");
  const all = [...document.querySelectorAll(usable)].filter((one) => seen(one) && !one.disabled && one.tabIndex >= 0);
  window.expected = all.map((one) => [name(one), look(one)]);
  if (!window.reached) {
    // A live page moves the focus to the replacement of a focused element: that is not a key press of the user.
    const focus = HTMLElement.prototype.focus;
    let byScript = false;
    HTMLElement.prototype.focus = function (...options) {
      byScript = true;
      focus.apply(this, options);
      byScript = false;
    };
    document.addEventListener("focusin", ({ target }) => {
      if (!byScript) window.reached.push([name(target), look(target)]);
    });
  }
  window.reached = [];
  return all.length;
}"""


def keyboard_problems(page: Page) -> list[str]:
    """Return the problems that a user without a mouse has with the page."""
    for _ in range(page.evaluate(_PREPARE)):
        page.keyboard.press("Tab")
    for _frame in page.frames[1:]:
        if page.evaluate("window.reached.length < window.expected.length"):
            page.keyboard.press("Tab")  # the previous one focused the frame itself, if it can be scrolled
    expected, reached = page.evaluate("[window.expected, window.reached]")
    names, order = [name for name, _style in expected], [name for name, _style in reached]
    problems = [f"Tab does not reach {name}" for name in names if name not in order]
    problems += [f"Tab reaches an invisible element: {name}" for name in order if name not in names]
    problems += [f"the focus is not visible on {one[0]}" for one in reached if one in expected]
    return problems or (["Tab does not follow the order of the page"] if names != order else [])
