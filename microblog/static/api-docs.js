// Starts Swagger UI on /api/docs, in the colour scheme of the browser and without the validator badge, which would send
// requests to an external server.
"use strict";
{
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const update = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
  dark.addEventListener("change", update);
  update();

  const container = document.getElementById("api-docs");
  SwaggerUIBundle({
    domNode: container,
    url: container.dataset.document,
    validatorUrl: null,
    deepLinking: true,
    docExpansion: "list",
    presets: [SwaggerUIBundle.presets.apis],
  });
}
