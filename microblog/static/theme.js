// Applies the light or dark theme of the operating system. Runs before the first paint, to avoid a flash.
"use strict";
{
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const update = () => {
    document.documentElement.dataset.bsTheme = dark.matches ? "dark" : "light";
  };
  dark.addEventListener("change", update);
  update();
}
