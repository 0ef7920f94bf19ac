"use strict";
// What is shown, as the fragment of the page's address, so that a link can be sent. A browser sends the fragment to no
// server, so that the words of a query are in no log. Files that were asked with are not in it.
(() => {
  const MAX_SELECTED = 1000;
  const LABEL = "label.";
  const objectOf = (text) => {
    try {
      const value = JSON.parse(text);
      return value && typeof value === "object" && !Array.isArray(value) ? value : {};
    } catch {
      return {}; // an address may be cut or mistyped
    }
  };
  // A state is { view, q, like, parts, weights, k, modality, labels, where, hybrid, raw, selected, theme, lang }.
  const encode = (state) => {
    const names = new URLSearchParams();
    if (state.view === "map") names.set("map", "");
    for (const name of ["q", "like", "modality", "where", "theme", "lang"]) if (state[name]) names.set(name, state[name]);
    for (const name of ["parts", "weights"]) if (Object.keys(state[name]).length) names.set(name, JSON.stringify(state[name]));
    if (state.k) names.set("k", state.k);
    for (const [label, value] of Object.entries(state.labels)) names.set(LABEL + label, value);
    for (const name of ["hybrid", "raw"]) if (state[name]) names.set(name, "");
    for (const id of state.selected) names.append("s", id);
    const text = names.toString().replace(/=(?=&|$)/g, "");
    return text ? `#${text}` : location.pathname;
  };
  const decode = (fragment) => {
    const names = new URLSearchParams(fragment.replace(/^#/, ""));
    const text = (name) => names.get(name) || "";
    return {
      view: names.has("map") ? "map" : "search",
      q: text("q"), like: text("like"), modality: text("modality"), where: text("where"), theme: text("theme"), lang: text("lang"),
      parts: objectOf(text("parts")), weights: objectOf(text("weights")),
      k: Math.max(0, Number.parseInt(text("k"), 10) || 0),
      labels: Object.fromEntries([...names].filter(([name]) => name.startsWith(LABEL)).map(([name, value]) => [name.slice(LABEL.length), value])),
      hybrid: names.has("hybrid"), raw: names.has("raw"),
      selected: names.getAll("s").slice(0, MAX_SELECTED),
    };
  };
  gapless.address = { encode, decode };
})();
