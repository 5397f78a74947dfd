// Asks in a dialog whether a post is to be deleted, in the words of the page that asks without this script.

import { say, send } from "./forms.js";
import { dispatch } from "./stream.js";

const dialog = document.getElementById("post-dialog");
let asked; // the post in question: its id, and where the focus goes from the dialog, the best place first

document.addEventListener("click", (event) => {
  const link = event.target.closest(".post-delete");
  if (!link || event.button !== 0 || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  ask(link);
});
dialog.addEventListener("click", (event) => {
  if (event.target !== dialog && !event.target.closest("[data-close]")) return;
  event.preventDefault();
  dialog.close();
});
dialog.addEventListener("submit", (event) => {
  event.preventDefault();
  deletePost(event.target);
});
// The browser gives the focus back to the link, which may be gone with its post by then.
dialog.addEventListener("close", () => asked.places.find((place) => place.isConnected)?.focus());

async function ask(link) {
  const question = await read(link.href);
  if (!question) return location.assign(link.href);
  if (dialog.open) return; // another was asked for, and came first
  const title = question.querySelector("h1");
  title.id = "post-dialog-title";
  dialog.setAttribute("aria-labelledby", title.id);
  const post = link.closest("[data-post]");
  const beside = [post.nextElementSibling, post.previousElementSibling].filter(Boolean);
  const times = beside.map((other) => other.querySelector(".post-time"));
  const places = [link, ...times, document.getElementById("timeline")];
  asked = { id: post.dataset.post, places };
  dialog.replaceChildren(...question.childNodes);
  dialog.showModal();
}

async function read(address) {
  try {
    const response = await fetch(address, { headers: { Accept: "text/html" } });
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    return document.importNode(page.getElementById("delete-post"), true);
  } catch {
    return null;
  }
}

// The reader may have closed the dialog, and asked for another post, before the answer is here.
async function deletePost(form) {
  if (form.ariaBusy === "true") return; // sent already
  form.ariaBusy = "true";
  const { id } = asked;
  const onPage = document.querySelector(".timeline-said");
  const isOpen = () => dialog.open && dialog.contains(form);
  try {
    const { status, said } = await send(form);
    if (status !== 200 && status !== 404) return say(said, "danger", isOpen() ? form : onPage);
    dispatch({ name: "post-deleted", subject: id, timestamp: Date.now() / 1000, data: {} });
    if (isOpen()) dialog.close();
    say(said, status === 200 ? "success" : "info", onPage);
  } catch {
    if (isOpen()) form.submit(); // the browser tells what is wrong
    else say(onPage?.dataset.failed, "danger", onPage);
  } finally {
    form.ariaBusy = null;
  }
}
