// Says each <time> in the page's language, as the reader's country writes it, and in the zone that they chose, else in
// the browser's. Whoever adds a part of the page later dispatches "content-added" on it (or on the document), and the
// times in there follow.
"use strict";
{
  const { lang, dataset } = document.documentElement;
  const form = navigator.languages.find((own) => own.split("-")[0] === lang.split("-")[0]) ?? lang;

  const formatter = (options) => {
    try {
      return new Intl.DateTimeFormat(form, { ...options, timeZone: dataset.zone });
    } catch {
      return new Intl.DateTimeFormat(form, options); // a browser that does not know the zone
    }
  };
  const date = formatter({ dateStyle: "medium" });
  const minute = formatter({ dateStyle: "medium", timeStyle: "short" });
  const full = formatter({ dateStyle: "full", timeStyle: "long" });

  const rewrite = (part) => {
    for (const time of part.querySelectorAll("time[datetime]")) {
      const moment = new Date(time.dateTime);
      if (!Number.isNaN(moment.getTime())) {
        time.textContent = (time.dataset.form === "date" ? date : minute).format(moment);
        time.title = full.format(moment);
      }
    }
  };

  document.addEventListener("content-added", (event) => rewrite(event.target));
  rewrite(document);
}
