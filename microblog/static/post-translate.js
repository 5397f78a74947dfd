// Replaces a post with its translation, and back. Without JavaScript, the same button leads to a page with both.

document.addEventListener("submit", (event) => {
  const form = event.target.closest(".post-translate");
  if (!form) return;
  event.preventDefault();
  const post = partsOf(form);
  if (!post.body.hidden && !post.translation.textContent) fetchTranslation(post);
  else show(post, !post.body.hidden);
});

function partsOf(form) {
  const text = form.parentElement;
  const button = form.querySelector("button");
  button.dataset.translate ??= button.textContent;
  return {
    form,
    button,
    status: form.querySelector(".post-translate-status"),
    body: text.querySelector(".post-body"),
    translation: text.querySelector(".post-translation"),
  };
}

async function fetchTranslation(post) {
  if (post.form.getAttribute("aria-busy") === "true") return; // not disabled, since it would lose the focus
  post.form.setAttribute("aria-busy", "true");
  post.status.textContent = "";
  try {
    const response = await fetch(post.form.action, { method: "POST", body: new FormData(post.form) });
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    const result = page.querySelector("main .post-translation");
    const sentence = page.querySelector(".error-message");
    if (response.ok && result?.textContent) {
      post.translation.lang = result.lang;
      post.translation.textContent = result.textContent;
      show(post, true);
    } else if (response.ok) {
      location.assign(response.url); // the sign-in page
    } else {
      post.status.textContent = sentence?.textContent ?? post.form.dataset.failed;
    }
  } catch {
    post.status.textContent = post.form.dataset.failed;
  } finally {
    post.form.removeAttribute("aria-busy");
  }
}

function show(post, translated) {
  post.body.hidden = translated;
  post.translation.hidden = !translated;
  post.button.textContent = translated ? post.form.dataset.original : post.button.dataset.translate;
}
