// Live update of the cards of the user's jobs.
//
// Progress updates a card in place. Any other change replaces the card with one rendered by the server, so that texts
// and buttons are rendered in one place. This module owns the page's only event stream, and dispatches its events on
// the document for all other scripts.

import { replaceKeepingFocus } from "./replace-keeping-focus.js";
import { dispatch, openStream } from "./event-stream.js";
import { updateBar } from "./progress-bar.js";
import { coalesced, fetchPage } from "./refresh.js";

const panel = document.getElementById("jobs");
if (panel) start();

function start() {
  const OVERLAP = 5; // seconds; a change committed while the page was rendered has an earlier time
  const language = document.documentElement.lang || undefined;
  const relative = new Intl.RelativeTimeFormat(language, { numeric: "always", style: "long" });
  const announcement = document.getElementById("jobs-announcement");
  const fetches = new Map(); // by job id
  const renderedAt = Number(panel.dataset.since);
  let since = renderedAt;
  let failedSince; // `since` of the first failed poll; later events do not replace the missed ones

  const cardsOf = (id) => [...document.querySelectorAll(`[data-job="${CSS.escape(id)}"]`)];
  const shows = (card, { state, position }) =>
    card.dataset.state === state && Number(card.dataset.position) === Number(position);

  function receive(event) {
    since = Math.max(since, event.timestamp);
    if (event.name === "task") showTask(event);
    dispatch(event);
  }

  function showTask({ subject, timestamp, data }) {
    const cards = cardsOf(subject);
    if (!cards.length && timestamp <= renderedAt) return; // the page was rendered later, without this job
    const outdated = cards.filter((card) => Number(card.dataset.at) < timestamp);
    if (!cards.length || !cards.every((card) => shows(card, data))) {
      fetchCard(subject);
    } else if (data.state === "PROGRESS" && data.progress) {
      const updated = outdated.filter((card) => updateBar(card, data.progress, timestamp));
      updated.forEach((card) => showTimeLeft(card, data.progress, timestamp));
    } else if (outdated.length) {
      fetchCard(subject);
    }
  }

  function showTimeLeft(card, { current, total }, timestamp) {
    const timeLeft = card.querySelector(".job-time-left");
    const spent = timestamp - Number(card.dataset.started);
    if (!total || !current || current >= total || !(spent > 1)) {
      timeLeft.textContent = "";
      return;
    }
    const seconds = Math.ceil((spent / current) * (total - current));
    timeLeft.textContent = timeLeft.dataset.template.replace("{when}", formatRelative(seconds));
  }

  function formatRelative(seconds) {
    if (seconds < 90) return relative.format(seconds, "second");
    if (seconds < 5400) return relative.format(Math.round(seconds / 60), "minute");
    return relative.format(Math.round(seconds / 3600), "hour");
  }

  function fetchCard(id) {
    const url = panel.dataset.card.replace("TASK-ID", encodeURIComponent(id));
    const load = async () => showCard(id, await fetchPage(url, () => stop()));
    if (!fetches.has(id)) fetches.set(id, coalesced(load));
    fetches.get(id)();
  }

  function showCard(id, page) {
    const parsed = page?.querySelector("article");
    if (!parsed) return;
    const cards = cardsOf(id);
    // An event may be newer than the row that the server rendered.
    const isNewer = (card) => shows(card, parsed.dataset) && Number(card.dataset.at) > Number(parsed.dataset.at);
    cards.filter((card) => !isNewer(card)).forEach((card) => replaceCard(card, document.importNode(parsed, true)));
    if (!cards.length) addCard(document.importNode(parsed, true));
    document.dispatchEvent(new CustomEvent("content-added"));
    const { announcement: sentence } = parsed.dataset;
    if (announcement.textContent !== sentence) announcement.textContent = sentence;
  }

  function addCard(card) {
    showDue(card);
    (document.querySelector("[data-job-list]") ?? panel).prepend(card);
  }

  function replaceCard(old, card) {
    showDue(card);
    replaceKeepingFocus(old, card);
  }

  function showDue(root) {
    root.querySelectorAll(".job-eta").forEach((time) => {
      const seconds = Math.max(0, Math.round(Number(time.dataset.eta) - Date.now() / 1000));
      time.textContent = formatRelative(seconds);
    });
  }

  async function poll() {
    failedSince ??= since;
    try {
      const response = await fetch(url(panel.dataset.poll), {
        headers: { Accept: "application/json" },
      });
      if (response.redirected) stop(); // to the sign-in page
      else if (response.ok) (await response.json()).forEach(receive);
      if (response.status >= 500) return false;
      failedSince = undefined;
      return true;
    } catch {
      return false;
    }
  }

  // A page has one stream. Other parts of the page add their query parameters in data-watch.
  function url(path) {
    const watched = [...document.querySelectorAll("[data-watch]")].map((part) => part.dataset.watch);
    return `${path}?${[`since=${(failedSince ?? since) - OVERLAP}`, ...watched].join("&")}`;
  }

  setInterval(() => showDue(document), 1000);
  showDue(document);
  let stop = () => {};
  // By then all modules of the page have run and receive the missed events.
  document.addEventListener("DOMContentLoaded", () => {
    stop = openStream({ url: () => url(panel.dataset.stream), receive, poll });
  });
}
