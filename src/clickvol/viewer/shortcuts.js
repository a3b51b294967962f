// Letters that a user has given to commands instead of their own; kept in the browser.

import { keep, readKept } from "./strings/strings.js";

const KEPT = "clickvol.keys";

/**
 * Give a letter to a command; the command that had it takes the letter that becomes free.
 *
 * @param {Record<string, string>} chosen letters by the commands' own ones; those that are the own ones are left out.
 * @param {string} own letter of the command.
 * @param {string} letter that it is to have.
 * @param {string[]} all own letters of all commands.
 */
export function withLetter(chosen, own, letter, all) {
  const letterOf = (each) => chosen[each] ?? each;
  const holder = all.find((each) => letterOf(each) === letter);
  const changed = { ...chosen, [own]: letter };
  if (holder !== undefined && holder !== own) changed[holder] = letterOf(own);
  return Object.fromEntries(Object.entries(changed).filter(([each, now]) => each !== now));
}

/** Return the letters that were chosen, by the commands' own ones. */
export function readLetters() {
  try {
    const kept = Object.entries(JSON.parse(readKept(KEPT) ?? "{}"));
    return /** @type {Record<string, string>} */ (Object.fromEntries(kept.filter(([own, now]) => /^[a-z]$/.test(own) && /^[a-z]$/.test(now))));
  } catch {
    return {}; // not ours
  }
}

export const keepLetters = (chosen) => keep(KEPT, Object.keys(chosen).length ? JSON.stringify(chosen) : null);

/** Write the letters that were chosen into the titles of the page's controls. */
export function writeLetters(chosen, root = document) {
  for (const element of root.querySelectorAll("[aria-keyshortcuts]")) {
    const own = element.getAttribute("data-own-key") ?? element.getAttribute("aria-keyshortcuts") ?? "";
    if (!/^[A-Z]$/.test(own)) continue;
    const before = element.getAttribute("aria-keyshortcuts") ?? own;
    const now = (chosen[own.toLowerCase()] ?? own).toUpperCase();
    element.setAttribute("data-own-key", own);
    element.setAttribute("aria-keyshortcuts", now);
    const titled = element.closest("[title]");
    titled?.setAttribute("title", (titled.getAttribute("title") ?? "").replace(`(${before})`, `(${now})`));
  }
}
