// Sends a form as the browser would, without leaving the page: what is half written elsewhere on it stays.
//
// Returns the status of the answer, and the sentence that its page has for the reader ("" if there is none). Rejects
// if there is no answer. Whoever is no longer signed in is sent to where they can.
export async function send(form) {
  const body = new URLSearchParams(new FormData(form));
  const response = await fetch(form.action, { method: "POST", body, headers: { Accept: "text/html" } });
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  if (response.redirected && !page.getElementById("jobs")) location.reload();
  return { status: response.status, said: page.querySelector(".alert, .error-sentence")?.textContent.trim() ?? "" };
}

// Says it first of all in `place`.
export function say(sentence, kind, place) {
  const note = document.createElement("div");
  note.className = `alert alert-${kind}`;
  note.setAttribute("role", "status");
  place?.querySelector(".alert")?.remove();
  place?.prepend(note);
  note.textContent = sentence;
}
