// Says each <time> in the reader's own zone and form. Whoever adds a part of the page later dispatches
// "content-added" on it (or on the document), and the times in there follow.
"use strict";
{
  const date = new Intl.DateTimeFormat(undefined, { dateStyle: "medium" });
  const minute = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
  const full = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long" });

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
