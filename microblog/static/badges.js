// Keeps the numbers in the navigation true: each event “unread” says one of them, as of its time.

const MOST = 99;

document.addEventListener("microblog:unread", ({ detail: { subject, timestamp, data } }) => {
  for (const badge of document.querySelectorAll(`[data-unread="${CSS.escape(subject)}"]`)) {
    if (Number(badge.dataset.at) > timestamp) continue; // it came late: what is shown is newer
    badge.dataset.at = timestamp;
    badge.hidden = data.count === 0;
    badge.querySelector("[data-number]").textContent = data.count > MOST ? `${MOST}+` : data.count;
  }
});
