// Confirms the deletion of a post in a dialog. Its content is the confirmation page that is used without JavaScript.

import { showAlert, submitForm } from "./forms.js";
import { dispatch } from "./event-stream.js";

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
dialog.addEventListener("close", () => current.focusTargets.find((target) => target.isConnected)?.focus());

async function openDialog(link) {
  const confirmation = await fetchForm(link.href);
  if (!confirmation) return location.assign(link.href);
  if (dialog.open) return; // another request was faster
  const title = confirmation.querySelector("h1");
  title.id = "post-dialog-title";
  dialog.setAttribute("aria-labelledby", title.id);
  const post = link.closest("[data-post]");
  const neighbours = [post.nextElementSibling, post.previousElementSibling].filter(Boolean);
  const times = neighbours.map((other) => other.querySelector(".post-time"));
  const focusTargets = [link, ...times, document.getElementById("timeline")];
  current = { id: post.dataset.post, focusTargets };
  dialog.replaceChildren(...confirmation.childNodes);
  dialog.showModal();
}

async function fetchForm(url) {
  try {
    const response = await fetch(url, { headers: { Accept: "text/html" } });
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
  const timelineAlert = document.querySelector(".timeline-alert");
  const isOpen = () => dialog.open && dialog.contains(form);
  try {
    const { status, message } = await submitForm(form);
    if (status !== 200 && status !== 404) return showAlert(message, "danger", isOpen() ? form : timelineAlert);
    dispatch({ name: "post-deleted", subject: id, timestamp: Date.now() / 1000, data: {} });
    if (isOpen()) dialog.close();
    showAlert(message, status === 200 ? "success" : "info", timelineAlert);
  } catch {
    if (isOpen()) form.submit(); // the browser shows the error
    else showAlert(timelineAlert?.dataset.failed, "danger", timelineAlert);
  } finally {
    form.ariaBusy = null;
  }
}
