// Puts `fresh` in the place of `old`. The focus stays on the same link, button or box of the same item; where that is
// gone `fresh` itself has it, so that a keyboard does not lose its place, nor does something else at the press of a
// key; and so has the next one, if that is replaced in its turn.
export function replace(old, fresh) {
  const focused = old.contains(document.activeElement) ? document.activeElement : null;
  const deed = focused && deedOf(focused); // while it is on the page: a box may belong to a form elsewhere on it
  const number = focused ? alike(old, focused.localName, deed).indexOf(focused) : -1;
  old.replaceWith(fresh);
  if (!focused) return;
  const target = alike(fresh, focused.localName, deed)[number] ?? fresh;
  if (target === fresh) fresh.tabIndex = -1;
  target.focus();
}

// All elements of that name in `part` that do the same.
function alike(part, name, deed) {
  return [...part.querySelectorAll(name)].filter((one) => deedOf(one) === deed);
}

function deedOf(one) {
  const item = one.closest("[data-item]")?.dataset.item.split(" ")[0]; // of which there may be another state
  const goal = one.href ?? one.getAttribute("formaction") ?? one.form?.action;
  return [item, goal, one.getAttribute("name"), one.getAttribute("value")].join(" ");
}
