// Asks in a dialog whether a post is to be deleted, in the words of the page that asks without this script.

import { send } from "./forms.js";
import { dispatch } from "./stream.js";

const dialog = document.getElementById("post-dialog");

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

async function ask(link) {
  const question = await read(link.href);
  if (!question) return location.assign(link.href);
  const title = question.querySelector("h1");
  title.id = "post-dialog-title";
  dialog.setAttribute("aria-labelledby", title.id);
  dialog.dataset.post = link.closest("[data-post]").dataset.post;
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

async function deletePost(form) {
  try {
    const { status, said } = await send(form);
    if (status !== 200 && status !== 404) return say(said, "danger", form);
    dialog.close();
    dispatch({ name: "post-deleted", subject: dialog.dataset.post, timestamp: Date.now() / 1000, data: {} });
    say(said, status === 200 ? "success" : "info", document.querySelector(".timeline-said"));
  } catch {
    form.submit(); // the browser tells what is wrong
  }
}

// Says it first of all in `place`.
function say(sentence, kind, place) {
  const note = document.createElement("div");
  note.className = `alert alert-${kind}`;
  note.setAttribute("role", "status");
  place?.querySelector(".alert")?.remove();
  place?.prepend(note);
  note.textContent = sentence;
}
