// A screen reader's words for the sliders of the interactive figures, in a live notebook
// and on a page: the name of the choice, and its value where the widget gives a position.
if (!window.pcbookSliders) {
  const label = (slider) => {
    const handle = slider.querySelector(".noUi-handle");
    const name = slider.querySelector(".widget-label");
    const value = slider.querySelector(".widget-readout");
    if (!handle || !name || !value || handle.hasAttribute("aria-label")) return;
    const say = () => {
      handle.setAttribute("aria-valuetext", value.textContent);
      value.contentEditable = "false";
    };
    handle.setAttribute("aria-label", name.textContent);
    value.setAttribute("aria-hidden", "true");
    say();
    new MutationObserver(say).observe(value, { childList: true, characterData: true, subtree: true });
  };

  const labelAll = () => document.querySelectorAll(".pcbook-sliders .widget-slider").forEach(label);

  window.pcbookSliders = new MutationObserver(labelAll);
  window.pcbookSliders.observe(document.body, { childList: true, subtree: true });
  labelAll();
}
