// Confirms the deletion of a post in a dialog. Its content is the confirmation page that is used without JavaScript.

import { say, send } from "./forms.js";
import { dispatch } from "./stream.js";

const dialog = document.getElementById("post-dialog");
let current; // the post in the dialog: its id, and the candidates for the focus afterwards, in order of preference

document.addEventListener("click", (event) => {
  const link = event.target.closest(".post-delete");
  if (!link || event.button !== 0 || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  openDialog(link);
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
// The browser would return the focus to the link, which may have been removed with its post.
dialog.addEventListener("close", () => current.places.find((target) => target.isConnected)?.focus());

async function openDialog(link) {
  const question = await fetchForm(link.href);
  if (!question) return location.assign(link.href);
  if (dialog.open) return; // another request was faster
  const title = question.querySelector("h1");
  title.id = "post-dialog-title";
  dialog.setAttribute("aria-labelledby", title.id);
  const post = link.closest("[data-post]");
  const beside = [post.nextElementSibling, post.previousElementSibling].filter(Boolean);
  const times = beside.map((other) => other.querySelector(".post-time"));
  const places = [link, ...times, document.getElementById("timeline")];
  current = { id: post.dataset.post, places };
  dialog.replaceChildren(...question.childNodes);
  dialog.showModal();
}

async function fetchForm(address) {
  try {
    const response = await fetch(address, { headers: { Accept: "text/html" } });
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    return document.importNode(page.getElementById("delete-post"), true);
  } catch {
    return null;
  }
}

// The user may close the dialog, and open it for another post, before the response arrives.
async function deletePost(form) {
  if (form.ariaBusy === "true") return; // already submitted
  form.ariaBusy = "true";
  const { id } = current;
  const onPage = document.querySelector(".timeline-said");
  const isOpen = () => dialog.open && dialog.contains(form);
  try {
    const { status, said } = await send(form);
    if (status !== 200 && status !== 404) return say(said, "danger", isOpen() ? form : onPage);
    dispatch({ name: "post-deleted", subject: id, timestamp: Date.now() / 1000, data: {} });
    if (isOpen()) dialog.close();
    say(said, status === 200 ? "success" : "info", onPage);
  } catch {
    if (isOpen()) form.submit(); // the browser shows the error
    else say(onPage?.dataset.failed, "danger", onPage);
  } finally {
    form.ariaBusy = null;
  }
}
