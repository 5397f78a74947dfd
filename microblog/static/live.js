// Keeps the cards of the user's jobs true.
//
// A step of progress changes a card in place. Everything else replaces the card with the one that the server
// renders, so that words, buttons and languages have one source. It holds the page's only stream: what comes by it is
// dispatched on the document for all other scripts.

import { replace } from "./replace.js";
import { dispatch, follow } from "./stream.js";

const panel = document.getElementById("jobs");
if (panel) keepTrue();

function keepTrue() {
  const TRY_AGAIN_AFTER = 3000; // milliseconds
  const OVERLAP = 5; // seconds: a change that was being written as the page was made carries an earlier time
  const language = document.documentElement.lang || undefined;
  const relative = new Intl.RelativeTimeFormat(language, { numeric: "always", style: "long" });
  const said = document.getElementById("jobs-said");
  const fetching = new Set();
  const fetchAgain = new Set();
  const madeAt = Number(panel.dataset.since);
  let since = madeAt;
  let unanswered; // since when the page has asked in vain: what comes meanwhile is not what it missed

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
    if (!cards.length && timestamp <= madeAt) return; // the page was made without it, knowingly
    const behind = cards.filter((card) => Number(card.dataset.at) < timestamp);
    if (!cards.length || !cards.every((card) => shows(card, data))) {
      fetchCard(subject);
    } else if (data.state === "PROGRESS" && data.progress) {
      behind.forEach((card) => count(card, data.progress, timestamp));
    } else if (behind.length) {
      fetchCard(subject);
    }
  }

  function count(card, progress, timestamp) {
    card.dataset.at = timestamp;
    const bar = card.querySelector(".job-bar");
    if (!bar) return;
    bar.value = progress.percent;
    bar.setAttribute("aria-valuenow", progress.percent);
    card.querySelector(".job-message").textContent = progress.message;
    showTimeLeft(card, progress, timestamp);
  }

  function showTimeLeft(card, { current, total }, timestamp) {
    const left = card.querySelector(".job-left");
    const spent = timestamp - Number(card.dataset.started);
    if (!total || !current || current >= total || !(spent > 1)) {
      left.textContent = "";
      return;
    }
    const seconds = Math.ceil((spent / current) * (total - current));
    left.textContent = left.dataset.template.replace("{when}", inWords(seconds));
  }

  function inWords(seconds) {
    if (seconds < 90) return relative.format(seconds, "second");
    if (seconds < 5400) return relative.format(Math.round(seconds / 60), "minute");
    return relative.format(Math.round(seconds / 3600), "hour");
  }

  async function fetchCard(id) {
    if (fetching.has(id)) {
      fetchAgain.add(id);
      return;
    }
    fetching.add(id);
    try {
      const response = await fetch(panel.dataset.card.replace("TASK-ID", encodeURIComponent(id)), {
        headers: { Accept: "text/html" },
      });
      if (response.redirected) leave(); // to the sign-in page
      else if (response.ok) showCard(id, await response.text());
      else if (response.status >= 500) throw new Error(response.statusText);
    } catch {
      setTimeout(fetchCard, TRY_AGAIN_AFTER, id); // nobody would tell us a second time
    } finally {
      fetching.delete(id);
      if (fetchAgain.delete(id)) fetchCard(id);
    }
  }

  function showCard(id, html) {
    const parsed = new DOMParser().parseFromString(html, "text/html").querySelector("article");
    if (!parsed) return;
    const cards = cardsOf(id);
    // What came by the stream may be ahead of the row that the server rendered.
    const ahead = (card) => shows(card, parsed.dataset) && Number(card.dataset.at) > Number(parsed.dataset.at);
    cards.filter((card) => !ahead(card)).forEach((card) => showInstead(card, document.importNode(parsed, true)));
    if (!cards.length) add(document.importNode(parsed, true));
    document.dispatchEvent(new CustomEvent("content-added"));
    if (said.textContent !== parsed.dataset.said) said.textContent = parsed.dataset.said;
  }

  function add(card) {
    showDue(card);
    (document.querySelector("[data-all-jobs]") ?? panel).prepend(card);
  }

  function showInstead(old, card) {
    showDue(card);
    replace(old, card);
  }

  function showDue(root) {
    root.querySelectorAll(".job-due").forEach((time) => {
      const seconds = Math.max(0, Math.round(Number(time.dataset.due) - Date.now() / 1000));
      time.textContent = inWords(seconds);
    });
  }

  async function ask() {
    unanswered ??= since;
    try {
      const response = await fetch(address(panel.dataset.poll), {
        headers: { Accept: "application/json" },
      });
      if (response.redirected) leave(); // to the sign-in page
      else if (response.ok) (await response.json()).forEach(receive);
      if (response.status >= 500) return false;
      unanswered = undefined;
      return true;
    } catch {
      return false;
    }
  }

  // A page has one stream: what else it shows names itself in data-watch, and is asked for along with the jobs.
  function address(path) {
    const watched = [...document.querySelectorAll("[data-watch]")].map((part) => part.dataset.watch);
    return `${path}?${[`since=${(unanswered ?? since) - OVERLAP}`, ...watched].join("&")}`;
  }

  setInterval(() => showDue(document), 1000);
  showDue(document);
  let leave = () => {};
  // By then all modules of the page have run, and hear of what it missed.
  document.addEventListener("DOMContentLoaded", () => {
    leave = follow({ address: () => address(panel.dataset.stream), receive, ask });
  });
}
