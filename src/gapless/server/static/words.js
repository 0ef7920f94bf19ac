"use strict";
// The words of the interface: those of the page's language, which the switch or the browser chooses.
(() => {
  const { at } = gapless;
  const LANGUAGES = Object.keys(gapless.dictionaries);
  const STORED = "gapless-language";
  const ATTRIBUTES = ["aria-label", "placeholder", "title", "aria-roledescription"];
  const choice = at("language");
  const read = () => { try { return localStorage.getItem(STORED); } catch { return null; } }; // a browser may forbid it
  let language = "en";

  gapless.say = (key, values = {}) => {
    const text = gapless.dictionaries[language][key] ?? gapless.dictionaries.en[key] ?? key;
    return text.replace(/\{(\w+)\}/g, (whole, name) => String(values[name] ?? whole));
  };
  const valuesOf = (element) => JSON.parse(element.dataset.values || "{}");
  const translate = () => {
    document.documentElement.lang = language;
    for (const element of document.querySelectorAll("[data-say]")) element.textContent = gapless.say(element.dataset.say, valuesOf(element));
    for (const name of ATTRIBUTES) {
      for (const element of document.querySelectorAll(`[data-say-${name}]`)) element.setAttribute(name, gapless.say(element.getAttribute(`data-say-${name}`), valuesOf(element)));
    }
    choice.value = language;
  };
  gapless.language = {
    get: () => language,
    set: (name) => {
      if (!LANGUAGES.includes(name) || name === language) return;
      language = name;
      translate();
      document.dispatchEvent(new CustomEvent("gapless:language"));
    },
    store: () => { try { localStorage.setItem(STORED, language); } catch { /* the address holds it */ } },
  };
  const wanted = [read(), ...navigator.languages].filter(Boolean).map((name) => name.slice(0, 2));
  gapless.language.set(wanted.find((name) => LANGUAGES.includes(name)) || "en");
  choice.addEventListener("change", () => {
    gapless.language.set(choice.value);
    gapless.language.store();
  });
})();
