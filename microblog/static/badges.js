// Keeps the numbers in the navigation true: each event “unread” says one of them, as of its time. Where one has grown,
// a screen reader is told what is new, in the words of the links.

const MOST = 99;
const said = document.getElementById("badges-said");

document.addEventListener("microblog:unread", ({ detail: { subject, timestamp, data } }) => {
  for (const badge of document.querySelectorAll(`[data-unread="${CSS.escape(subject)}"]`)) {
    if (Number(badge.dataset.at) > timestamp) continue; // it came late: what is shown is newer
    const number = badge.querySelector("[data-number]");
    const before = badge.hidden ? 0 : parseInt(number.textContent);
    badge.dataset.at = timestamp;
    badge.dataset.watch = `unread-${subject}=${data.count}`;
    badge.hidden = data.count === 0;
    number.textContent = data.count > MOST ? `${MOST}+` : data.count;
    if (Math.min(data.count, MOST) > before) sayWhatIsNew();
  }
});

function sayWhatIsNew() {
  const links = [...document.querySelectorAll("[data-unread]:not([hidden])")].map((badge) => badge.closest("a"));
  said.textContent = links.map((link) => link.textContent.trim()).join(", ");
}
