// The card of a user, which opens when the user's name is hovered or focused for a short time.
//
// It is a popover directly after the name in the document, so that the Tab key leads into it. The browser closes it on
// Escape and on a click elsewhere. It stays open while the pointer or the focus is on the name or the card. Touch does
// not open it, but follows the link.

import { submitForm } from "./forms.js";

const OPEN_AFTER = 350; // milliseconds that the pointer or the focus has to stay
const CLOSE_AFTER = 250; // milliseconds to get from the name to its card
const EDGE = 8; // CSS pixels between the card and the edge of the window
const GAP = 4; // CSS pixels between the name and its card

const card = document.createElement("div");
let link; // the name whose card is open or about to open
let closed; // the name whose card was closed by Escape; it stays closed until the pointer or the focus has left
let timer;
let request;
let sending = false;

if ("popover" in HTMLElement.prototype) {
  card.className = "user-card";
  card.popover = "auto";
  card.addEventListener("submit", follow);
  document.addEventListener("pointerover", (event) => event.pointerType !== "touch" && moveTo(event.target));
  document.documentElement.addEventListener("pointerleave", () => moveTo(null));
  document.addEventListener("focusin", (event) => event.target.matches(":focus-visible") && moveTo(event.target));
  document.addEventListener("focusout", (event) => !event.relatedTarget && moveTo(null));
  document.addEventListener("keydown", (event) => event.key === "Escape" && dismiss());
}

// The pointer or the focus has moved to `element`.
function moveTo(element) {
  if (element && card.contains(element)) {
    clearTimeout(timer);
    return;
  }
  const name = element?.closest("[data-card]");
  if (closed && name !== closed) closed = undefined;
  if (name && name === closed) return;
  if (name && name === link) {
    if (isOpen()) clearTimeout(timer);
    return;
  }
  clearTimeout(timer);
  if (name) timer = setTimeout(open, OPEN_AFTER, name);
  else timer = setTimeout(close, CLOSE_AFTER);
  if (!isOpen()) link = name ?? undefined;
}

function dismiss() {
  clearTimeout(timer);
  request?.abort();
  closed = link;
  link = undefined;
}

function close() {
  const isActive = (part) => part?.matches(":hover, :focus-visible") || part?.querySelector(":focus-visible");
  if (isOpen() && (isActive(card) || isActive(link))) return;
  request?.abort();
  link = undefined;
  if (isOpen()) card.hidePopover();
}

async function open(name) {
  link = name;
  const body = await fetchCard(name.dataset.card);
  if (!body || link !== name || !name.isConnected) return;
  if (isOpen()) card.hidePopover();
  card.replaceChildren(body);
  name.after(card);
  card.showPopover();
  card.dispatchEvent(new CustomEvent("content-added", { bubbles: true }));
  place(name);
}

// Fetches the card. Returns null if there is none, or if the request was aborted.
async function fetchCard(url) {
  request?.abort();
  request = new AbortController();
  try {
    const response = await fetch(url, { headers: { Accept: "text/html" }, signal: request.signal });
    if (!response.ok || response.redirected) return null;
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    return document.importNode(page.querySelector("article"), true);
  } catch {
    return null; // the name is still a link
  }
}

// Positions the card below the name, or above if it does not fit; it scrolls with the page.
function place(name) {
  const { left, top, bottom } = name.getBoundingClientRect();
  const rightmost = document.documentElement.clientWidth - card.offsetWidth - EDGE;
  const below = bottom + GAP;
  const above = top - GAP - card.offsetHeight;
  const fits = below + card.offsetHeight <= innerHeight || above < 0;
  card.style.left = `${Math.max(EDGE, Math.min(left, rightmost)) + scrollX}px`;
  card.style.top = `${(fits ? below : above) + scrollY}px`;
}

function isOpen() {
  return card.matches(":popover-open");
}

// Follows or unfollows the user. The card stays open and shows the result.
async function follow(event) {
  event.preventDefault();
  if (sending) return; // a disabled button would lose the focus, which would close the card
  sending = true;
  try {
    const { message } = await submitForm(event.target);
    document.dispatchEvent(new Event("watch-changed")); // the home page receives the posts of followed users
    const body = link && (await fetchCard(link.dataset.card));
    if (!body) return;
    card.replaceChildren(body);
    card.dispatchEvent(new CustomEvent("content-added", { bubbles: true }));
    card.querySelector("button")?.focus();
    card.querySelector("[role=status]").textContent = message;
  } catch {
    event.target.submit(); // the browser shows the error
  } finally {
    sending = false;
  }
}
