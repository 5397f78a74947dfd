// Keeps a page of posts true: tells how many new ones there are, shows them when the reader wants them, and takes away
// what its author deleted. The events come by the page's one stream, which live.js holds.

import { say } from "./forms.js";

const MOST = 100; // new posts that are counted one by one
const timeline = document.getElementById("timeline");
const button = timeline.querySelector(".new-posts button"); // only on the newest page
const labels = button && JSON.parse(button.dataset.labels);
const plural = new Intl.PluralRules(document.documentElement.lang || undefined);
const waiting = new Set(); // the ids of new posts that are not shown yet
const gone = new Set(); // of those that were deleted: an answer that was on its way then may still have them

document.addEventListener("microblog:post", ({ detail: { subject, timestamp } }) => button && count(subject, timestamp));
document.addEventListener("microblog:post-deleted", ({ detail: { subject } }) => takeAway(subject));
button?.addEventListener("click", async () => {
  if (button.ariaBusy === "true") return; // not disabled meanwhile: it would lose the focus
  button.ariaBusy = "true";
  const said = timeline.querySelector(".timeline-said");
  said.replaceChildren();
  if (await showNewest()) goToTop();
  else say(said.dataset.failed, "danger", said);
  button.ariaBusy = null;
});

const articleOf = (id) => timeline.querySelector(`[data-post="${CSS.escape(id)}"]`);

function count(id, timestamp) {
  if (articleOf(id) || isFurtherOn(id, timestamp)) return; // what was missed is told with some overlap
  waiting.add(id);
  showCount();
}

// Whether a post is on a page of older ones: posts are in the order of their times, then of their ids.
function isFurtherOn(id, timestamp) {
  const last = timeline.querySelector(".pager-older") && [...timeline.querySelectorAll("[data-post]")].pop();
  if (!last) return false;
  const { post, at } = last.dataset;
  return timestamp < Number(at) || (timestamp === Number(at) && Number(id) < Number(post));
}

function showCount() {
  if (!button) return;
  const number = waiting.size;
  const label = number > MOST ? labels.most : (labels[plural.select(number)] ?? labels.other);
  button.textContent = number ? label.replace("{n}", number) : "";
  button.hidden = number === 0;
}

// Reads the page anew; returns whether it was answered. Only its list changes: a post that is being written stays in
// its form.
async function showNewest() {
  const known = new Set([...timeline.querySelectorAll("[data-post]")].map((post) => post.dataset.post));
  const asked = [...waiting];
  const fresh = await read(button ? location.pathname : location.href);
  if (!fresh) return false;
  const list = document.importNode(fresh.querySelector(".timeline-page"), true);
  gone.forEach((id) => list.querySelector(`[data-post="${CSS.escape(id)}"]`)?.remove());
  timeline.querySelector(".timeline-page").replaceWith(list);
  askForTheRest();
  asked.forEach((id) => waiting.delete(id));
  for (const post of list.querySelectorAll("[data-post]")) {
    waiting.delete(post.dataset.post);
    post.classList.toggle("post-new", !known.has(post.dataset.post));
  }
  showCount();
  list.dispatchEvent(new CustomEvent("content-added", { bubbles: true }));
  return true;
}

function goToTop() {
  timeline.focus({ preventScroll: true });
  if (timeline.getBoundingClientRect().top < 0) timeline.scrollIntoView();
}

// The timeline as the server has it now; null if it does not answer, so that the reader can try again.
async function read(address) {
  try {
    const response = await fetch(address, { headers: { Accept: "text/html" } });
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    const fresh = page.getElementById("timeline");
    if (response.ok && !fresh) location.reload(); // to the sign-in page
    return response.ok ? fresh : null;
  } catch {
    return null;
  }
}

function takeAway(id) {
  gone.add(id);
  if (waiting.delete(id)) showCount();
  const post = articleOf(id);
  if (!post) return;
  const held = post.contains(document.activeElement);
  const next = post.nextElementSibling ?? post.previousElementSibling;
  post.remove();
  askForTheRest();
  if (timeline.dataset.gone) sayGone();
  else if (!next) showNewest();
  // A keyboard does not lose its place.
  if (held) (next?.querySelector(".post-time") ?? timeline).focus();
}

// Whoever asks for what was missed need not hear of that post again.
function askForTheRest() {
  const watch = new URLSearchParams(timeline.dataset.watch);
  watch.set("shown", [...timeline.querySelectorAll("[data-post]")].map((post) => post.dataset.post).join(","));
  timeline.dataset.watch = watch;
}

function sayGone() {
  const note = document.createElement("p");
  note.className = "empty";
  note.setAttribute("role", "status");
  timeline.querySelector(".timeline-page").replaceChildren(note);
  note.textContent = timeline.dataset.gone;
}
