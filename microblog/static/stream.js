// Keeps a page told of what happens: by its event stream, or by asking where there is none.

const ASK_EVERY = 3000; // milliseconds
const REOPEN_AFTER = 15000;

// Lets every script of the page hear of an event: those that care listen on the document for “microblog:” + its name.
export function dispatch(event) {
  document.dispatchEvent(new CustomEvent(`microblog:${event.name}`, { detail: event }));
}

// Opens the stream at `address()` for as long as the page is seen, and gives each event to `receive`. Calls `ask`
// where events may have been missed, and every few seconds while no stream is open. Returns what ends all that. Whoever
// changes what the page is to hear of dispatches "watch-changed" on the document: then the stream is opened anew.
export function follow({ address, receive, ask }) {
  let stream, asking, reopening;

  function listen() {
    hangUp();
    asking = setInterval(ask, ASK_EVERY);
    if (!("EventSource" in window)) return;
    const opened = new EventSource(address());
    opened.onopen = stopAsking;
    opened.onmessage = (message) => {
      const event = JSON.parse(message.data);
      if (event.name === "resync") ask();
      else receive(event);
    };
    opened.onerror = () => {
      asking ??= setInterval(ask, ASK_EVERY);
      // A stream that was cut comes back by itself, with Last-Event-ID; one that was refused does not.
      if (opened.readyState === EventSource.CLOSED) reopening = setTimeout(listen, REOPEN_AFTER);
    };
    stream = opened;
  }

  function hangUp() {
    stream?.close();
    stopAsking();
    clearTimeout(reopening);
  }

  function stopAsking() {
    clearInterval(asking);
    asking = undefined;
  }

  // A browser opens only a handful of connections to one site: pages that nobody sees must not use them up.
  const attend = () => (document.hidden ? hangUp() : listen());

  document.addEventListener("visibilitychange", attend);
  document.addEventListener("watch-changed", attend);
  addEventListener("pagehide", hangUp);
  addEventListener("pageshow", (event) => event.persisted && location.reload());
  attend();

  return () => {
    hangUp();
    document.removeEventListener("visibilitychange", attend);
    document.removeEventListener("watch-changed", attend);
  };
}
