// The card of a user, which opens where their name is hovered or focused for a moment.
//
// It is a popover right behind the name, so that the Tab key leads into it; the browser closes it at Escape and at a
// click elsewhere. It stays open while the pointer or the focus is on the name or on the card. A finger opens none:
// it follows the link.

import { send } from "./forms.js";

const OPEN_AFTER = 350; // milliseconds that the pointer or the focus has to stay
const CLOSE_AFTER = 250; // milliseconds to get from the name to its card
const EDGE = 8; // CSS pixels between the card and the edge of the window
const GAP = 4; // CSS pixels between the name and its card

const card = document.createElement("div");
let link; // the name whose card is open, or will be in a moment
let closed; // the name whose card was closed by Escape: it stays closed until the reader has been elsewhere
let timer;
let reading;
let sending = false;

if ("popover" in HTMLElement.prototype) {
  card.className = "user-card";
  card.popover = "auto";
  card.addEventListener("submit", follow);
  document.addEventListener("pointerover", (event) => event.pointerType !== "touch" && attend(event.target));
  document.documentElement.addEventListener("pointerleave", () => attend(null));
  document.addEventListener("focusin", (event) => event.target.matches(":focus-visible") && attend(event.target));
  document.addEventListener("focusout", (event) => !event.relatedTarget && attend(null));
  document.addEventListener("keydown", (event) => event.key === "Escape" && dismiss());
}

// The reader's pointer or focus has come to `element`.
function attend(element) {
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
  reading?.abort();
  closed = link;
  link = undefined;
}

function close() {
  const held = (part) => part?.matches(":hover, :focus-visible") || part?.querySelector(":focus-visible");
  if (isOpen() && (held(card) || held(link))) return;
  reading?.abort();
  link = undefined;
  if (isOpen()) card.hidePopover();
}

async function open(name) {
  link = name;
  const body = await read(name.dataset.card);
  if (!body || link !== name || !name.isConnected) return;
  if (isOpen()) card.hidePopover();
  card.replaceChildren(body);
  name.after(card);
  card.showPopover();
  card.dispatchEvent(new CustomEvent("content-added", { bubbles: true }));
  place(name);
}

// The card as the server has it; null if there is none, or it is no longer wanted.
async function read(address) {
  reading?.abort();
  reading = new AbortController();
  try {
    const response = await fetch(address, { headers: { Accept: "text/html" }, signal: reading.signal });
    if (!response.ok || response.redirected) return null;
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    return document.importNode(page.querySelector("article"), true);
  } catch {
    return null; // the name is still a link
  }
}

// Below the name, or above it where there is more room; it moves with the page.
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

// Follow, or no longer: the card stays, and says what became of it.
async function follow(event) {
  event.preventDefault();
  if (sending) return; // not a disabled button, which would lose the focus, and with it the card
  sending = true;
  try {
    const { said } = await send(event.target);
    document.dispatchEvent(new Event("watch-changed")); // the home page hears of whom its reader follows
    const body = link && (await read(link.dataset.card));
    if (!body) return;
    card.replaceChildren(body);
    card.dispatchEvent(new CustomEvent("content-added", { bubbles: true }));
    card.querySelector("button")?.focus();
    card.querySelector("[role=status]").textContent = said;
  } catch {
    event.target.submit(); // the browser tells what is wrong
  } finally {
    sending = false;
  }
}
