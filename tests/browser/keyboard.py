"""Whether a page can be used without a mouse: Tab reaches all that can be used, in order, and shows where it is."""

from __future__ import annotations

from playwright.sync_api import Page

# What a reader sees and can use, as Tab is to reach it. Things are told apart by what they are: a live page may have
# replaced one by another of its kind meanwhile. What is in a frame is a page of its own.
_PREPARE = """() => {
  const usable = "a[href], button, input, select, textarea, summary, [contenteditable], [tabindex]";
  const seen = (one) => one.checkVisibility({ visibilityProperty: true }) && !one.closest("[inert], #api-docs");
  const name = (one) => one.outerHTML.replace(/\\s+/g, " ").slice(0, 160);
  const look = (one) => {
    const style = getComputedStyle(one);
    const outline = style.outlineStyle === "none" ? "" : style.outlineWidth;
    return [outline, style.boxShadow, style.borderColor, style.backgroundColor, style.textDecoration].join("; ");
  };
  document.body.tabIndex = -1; // the way begins at the top, wherever the focus is
  document.body.focus();
  document.body.removeAttribute("tabindex");
  const all = [...document.querySelectorAll(usable)].filter((one) => seen(one) && !one.disabled && one.tabIndex >= 0);
  window.expected = all.map((one) => [name(one), look(one)]);
  if (!window.reached) {
    // A live page gives the focus to what it puts in the place of what had it: that is no step of the reader's.
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


def obstacles(page: Page) -> list[str]:
    """What keeps somebody who has no mouse from using the page."""
    for _ in range(page.evaluate(_PREPARE)):
        page.keyboard.press("Tab")
    for _frame in page.frames[1:]:
        if page.evaluate("window.reached.length < window.expected.length"):
            page.keyboard.press("Tab")  # one was for the frame itself, if that can be scrolled
    expected, reached = page.evaluate("[window.expected, window.reached]")
    names, order = [name for name, _look in expected], [name for name, _look in reached]
    problems = [f"Tab does not reach {name}" for name in names if name not in order]
    problems += [f"Tab reaches what cannot be seen: {name}" for name in order if name not in names]
    problems += [f"nothing shows that the focus is on {one[0]}" for one in reached if one in expected]
    return problems or (["Tab does not go in the order of the page"] if names != order else [])
