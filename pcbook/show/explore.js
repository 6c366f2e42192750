// The controls of the interactive figures, on a page and in a live notebook. A figure
// carries its frames with it, so nothing is asked of a kernel or of a server.
document.querySelectorAll(".pcbook-explore:not([data-live]) > [type='application/json']").forEach((data) => {
  const { choices, frames, images } = JSON.parse(data.textContent);
  const figure = data.parentElement;
  const [controls, values, said] = [".pcbook-controls", ".pcbook-values", ".pcbook-said"].map((name) =>
    figure.querySelector(name),
  );
  const panels = [...figure.querySelectorAll(".pcbook-panels img")];
  const chosen = choices.map((choice) => choice.start);
  let later;

  // Frames stand in the order of the choices, the last of them fastest.
  const place = () => choices.reduce((at, choice, i) => at * choice.labels.length + chosen[i], 0);

  const choose = (i, value) => {
    chosen[i] = Number(value);
    const frame = frames[place()];
    panels.forEach((image, p) => {
      image.src = `data:image/webp;base64,${images[frame.panels[p]]}`;
    });
    panels[0].alt = frame.alt;
    values.textContent = choices.map((c, k) => `${c.name}: ${c.labels[chosen[k]]}`).join("; ");
    clearTimeout(later);
    later = setTimeout(() => { said.textContent = frame.alt; }, 500);
  };

  const element = (tag, properties, ...children) => {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  };

  const slider = (choice, i) => {
    const value = element("output", { textContent: choice.labels[choice.start] });
    value.style.minWidth = `${Math.max(...choice.labels.map((label) => label.length))}ch`;
    value.setAttribute("aria-hidden", "true");
    const input = element("input", { type: "range", min: 0, max: choice.labels.length - 1, value: choice.start });
    const say = () => {
      value.textContent = choice.labels[input.value];
      input.setAttribute("aria-valuetext", value.textContent);
    };
    input.setAttribute("aria-label", choice.name);
    input.oninput = () => { say(); choose(i, input.value); };
    say();
    return element("div", {}, input, value);
  };

  const buttons = (choice, i) => {
    window.pcbookGroups = (window.pcbookGroups ?? 0) + 1;
    const group = element("div", {});
    group.setAttribute("role", "radiogroup");
    group.setAttribute("aria-label", choice.name);
    choice.labels.forEach((label, value) => {
      const input = element("input", { type: "radio", name: `pcbook-${window.pcbookGroups}`, value });
      input.checked = value === choice.start;
      input.onchange = () => choose(i, value);
      group.append(element("label", {}, input, label));
    });
    return group;
  };

  const menu = (choice, i) => {
    const options = choice.labels.map((label, value) => element("option", { value }, label));
    const input = element("select", {}, ...options);
    input.setAttribute("aria-label", choice.name);
    input.value = choice.start;
    input.onchange = () => choose(i, input.value);
    return element("div", {}, input);
  };

  choices.forEach((choice, i) => {
    const name = element("span", { textContent: choice.name });
    name.setAttribute("aria-hidden", "true");
    controls.append(name, { slider, buttons, menu }[choice.control](choice, i));
  });
  figure.dataset.live = "";
});
