// Keeps a page told of what happens: by its event stream, or by asking where there is none.

const ASK_EVERY = 3000; // milliseconds
const REOPEN_AFTER = 2000; // where the stream was cut
const TRY_AGAIN_AFTER = 15000; // where it was refused

// Lets every script of the page hear of an event: those that care listen on the document for “microblog:” + its name.
export function dispatch(event) {
  document.dispatchEvent(new CustomEvent(`microblog:${event.name}`, { detail: event }));
}

// Opens the stream at `address()` for as long as the page is seen, and gives each event to `receive`. Calls `ask`
// where events may have been missed, and every few seconds while no stream is open; it tells (or promises to) whether
// it was answered. Returns what ends all that. Whoever changes what the page is to hear of dispatches "watch-changed"
// on the document: then the stream is opened anew.
export function follow({ address, receive, ask }) {
  let stream, asking, reopening, askingAgain;

  function listen() {
    stream?.close();
    clearTimeout(reopening);
    asking ??= setInterval(ask, ASK_EVERY);
    if (!("EventSource" in window)) return;
    const opened = new EventSource(address());
    opened.onopen = stopAsking;
    opened.onmessage = (message) => {
      const event = JSON.parse(message.data);
      if (event.name === "resync") askUntilAnswered();
      else receive(event);
    };
    opened.onerror = () => {
      const refused = opened.readyState === EventSource.CLOSED;
      opened.close(); // by itself it would come back for what the page showed when it was opened
      asking ??= setInterval(ask, ASK_EVERY);
      reopening = setTimeout(listen, refused ? TRY_AGAIN_AFTER : REOPEN_AFTER);
    };
    stream = opened;
  }

  function hangUp() {
    stream?.close();
    stopAsking();
    clearTimeout(reopening);
    clearTimeout(askingAgain);
  }

  // While the stream is open nobody asks by the clock.
  async function askUntilAnswered() {
    clearTimeout(askingAgain);
    const open = stream;
    if ((await ask()) || asking || stream !== open || open.readyState === EventSource.CLOSED) return;
    askingAgain = setTimeout(askUntilAnswered, ASK_EVERY);
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
