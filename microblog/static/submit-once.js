// Submits a form with data-submit-once only once, however often it is clicked. The button is not disabled, so that its
// value is sent and it keeps the focus. If the page is restored from the back/forward cache, the form can be submitted
// again.
const submitted = new Set();

document.addEventListener("submit", (event) => {
  if (event.defaultPrevented || !("submitOnce" in event.target.dataset)) return;
  if (submitted.has(event.target)) event.preventDefault();
  submitted.add(event.target);
});
window.addEventListener("pageshow", ({ persisted }) => persisted && submitted.clear());
