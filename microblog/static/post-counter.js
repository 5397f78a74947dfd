// Shows the number of characters left for a post, counted as on the server: code points, without leading and trailing
// white space.
"use strict";
{
  const counter = document.getElementById("post-counter");
  const announcement = document.getElementById("post-counter-announcement");
  const field = document.getElementById("post");
  const limit = Number(counter.dataset.limit);
  const language = document.documentElement.lang || undefined;

  const count = () => {
    const left = limit - [...field.value.trim()].length;
    const template = left < 0 ? counter.dataset.exceeded : counter.dataset.remaining;
    const text = template.replace("{n}", Math.abs(left).toLocaleString(language));
    counter.textContent = text;
    counter.classList.toggle("post-counter-exceeded", left < 0);
    // Announced to screen readers near and above the limit only, not for each key.
    announcement.textContent = left < 0 || left === 20 || left === 0 ? text : "";
  };

  field.addEventListener("input", count);
  count();
}
