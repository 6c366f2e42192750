// A screen reader's words for the sliders of the interactive figures: the name of
// the choice and the value that is shown, where the widget gives only a position.
(function () {
  function label(slider) {
    const handle = slider.querySelector(".noUi-handle");
    const name = slider.querySelector(".widget-label");
    const value = slider.querySelector(".widget-readout");
    if (!handle || !name || !value) return;
    const say = () => {
      handle.setAttribute("aria-valuetext", value.textContent);
      value.contentEditable = "false";
    };
    handle.setAttribute("aria-label", name.textContent);
    value.setAttribute("aria-hidden", "true");
    say();
    new MutationObserver(say).observe(value, { childList: true, characterData: true, subtree: true });
  }

  new MutationObserver((changes) => {
    for (const change of changes)
      for (const node of change.addedNodes)
        if (node.querySelectorAll) {
          if (node.matches(".widget-slider")) label(node);
          node.querySelectorAll(".widget-slider").forEach(label);
        }
  }).observe(document.body, { childList: true, subtree: true });
})();

// The widgets ask for MathJax 2, which is not here; none of their words is mathematics.
document.addEventListener("DOMContentLoaded", () => {
  if (window.MathJax) window.MathJax.Hub = { Queue() {} };
});
