"use strict";
// Light or dark: as the system says, or as the switch says, which then turns the rules for dark on or off.
(() => {
  const { at } = gapless;
  const DARK = "(prefers-color-scheme: dark)";
  const choice = at("theme");
  const media = [...document.styleSheets].flatMap((sheet) => [...sheet.cssRules]).filter((rule) => rule.media && rule.conditionText === DARK).map((rule) => rule.media);
  let theme = "auto";
  gapless.theme = {
    get: () => theme,
    set: (name) => {
      theme = ["light", "dark"].includes(name) ? name : "auto";
      for (const list of media) list.mediaText = { light: "not all", dark: "all", auto: DARK }[theme];
      document.documentElement.style.colorScheme = theme === "auto" ? "" : theme;
      choice.value = theme;
      document.dispatchEvent(new CustomEvent("gapless:theme"));
    },
  };
  choice.addEventListener("change", () => gapless.theme.set(choice.value));
})();
