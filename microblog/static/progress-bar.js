// Updates the progress bar and the message in the card or row of a job. Returns whether it has a bar.
export function updateBar(element, progress, timestamp) {
  element.dataset.at = timestamp;
  const bar = element.querySelector(".job-bar");
  if (!bar) return false;
  bar.value = progress.percent;
  bar.setAttribute("aria-valuenow", progress.percent);
  element.querySelector(".job-message").textContent = progress.message;
  return true;
}
