// Fetching parts of a page again, one request at a time.

const RETRY_AFTER = 3000; // milliseconds after a failed request, since the event is not sent again

// Returns a function that runs `load` after `delay` milliseconds. Calls during a run cause one more run; a run that
// throws is repeated.
export function coalesced(load, delay = 0) {
  let pending; // a timer, or true during a run
  let again = false;

  async function run() {
    pending = true;
    again = false;
    try {
      await load();
      pending = undefined;
      if (again) request();
    } catch {
      pending = setTimeout(run, RETRY_AFTER);
    }
  }

  function request() {
    if (pending === true) again = true;
    else pending ??= setTimeout(run, delay);
  }

  return request;
}

// Returns the page at `url` as a document; throws if the server is unavailable. If the server redirects, to the
// sign-in page, it calls `redirected` and returns undefined, as for any other refusal.
export async function fetchPage(url, redirected = () => {}) {
  const response = await fetch(url, { headers: { Accept: "text/html" } });
  if (response.redirected) return void redirected();
  if (response.status >= 500) throw new Error(response.statusText);
  if (response.ok) return new DOMParser().parseFromString(await response.text(), "text/html");
}
