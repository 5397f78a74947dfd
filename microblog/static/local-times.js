// Formats each <time> in the page's language, with the user's regional format, and in the chosen time zone or else that
// of the browser. Scripts that add content dispatch "content-added" on it (or on the document) to format its times.
"use strict";
{
  const { lang, dataset } = document.documentElement;
  const form = navigator.languages.find((own) => own.split("-")[0] === lang.split("-")[0]) ?? lang;

  const formatter = (options) => {
    try {
      return new Intl.DateTimeFormat(form, { ...options, timeZone: dataset.zone });
    } catch {
      return new Intl.DateTimeFormat(form, options); // the browser does not know the time zone
    }
  };
  const date = formatter({ dateStyle: "medium" });
  const minute = formatter({ dateStyle: "medium", timeStyle: "short" });
  const full = formatter({ dateStyle: "full", timeStyle: "long" });

  const rewrite = (part) => {
    for (const time of part.querySelectorAll("time[datetime]")) {
      const value = new Date(time.dateTime);
      if (!Number.isNaN(value.getTime())) {
        time.textContent = (time.dataset.form === "date" ? date : minute).format(value);
        time.title = full.format(value);
      }
    }
  };

  document.addEventListener("content-added", (event) => rewrite(event.target));
  rewrite(document);
}
