// A form with data-once is sent once, however often it is clicked. Its button stays as it is, with its value and the
// focus; a page that is shown again, as by the way back, may send it again.
const sent = new Set();

document.addEventListener("submit", (event) => {
  if (event.defaultPrevented || !("once" in event.target.dataset)) return;
  if (sent.has(event.target)) event.preventDefault();
  sent.add(event.target);
});
window.addEventListener("pageshow", ({ persisted }) => persisted && sent.clear());
