// A file that is too large is refused before it is sent: no answer could be read while the sending is cut off.
const field = document.querySelector("input[type=file][data-limit]");
field?.addEventListener("change", () => {
  const [file] = field.files;
  field.setCustomValidity(file && file.size > Number(field.dataset.limit) ? field.dataset.tooLarge : "");
  field.reportValidity();
});
