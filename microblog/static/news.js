// Keeps a list of messages or notifications true: it is read anew when the badge that counts them is told of. Nothing
// else on the page changes: what is being written in a form stays there. What is new is said to a screen reader.

import { replace } from "./replace.js";

const TRY_AGAIN_AFTER = 3000; // milliseconds
const badge = document.querySelector("[data-news]")?.dataset.news; // only on the newest page
const said = document.getElementById("news-said");
let reading = false;
let readAgain = false;

document.addEventListener("microblog:unread", ({ detail: { subject } }) => subject === badge && showNewest());

async function showNewest() {
  if (reading) {
    readAgain = true;
    return;
  }
  reading = true;
  try {
    const response = await fetch(location.pathname, { headers: { Accept: "text/html" } });
    if (response.status >= 500) throw new Error(response.statusText);
    if (response.ok) show(new DOMParser().parseFromString(await response.text(), "text/html"));
  } catch {
    setTimeout(showNewest, TRY_AGAIN_AFTER); // nobody would tell us a second time
  } finally {
    reading = false;
    if (readAgain) {
      readAgain = false;
      showNewest();
    }
  }
}

// A list whose items are those that are shown stays as it is, with what is marked as new in it.
function show(page) {
  const known = keysOf(document);
  if (!page.querySelector("[data-news]") || String(keysOf(page)) === String(known)) return;
  for (const old of document.querySelectorAll("[data-news]")) {
    const part = document.importNode(page.getElementById(old.id), true);
    replace(old, part);
    part.dispatchEvent(new CustomEvent("content-added", { bubbles: true }));
  }
  sayWhatIsAbove(known);
}

function sayWhatIsAbove(known) {
  const items = [...document.querySelectorAll("[data-item]")];
  const first = items.findIndex((item) => known.includes(item.dataset.item));
  const sentences = items.slice(0, first < 0 ? undefined : first).map((item) => item.dataset.said ?? "");
  if (sentences.some(Boolean)) said.textContent = [...new Set(sentences)].join(" ");
}

function keysOf(page) {
  return [...page.querySelectorAll("[data-item]")].map((item) => item.dataset.item);
}
