// Replaces `old` with `fresh`. The focus moves to the same link, button or checkbox of the same item. If that no longer
// exists, `fresh` itself gets the focus, so that keyboard users keep their position and do not trigger something else;
// this also works if `fresh` is replaced in turn.
export function replaceKeepingFocus(old, fresh) {
  const focused = old.contains(document.activeElement) ? document.activeElement : null;
  const action = focused && actionOf(focused); // before its removal: a checkbox may belong to a form elsewhere
  const number = focused ? withAction(old, focused.localName, action).indexOf(focused) : -1;
  old.replaceWith(fresh);
  if (!focused) return;
  const target = withAction(fresh, focused.localName, action)[number] ?? fresh;
  if (target === fresh) fresh.tabIndex = -1;
  target.focus();
}

// Returns all elements with this tag name in `part` that have the same action.
function withAction(part, name, action) {
  return [...part.querySelectorAll(name)].filter((one) => actionOf(one) === action);
}

function actionOf(one) {
  const item = one.closest("[data-item]")?.dataset.item.split(" ")[0]; // the rest is the item's state, which may differ
  const url = one.href ?? one.getAttribute("formaction") ?? one.form?.action;
  return [item, url, one.getAttribute("name"), one.getAttribute("value")].join(" ");
}
