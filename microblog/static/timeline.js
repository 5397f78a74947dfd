// Live update of a page of posts: shows the number of new posts, loads them on request, and removes deleted posts. The
// events come from the page's only stream, which job-cards.js owns.

import { showAlert } from "./forms.js";

const MAX_SHOWN = 100; // the highest number that is shown
const timeline = document.getElementById("timeline");
const button = timeline.querySelector(".new-posts button"); // only on the newest page
const labels = button && JSON.parse(button.dataset.labels);
const plural = new Intl.PluralRules(document.documentElement.lang || undefined);
const waiting = new Set(); // the ids of new posts that are not shown yet
const deleted = new Set(); // the ids of deleted posts, which a pending response may still contain

document.addEventListener("microblog:post", ({ detail: { subject, timestamp } }) => button && add(subject, timestamp));
document.addEventListener("microblog:post-deleted", ({ detail: { subject } }) => removePost(subject));
button?.addEventListener("click", async () => {
  if (button.ariaBusy === "true") return; // the button is not disabled, since it would lose the focus
  button.ariaBusy = "true";
  const announcement = timeline.querySelector(".timeline-alert");
  announcement.replaceChildren();
  if (await showNewest()) scrollToTop();
  else showAlert(announcement.dataset.failed, "danger", announcement);
  button.ariaBusy = null;
});

const articleOf = (id) => timeline.querySelector(`[data-post="${CSS.escape(id)}"]`);

function add(id, timestamp) {
  if (articleOf(id) || isOnOlderPage(id, timestamp)) return; // missed events are sent with some overlap
  waiting.add(id);
  showCount();
}

// Returns whether a post belongs on a page of older posts. Posts are ordered by time, then by id.
function isOnOlderPage(id, timestamp) {
  const last = timeline.querySelector(".pager-older") && [...timeline.querySelectorAll("[data-post]")].pop();
  if (!last) return false;
  const { post, at } = last.dataset;
  return timestamp < Number(at) || (timestamp === Number(at) && Number(id) < Number(post));
}

function showCount() {
  if (!button) return;
  const number = waiting.size;
  const label = number > MAX_SHOWN ? labels.most : (labels[plural.select(number)] ?? labels.other);
  button.textContent = number ? label.replace("{n}", number) : "";
  button.hidden = number === 0;
}

// Fetches the page again and replaces the list only, so that a draft in the form is preserved. Returns whether the
// request succeeded.
async function showNewest() {
  const shown = new Set([...timeline.querySelectorAll("[data-post]")].map((post) => post.dataset.post));
  const requested = [...waiting];
  const fresh = await fetchTimeline(button ? location.pathname : location.href);
  if (!fresh) return false;
  const list = document.importNode(fresh.querySelector(".timeline-list"), true);
  deleted.forEach((id) => list.querySelector(`[data-post="${CSS.escape(id)}"]`)?.remove());
  timeline.querySelector(".timeline-list").replaceWith(list);
  updateWatch();
  requested.forEach((id) => waiting.delete(id));
  for (const post of list.querySelectorAll("[data-post]")) {
    waiting.delete(post.dataset.post);
    post.classList.toggle("post-new", !shown.has(post.dataset.post));
  }
  showCount();
  list.dispatchEvent(new CustomEvent("content-added", { bubbles: true }));
  return true;
}

function scrollToTop() {
  timeline.focus({ preventScroll: true });
  if (timeline.getBoundingClientRect().top < 0) timeline.scrollIntoView();
}

// Fetches the current timeline. Returns null if the request failed, so that the user can try again.
async function fetchTimeline(url) {
  try {
    const response = await fetch(url, { headers: { Accept: "text/html" } });
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    const fresh = page.getElementById("timeline");
    if (response.ok && !fresh) location.reload(); // to the sign-in page
    return response.ok ? fresh : null;
  } catch {
    return null;
  }
}

function removePost(id) {
  deleted.add(id);
  if (waiting.delete(id)) showCount();
  const post = articleOf(id);
  if (!post) return;
  const hadFocus = post.contains(document.activeElement);
  const next = post.nextElementSibling ?? post.previousElementSibling;
  post.remove();
  updateWatch();
  if (timeline.dataset.deleted) showDeleted();
  else if (!next) showNewest();
  // Keep the position of keyboard users.
  if (hadFocus) (next?.querySelector(".post-time") ?? timeline).focus();
}

// Updates the ids of the shown posts in data-watch, so that a removed post is not reported again.
function updateWatch() {
  const watch = new URLSearchParams(timeline.dataset.watch);
  watch.set("shown", [...timeline.querySelectorAll("[data-post]")].map((post) => post.dataset.post).join(","));
  timeline.dataset.watch = watch;
}

function showDeleted() {
  const note = document.createElement("p");
  note.className = "empty";
  note.setAttribute("role", "status");
  timeline.querySelector(".timeline-list").replaceChildren(note);
  note.textContent = timeline.dataset.deleted;
}
