// The widgets ask for MathJax 2, which is not here; none of their words is mathematics.
document.addEventListener("DOMContentLoaded", () => {
  if (window.MathJax) window.MathJax.Hub = { Queue() {} };
});
