// Print in the light theme, whatever the reader's is.
let theme;
window.addEventListener("beforeprint", () => {
  theme = document.documentElement.dataset.theme;
  document.documentElement.dataset.theme = "light";
});
window.addEventListener("afterprint", () => {
  document.documentElement.dataset.theme = theme;
});

// The visible words of a button are part of its name; the logo is part of the navigation.
document.addEventListener("DOMContentLoaded", () => {
  for (const button of document.querySelectorAll(".search-button-field, .theme-switch-button")) {
    const words = button.innerText.trim().replace(/\s+/g, " ");
    if (words && !button.getAttribute("aria-label")?.includes(words)) button.setAttribute("aria-label", words);
  }
});
