"use strict";
// Keys of the page: "/" to the box, arrows through the hits, "x" selects one; dialogs and controls have their own.
(() => {
  const { at } = gapless;
  const [words, results] = ["words", "results"].map(at);
  addEventListener("keydown", (event) => {
    const typing = event.target.closest("input:not([type=checkbox]), select, textarea, [role=tab], canvas, dialog");
    if (event.ctrlKey || event.metaKey || event.altKey || typing) return;
    if (event.key === "/" && words) {
      event.preventDefault();
      gapless.showTab("search");
      words.focus();
      words.select();
      return;
    }
    if (at("search").hidden || !results.children.length) return;
    const cards = [...results.children];
    const here = cards.findIndex((card) => card.contains(document.activeElement));
    if (event.key === "x" && here >= 0) {
      event.preventDefault();
      cards[here].querySelector(".pick input").click();
      return;
    }
    const abreast = cards.filter((card) => card.offsetTop === cards[0].offsetTop).length;
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: abreast, ArrowUp: -abreast }[event.key];
    if (!step || (here < 0 && document.activeElement !== results)) return;
    event.preventDefault();
    const next = cards[here < 0 ? 0 : here + step];
    if (next) next.querySelector("button").focus();
  });
})();
