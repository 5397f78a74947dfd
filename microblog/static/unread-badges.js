// Live update of the badges in the navigation. Each event “unread” contains one count and its time. If a count has
// grown, the text of the links is announced to screen readers.

const MAX_SHOWN = 99;
const announcement = document.getElementById("unread-announcement");

document.addEventListener("microblog:unread", ({ detail: { subject, timestamp, data } }) => {
  for (const badge of document.querySelectorAll(`[data-unread="${CSS.escape(subject)}"]`)) {
    if (Number(badge.dataset.at) > timestamp) continue; // out of order: the badge is newer
    const number = badge.querySelector("[data-number]");
    const previous = badge.hidden ? 0 : parseInt(number.textContent);
    badge.dataset.at = timestamp;
    badge.dataset.watch = `unread-${subject}=${data.count}`;
    badge.hidden = data.count === 0;
    number.textContent = data.count > MAX_SHOWN ? `${MAX_SHOWN}+` : data.count;
    if (Math.min(data.count, MAX_SHOWN) > previous) announceUnread();
  }
});

function announceUnread() {
  const links = [...document.querySelectorAll("[data-unread]:not([hidden])")].map((badge) => badge.closest("a"));
  announcement.textContent = links.map((link) => link.textContent.trim()).join(", ");
}
