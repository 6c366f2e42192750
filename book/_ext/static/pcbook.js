// Print in the light theme, whatever the reader's is.
let theme;
window.addEventListener("beforeprint", () => {
  theme = document.documentElement.dataset.theme;
  document.documentElement.dataset.theme = "light";
});
window.addEventListener("afterprint", () => {
  document.documentElement.dataset.theme = theme;
});

// A button with words is called by them, and by nothing else.
addEventListener("load", () => {
  for (const button of document.querySelectorAll(".search-button-field, .theme-switch-button")) {
    if (button.textContent.trim()) button.removeAttribute("aria-label");
  }
});
