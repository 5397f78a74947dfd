// Puts `fresh` in the place of `old`. The focus stays on the same link, button or box of the same item; where that is
// gone `fresh` itself has it, so that a keyboard does not lose its place, nor does something else at the press of a
// key; and so has the next one, if that is replaced in its turn.
export function replace(old, fresh) {
  const focused = old.contains(document.activeElement) ? document.activeElement : null;
  const number = focused ? alike(focused, old).indexOf(focused) : -1;
  old.replaceWith(fresh);
  if (!focused) return;
  const target = alike(focused, fresh)[number] ?? fresh;
  if (target === fresh) fresh.tabIndex = -1;
  target.focus();
}

// All in `part` that does the same as `one`.
function alike(one, part) {
  return [...part.querySelectorAll(one.localName)].filter((other) => deedOf(other) === deedOf(one));
}

function deedOf(one) {
  const item = one.closest("[data-item]")?.dataset.item.split(" ")[0]; // of which there may be another state
  const goal = one.href ?? one.getAttribute("formaction") ?? one.form?.action;
  return [item, goal, one.getAttribute("name"), one.getAttribute("value")].join(" ");
}
