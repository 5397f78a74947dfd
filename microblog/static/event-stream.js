// Receives events, from the event stream or by polling if there is none.

const POLL_INTERVAL = 3000; // milliseconds
const REOPEN_AFTER = 2000; // after the stream was interrupted
const RETRY_AFTER = 15000; // after the stream was refused

// Dispatches an event to all scripts of the page, on the document, as “microblog:” + its name.
export function dispatch(event) {
  document.dispatchEvent(new CustomEvent(`microblog:${event.name}`, { detail: event }));
}

// Opens the stream at `url()` while the page is visible, and calls `receive` with each event. Calls `poll` if
// events may have been missed, and every few seconds while no stream is open; `poll` returns, or resolves to, whether
// the server responded. Returns a function that stops all this. The event "watch-changed" on the document reopens the
// stream with a new URL.
export function openStream({ url, receive, poll }) {
  let stream, polling, reopening, retrying;

  function connect() {
    stream?.close();
    clearTimeout(reopening);
    polling ??= setInterval(poll, POLL_INTERVAL);
    if (!("EventSource" in window)) return;
    const opened = new EventSource(url());
    opened.onopen = stopPolling;
    opened.onmessage = (message) => {
      const event = JSON.parse(message.data);
      if (event.name === "resync") pollUntilAnswered();
      else receive(event);
    };
    opened.onerror = () => {
      const refused = opened.readyState === EventSource.CLOSED;
      opened.close(); // it would reconnect with its original URL, which may be outdated
      polling ??= setInterval(poll, POLL_INTERVAL);
      reopening = setTimeout(connect, refused ? RETRY_AFTER : REOPEN_AFTER);
    };
    stream = opened;
  }

  function disconnect() {
    stream?.close();
    stopPolling();
    clearTimeout(reopening);
    clearTimeout(retrying);
  }

  // Repeats a failed request while the stream is open, since the page does not poll then.
  async function pollUntilAnswered() {
    clearTimeout(retrying);
    const current = stream;
    if ((await poll()) || polling || stream !== current || current.readyState === EventSource.CLOSED) return;
    retrying = setTimeout(pollUntilAnswered, POLL_INTERVAL);
  }

  function stopPolling() {
    clearInterval(polling);
    polling = undefined;
  }

  // A browser opens only a few connections to one site, which hidden pages must not use up.
  const update = () => (document.hidden ? disconnect() : connect());

  document.addEventListener("visibilitychange", update);
  document.addEventListener("watch-changed", update);
  addEventListener("pagehide", disconnect);
  addEventListener("pageshow", (event) => event.persisted && location.reload());
  update();

  return () => {
    disconnect();
    document.removeEventListener("visibilitychange", update);
    document.removeEventListener("watch-changed", update);
  };
}
