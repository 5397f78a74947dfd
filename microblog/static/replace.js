// Puts `fresh` in the place of `old`. The focus stays on the same link or button; where that is gone `fresh` itself
// has it, so that a keyboard does not lose its place; and so has the next one, if that is replaced in its turn.
export function replace(old, fresh) {
  const held = old.contains(document.activeElement);
  const focused = held ? document.activeElement.closest("form, a") : null;
  const action = focused && (focused.action || focused.href);
  old.replaceWith(fresh);
  if (!held) return;
  const same = [...fresh.querySelectorAll("form, a")].find((one) => (one.action || one.href) === action);
  const target = same?.querySelector("button") ?? same ?? fresh;
  if (target === fresh) fresh.tabIndex = -1;
  target.focus();
}
