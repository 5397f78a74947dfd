// Live update of the operators' pages. Events update progress bars in place; everything else is fetched from the
// server, at most every few seconds, so that texts and numbers are rendered in one place.

import { replaceKeepingFocus } from "./replace-keeping-focus.js";
import { dispatch, openStream } from "./event-stream.js";
import { updateBar } from "./progress-bar.js";
import { coalesced, fetchPage } from "./refresh.js";

const REFRESH_AFTER = 1000; // milliseconds after an event that changes more than a bar
const CHARTS_INTERVAL = 30_000; // milliseconds between two requests with charts, which change slowly and cost more
const STATUS_INTERVAL = 10_000;
const selection = document.getElementById("selection");
const refreshSoon = coalesced(refresh, REFRESH_AFTER);
let chartsFetchedAt = Date.now();

function receive(event) {
  const { name, subject, timestamp, data } = event;
  dispatch(event);
  if (name !== "task") return;
  const element = document.querySelector(`[data-job="${CSS.escape(subject)}"]`);
  if (document.getElementById("job") && !element) return; // the page of another job
  const same = element?.dataset.state === data.state && Number(element.dataset.position) === data.position;
  if (data.state !== "PROGRESS" || !data.progress || (element && !same)) refreshSoon();
  else if (element && Number(element.dataset.at) < timestamp) updateBar(element, data.progress, timestamp);
}

// Called by openStream(). It returns true, since refreshSoon() repeats a failed request itself.
function poll() {
  refreshSoon();
  return true;
}

async function refresh() {
  const url = new URL(location.href);
  const withCharts = Date.now() - chartsFetchedAt > CHARTS_INTERVAL;
  if (withCharts) chartsFetchedAt = Date.now();
  else url.searchParams.set("part", "list");
  await load(url, document.querySelectorAll(`[data-live]${withCharts ? "" : ":not([data-slow])"}`));
}

// Fetches the page at `url` and replaces each of `parts` with its element of the same id.
async function load(url, parts) {
  const page = await fetchPage(url, () => stop());
  parts.forEach((part) => page?.getElementById(part.id) && replacePart(part, page.getElementById(part.id)));
}

function replacePart(old, fresh) {
  const part = document.importNode(fresh, true);
  copyOpenState(old, part);
  copySelection(old, part);
  replaceKeepingFocus(old, part);
  part.dispatchEvent(new CustomEvent("content-added", { bubbles: true }));
  updateSelectionCount();
}

function copyOpenState(old, part) {
  const fresh = [...part.querySelectorAll("details")];
  [...old.querySelectorAll("details")].forEach((one, n) => {
    if (fresh[n]) fresh[n].open = one.open;
  });
}

function copySelection(old, part) {
  for (const box of old.querySelectorAll('input[name="job"]:checked')) {
    const same = part.querySelector(`input[value="${CSS.escape(box.value)}"]`);
    if (same) same.checked = true;
  }
}

function boxes() {
  return [...document.querySelectorAll('input[name="job"]')];
}

function updateSelectionCount() {
  if (!selection) return;
  const number = boxes().filter((box) => box.checked).length;
  const count = document.getElementById("selected-count");
  count.textContent = count.dataset.template.replace("{n}", number.toLocaleString(document.documentElement.lang));
  selection.querySelectorAll("button[type=submit]").forEach((button) => (button.disabled = number === 0));
  const all = document.getElementById("select-all");
  all.dataset.all ??= all.textContent;
  all.hidden = boxes().length === 0;
  all.textContent = number ? all.dataset.selectNone : all.dataset.all;
}

function toggleAll() {
  const none = boxes().some((box) => box.checked);
  boxes().forEach((box) => (box.checked = !none));
  updateSelectionCount();
}

// The status includes replies of all workers, which takes as long as the slowest one; so it is fetched separately, and
// the next request is scheduled after the previous one.
async function refreshSystemStatus() {
  const section = document.getElementById("system-status");
  if (!document.hidden) await load(section.dataset.source, [section]).catch(() => {}); // shown by the next request
  setTimeout(refreshSystemStatus, STATUS_INTERVAL);
}

if (selection) {
  document.addEventListener("change", (event) => event.target.name === "job" && updateSelectionCount());
  document.getElementById("select-all").addEventListener("click", toggleAll);
  updateSelectionCount();
}
if (document.getElementById("system-status")) refreshSystemStatus();
const stop = document.querySelector("[data-live]")
  ? openStream({ url: () => document.body.dataset.operatorsStream, receive, poll })
  : () => {};
