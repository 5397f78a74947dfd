// Shows the number of characters left for a post, counted as on the server: code points, without leading and trailing
// white space.
"use strict";
{
  const room = document.getElementById("post-room");
  const announcement = document.getElementById("post-room-spoken");
  const field = document.getElementById("post");
  const limit = Number(room.dataset.limit);
  const language = document.documentElement.lang || undefined;

  const count = () => {
    const left = limit - [...field.value.trim()].length;
    const text = (left < 0 ? room.dataset.over : room.dataset.left).replace("{n}", Math.abs(left).toLocaleString(language));
    room.textContent = text;
    room.classList.toggle("post-room-over", left < 0);
    // Announced to screen readers near and above the limit only, not for each key.
    announcement.textContent = left < 0 || left === 20 || left === 0 ? text : "";
  };

  field.addEventListener("input", count);
  count();
}
