// Errors and hints that come and go. Each is an alert that a screen reader speaks at once.

import { t } from "./strings/strings.js";

/** Leave out what a message says of options of the command line, which the page does not have. */
export const withoutOptions = (text) => text.replace(/\s*\([^()]*--[a-z][^()]*\)|[,;](?:[^,;:-]|-(?!-))*--[a-z][^,;:]*/g, "");

const SECONDS = { error: 12, info: 6 };

/** Return a function that shows a notice: (kind, text, action?) with action {name, run}. */
export function makeNotices(place) {
  /**
   * @param {"error" | "info"} kind
   * @param {string} text
   * @param {{name: string, run: () => unknown} | null} action
   */
  return function notify(kind, text, action = null) {
    const notice = document.createElement("div");
    notice.className = `notice ${kind}`;
    notice.setAttribute("role", kind === "error" ? "alert" : "status");
    const words = document.createElement("p");
    const shown = withoutOptions(text);
    words.textContent = shown.charAt(0).toUpperCase() + shown.slice(1);
    notice.append(words);

    const remove = () => notice.remove();
    const button = (name, run, label) => {
      const element = document.createElement("button");
      element.type = "button";
      element.textContent = name;
      if (label) element.setAttribute("aria-label", label);
      element.addEventListener("click", () => {
        remove();
        run();
      });
      notice.append(element);
    };
    if (action) button(action.name, action.run);
    button("×", () => {}, t("Dismiss"));

    // What can be acted on stays until it is.
    let timer = 0;
    const leave = () => {
      if (!action) timer = setTimeout(remove, 1000 * SECONDS[kind]);
    };
    notice.addEventListener("pointerenter", () => clearTimeout(timer));
    notice.addEventListener("pointerleave", leave);
    notice.addEventListener("focusin", () => clearTimeout(timer));
    leave();
    place.append(notice);
    while (place.children.length > 4) place.firstElementChild.remove();
  };
}
