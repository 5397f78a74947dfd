// Keeps the operators' pages true: bars move as events come; all else is read anew from the server, at most every
// few seconds however much happens, so that words and figures have one source.

import { replace } from "./replace.js";
import { dispatch, follow } from "./stream.js";

const REFRESH_AFTER = 1000; // milliseconds from an event that changes more than a bar
const TRY_AGAIN_AFTER = 3000; // from a reading that failed: nobody would tell of that event a second time
const CHARTS_AFTER = 30_000; // from one reading of the charts to the next: they change slowly, and cost more
const ASK_WORKERS_EVERY = 10_000;
const chosen = document.getElementById("chosen");
let refreshing; // a timer, or true while the answer is on its way
let refreshAgain = false;
let chartsReadAt = Date.now();

function receive(event) {
  const { name, subject, timestamp, data } = event;
  dispatch(event);
  if (name !== "task") return;
  const shown = document.querySelector(`[data-job="${CSS.escape(subject)}"]`);
  if (document.getElementById("job") && !shown) return; // the page of another job
  const same = shown?.dataset.state === data.state && Number(shown.dataset.position) === data.position;
  if (data.state !== "PROGRESS" || !data.progress || (shown && !same)) refreshSoon();
  else if (shown && Number(shown.dataset.at) < timestamp) move(shown, data.progress, timestamp);
}

function move(shown, progress, timestamp) {
  shown.dataset.at = timestamp;
  const bar = shown.querySelector(".job-bar");
  if (!bar) return;
  bar.value = progress.percent;
  bar.setAttribute("aria-valuenow", progress.percent);
  shown.querySelector(".job-message").textContent = progress.message;
}

// A reading that fails is repeated here.
function ask() {
  refreshSoon();
  return true;
}

function refreshSoon() {
  if (refreshing === true) refreshAgain = true;
  else refreshing ??= setTimeout(refresh, REFRESH_AFTER);
}

async function refresh() {
  refreshing = true;
  const address = new URL(location.href);
  const withCharts = Date.now() - chartsReadAt > CHARTS_AFTER;
  if (withCharts) chartsReadAt = Date.now();
  else address.searchParams.set("part", "list");
  const done = await read(address, document.querySelectorAll(`[data-live]${withCharts ? "" : ":not([data-slow])"}`));
  refreshing = done ? undefined : setTimeout(refresh, TRY_AGAIN_AFTER);
  if (done && refreshAgain) {
    refreshAgain = false;
    refreshSoon();
  }
}

// Puts what the server has at `address` in the place of each of `parts`, found by its id; returns whether it answered.
async function read(address, parts) {
  try {
    const response = await fetch(address, { headers: { Accept: "text/html" } });
    if (response.redirected) leave(); // to the sign-in page
    else if (response.ok) {
      const page = new DOMParser().parseFromString(await response.text(), "text/html");
      parts.forEach((part) => page.getElementById(part.id) && showInstead(part, page.getElementById(part.id)));
    }
    return response.status < 500;
  } catch {
    return false;
  }
}

function showInstead(old, fresh) {
  const part = document.importNode(fresh, true);
  keepOpen(old, part);
  keepChosen(old, part);
  replace(old, part);
  part.dispatchEvent(new CustomEvent("content-added", { bubbles: true }));
  countChosen();
}

function keepOpen(old, part) {
  const fresh = [...part.querySelectorAll("details")];
  [...old.querySelectorAll("details")].forEach((one, n) => {
    if (fresh[n]) fresh[n].open = one.open;
  });
}

function keepChosen(old, part) {
  for (const box of old.querySelectorAll('input[name="job"]:checked')) {
    const same = part.querySelector(`input[value="${CSS.escape(box.value)}"]`);
    if (same) same.checked = true;
  }
}

function boxes() {
  return [...document.querySelectorAll('input[name="job"]')];
}

function countChosen() {
  if (!chosen) return;
  const number = boxes().filter((box) => box.checked).length;
  const count = document.getElementById("chosen-count");
  count.textContent = count.dataset.template.replace("{n}", number.toLocaleString(document.documentElement.lang));
  chosen.querySelectorAll("button[type=submit]").forEach((button) => (button.disabled = number === 0));
  const all = document.getElementById("choose-all");
  all.dataset.all ??= all.textContent;
  all.hidden = boxes().length === 0;
  all.textContent = number ? all.dataset.none : all.dataset.all;
}

function chooseAllOrNone() {
  const none = boxes().some((box) => box.checked);
  boxes().forEach((box) => (box.checked = !none));
  countChosen();
}

// Asking the workers takes as long as the slowest of them: apart from the page, and never twice at once.
async function askWorkers() {
  const section = document.getElementById("system-status");
  if (!document.hidden) await read(section.dataset.fetch, [section]);
  setTimeout(askWorkers, ASK_WORKERS_EVERY);
}

if (chosen) {
  document.addEventListener("change", (event) => event.target.name === "job" && countChosen());
  document.getElementById("choose-all").addEventListener("click", chooseAllOrNone);
  countChosen();
}
if (document.getElementById("system-status")) askWorkers();
const leave = document.querySelector("[data-live]")
  ? follow({ address: () => document.body.dataset.operatorsStream, receive, ask })
  : () => {};
