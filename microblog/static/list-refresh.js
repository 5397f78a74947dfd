// Live update of a list of messages or notifications: the list is fetched again when its badge changes. Nothing else on
// the page changes, so that drafts in forms are preserved. New items are announced to screen readers.

import { coalesced, fetchPage } from "./refresh.js";
import { replaceKeepingFocus } from "./replace-keeping-focus.js";

const badge = document.querySelector("[data-refresh-on]")?.dataset.refreshOn; // only on the newest page
const announcement = document.getElementById("list-announcement");
const showNewest = coalesced(async () => show(await fetchPage(location.pathname)));

document.addEventListener("microblog:unread", ({ detail: { subject } }) => subject === badge && showNewest());

// A list with the same items is not replaced, so that the marks of new items are preserved.
function show(page) {
  const knownKeys = keysOf(document);
  if (!page?.querySelector("[data-refresh-on]") || String(keysOf(page)) === String(knownKeys)) return;
  for (const old of document.querySelectorAll("[data-refresh-on]")) {
    const part = document.importNode(page.getElementById(old.id), true);
    replaceKeepingFocus(old, part);
    part.dispatchEvent(new CustomEvent("content-added", { bubbles: true }));
  }
  announceNewItems(knownKeys);
}

function announceNewItems(knownKeys) {
  const items = [...document.querySelectorAll("[data-item]")];
  const first = items.findIndex((item) => knownKeys.includes(item.dataset.item));
  const sentences = items.slice(0, first < 0 ? undefined : first).map((item) => item.dataset.announcement ?? "");
  if (sentences.some(Boolean)) announcement.textContent = [...new Set(sentences)].join(" ");
}

function keysOf(page) {
  return [...page.querySelectorAll("[data-item]")].map((item) => item.dataset.item);
}
