// The elements of the page.

/**
 * Return an element of the page by its id; a test sees to it that every id that is asked for is there.
 *
 * @param {string} id
 * @returns {any} as what the element is: a button, an input, a dialog
 */
export const byId = (id) => document.getElementById(id);

/**
 * Make an element.
 *
 * @param {string} name such as "span".
 * @param {Record<string, unknown>} properties of it, such as `textContent` and `className`.
 * @param {(Node | string)[]} children in their order.
 * @returns {any}
 */
export function make(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

/** Make a button. */
export const makeButton = (properties, act, ...children) => {
  const button = make("button", { type: "button", ...properties }, ...children);
  button.addEventListener("click", act);
  return button;
};
