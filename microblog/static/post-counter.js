// How many characters a post has room for, counted as the server does: code points, without the white space
// around them.
"use strict";
{
  const room = document.getElementById("post-room");
  const spoken = document.getElementById("post-room-spoken");
  const field = document.getElementById("post");
  const limit = Number(room.dataset.limit);
  const language = document.documentElement.lang || undefined;

  const count = () => {
    const left = limit - [...field.value.trim()].length;
    const text = (left < 0 ? room.dataset.over : room.dataset.left).replace("{n}", Math.abs(left).toLocaleString(language));
    room.textContent = text;
    room.classList.toggle("post-room-over", left < 0);
    // A screen reader hears it when it begins to matter, not at each key.
    spoken.textContent = left < 0 || left === 20 || left === 0 ? text : "";
  };

  field.addEventListener("input", count);
  count();
}
