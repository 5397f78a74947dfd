// Submits a form without leaving the page, so that drafts in other forms are preserved.
//
// Returns the status of the response and the sentence for the user in its page ("" if there is none). Rejects if there
// is no response. Reloads the page if the user is no longer signed in, which leads to the sign-in page.
export async function submitForm(form) {
  const body = new URLSearchParams(new FormData(form));
  const response = await fetch(form.action, { method: "POST", body, headers: { Accept: "text/html" } });
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  if (response.redirected && !page.getElementById("jobs")) location.reload();
  return { status: response.status, message: page.querySelector(".alert, .error-message")?.textContent.trim() ?? "" };
}

// Shows `sentence` as an alert at the beginning of `place`. The text is set last, so that screen readers announce it.
export function showAlert(sentence, kind, place) {
  const note = document.createElement("div");
  note.className = `alert alert-${kind}`;
  note.setAttribute("role", "status");
  place?.querySelector(".alert")?.remove();
  place?.prepend(note);
  note.textContent = sentence;
}
