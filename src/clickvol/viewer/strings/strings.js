// What the page says, in the language of its user. English is the key, and so needs no table of its own.

import { GERMAN } from "./german.js";

/** By the code of a language: its own name, and its words for the English ones. */
export const LANGUAGES = {
  en: { name: "English", table: /** @type {Record<string, string>} */ ({}) },
  de: { name: "Deutsch", table: GERMAN },
};

const KEPT = "clickvol.language";
const TRANSLATED = ["title", "aria-label", "placeholder", "alt"];

/**
 * Return the language to speak: the one that was set, else the first of the browser's that there is.
 *
 * @param {string | null} kept code that the user has set.
 * @param {readonly string[]} preferred of the browser, such as "de-AT".
 */
export function chosenLanguage(kept, preferred) {
  const codes = [kept ?? "", ...preferred.map((code) => code.slice(0, 2).toLowerCase())];
  return codes.find((code) => code in LANGUAGES) ?? "en";
}

/** Read what is kept in the browser; null where it keeps nothing. */
export function readKept(name) {
  try {
    return globalThis.localStorage?.getItem(name) ?? null;
  } catch {
    return null; // a browser that keeps nothing for this page
  }
}

/** Keep something in the browser, or forget it (null). */
export function keep(name, value) {
  try {
    if (value === null) localStorage.removeItem(name);
    else localStorage.setItem(name, value);
  } catch {
    // Then it lasts as long as the page.
  }
}

export const language = chosenLanguage(readKept(KEPT), globalThis.navigator?.languages ?? []);

/** Speak another language from now on: the page is loaded anew, and offers the clicks made so far. */
export function speak(code) {
  keep(KEPT, code);
  location.reload();
}

/**
 * Return a text in the page's language; one without a translation stays as it is.
 *
 * @param {string} text in English, with places such as `{name}`.
 * @param {Record<string, unknown>} values for these places.
 * @param {Record<string, string>} table of the language.
 */
export function t(text, values = {}, table = LANGUAGES[language].table) {
  return (table[text] ?? text).replace(/\{(\w+)\}/g, (place, name) => String(values[name] ?? place));
}

/** Return a number as the language writes it. */
export const numberText = (value, digits) =>
  value.toLocaleString(language, { minimumFractionDigits: digits, maximumFractionDigits: digits, useGrouping: false });

/** Write all that the page itself has in its language: texts, titles and names of controls. */
export function translatePage(root = document.documentElement) {
  root.lang = language;
  const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const text = node.nodeValue?.trim();
    if (text) node.nodeValue = node.nodeValue?.replace(text, () => t(text)) ?? "";
  }
  for (const name of TRANSLATED) {
    for (const element of root.querySelectorAll(`[${name}]`)) element.setAttribute(name, t(element.getAttribute(name) ?? ""));
  }
}
