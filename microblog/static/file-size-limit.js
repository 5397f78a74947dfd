// Rejects a file that is too large before it is uploaded. The server would close the connection during the upload, and
// the browser could not read the response.
const field = document.querySelector("input[type=file][data-limit]");
field?.addEventListener("change", () => {
  const [file] = field.files;
  field.setCustomValidity(file && file.size > Number(field.dataset.limit) ? field.dataset.tooLarge : "");
  field.reportValidity();
});
