// Elements from data. Text always becomes a text node: what a model wrote can never become markup.

const SVG = "http://www.w3.org/2000/svg";

/** An HTML element: `h("a", { href: "#/", onclick: … }, "Perilune")`. What is null, undefined or false is left out. */
export function h(tag, properties = {}, ...children) {
  return build(document.createElement(tag), properties, children);
}

/** The same for SVG. */
export function s(tag, properties = {}, ...children) {
  return build(document.createElementNS(SVG, tag), properties, children);
}

function build(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (!isThere(value)) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name.startsWith("--")) element.style.setProperty(name, value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...present(children));
  return element;
}

/** Puts children in the place of an element's own. */
export function fill(element, ...children) {
  element.replaceChildren(...present(children));
  return element;
}

const isThere = (value) => value !== null && value !== undefined && value !== false;
const present = (children) => children.flat(Infinity).filter(isThere);

/** A titled section of a page; `body` is what to fill. */
export function section(title, ...tools) {
  const body = h("div", { class: "body" });
  const id = `section-${title.toLowerCase().replaceAll(" ", "-")}`;
  const head = h("div", { class: "head" }, h("h2", { id }, title), ...tools);
  return { element: h("section", { class: "card", "aria-labelledby": id }, head, body), body };
}
